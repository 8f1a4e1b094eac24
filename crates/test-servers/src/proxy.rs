use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use http_body_util::StreamBody;
use hyper::{Method, Request, Response, StatusCode, body::Frame};

use crate::serve::{Served, hand_on, serve};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and does not reach the server.
    Status(u16),
    /// It is answered with 503, and to come again after so many seconds.
    Busy(u64),
    /// The connection ends without an answer, before the request reaches the server.
    Reset,
    /// The server carries the request out; the connection ends without an answer.
    LostAnswer,
    /// The connection ends in the middle of the answer's body.
    Truncated,
    /// The answer's body stops coming in its middle; the connection stays.
    Stalled,
    /// The answer comes after so long.
    Late(Duration),
}

struct Planned {
    method: Option<Method>,
    fault: Fault,
}

#[derive(Default)]
struct State {
    planned: VecDeque<Planned>,
    requests: u64,
}

/// Stands before a server and hands all on, but for the faults it is told to make.
pub struct Proxy {
    served: Served,
    state: Arc<Mutex<State>>,
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

impl Proxy {
    /// Starts one before the server at `upstream` (`host:port`).
    pub fn start(upstream: &str) -> Proxy {
        let state = Arc::<Mutex<State>>::default();
        let (upstream, shared) = (upstream.to_owned(), state.clone());
        let served = serve(move |request| answer(request, upstream.clone(), shared.clone()));
        Proxy { served, state }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.served.address
    }

    /// The next `count` requests of this method, or of any, meet the fault.
    pub fn plan(&self, method: Option<&str>, fault: Fault, count: usize) {
        let mut state = self.state.lock().unwrap();
        for _ in 0..count {
            let method = method.map(|method| method.parse().unwrap());
            state.planned.push_back(Planned { method, fault });
        }
    }

    /// Faults that no request has met so far.
    pub fn left(&self) -> usize {
        self.state.lock().unwrap().planned.len()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.state.lock().unwrap().requests
    }
}

fn next_fault(state: &Mutex<State>, method: &Method) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let mut planned = state.planned.iter();
    let at = planned.position(|planned| planned.method.as_ref().is_none_or(|m| m == method))?;
    state.planned.remove(at).map(|planned| planned.fault)
}

async fn answer(
    request: Request<Bytes>,
    upstream: String,
    state: Arc<Mutex<State>>,
) -> io::Result<Response<Body>> {
    let fault = next_fault(&state, request.method());
    match fault {
        Some(Fault::Reset) => return Err(io::Error::other("reset")),
        Some(Fault::Status(status)) => {
            let mut response =
                Response::new(frames(vec![Bytes::from_static(b"planned")], End::Whole));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(response);
        }
        Some(Fault::Busy(seconds)) => {
            let mut response = Response::new(frames(Vec::new(), End::Whole));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("retry-after", seconds.into());
            return Ok(response);
        }
        _ => {}
    }
    let (head, body) = hand_on(request, &upstream).await?.into_parts();
    let half = body.slice(..body.len() / 2);
    let body = match fault {
        Some(Fault::LostAnswer) => return Err(io::Error::other("lost")),
        Some(Fault::Truncated) => frames(vec![half], End::Broken),
        Some(Fault::Stalled) => frames(vec![half], End::Never),
        Some(Fault::Late(pause)) => {
            tokio::time::sleep(pause).await;
            frames(vec![body], End::Whole)
        }
        _ => frames(vec![body], End::Whole),
    };
    Ok(Response::from_parts(head, body))
}

enum End {
    Whole,
    Broken,
    Never,
}

fn frames(bytes: Vec<Bytes>, end: End) -> Body {
    let frames = stream::iter(bytes.into_iter().filter(|bytes| !bytes.is_empty()));
    let frames = frames.map(|bytes| Ok(Frame::data(bytes)));
    let frames = match end {
        End::Whole => frames.boxed(),
        End::Broken => frames
            .chain(stream::once(async {
                // What came before is on its way when the connection ends.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("broken"))
            }))
            .boxed(),
        End::Never => frames.chain(stream::pending()).boxed(),
    };
    StreamBody::new(frames)
}
