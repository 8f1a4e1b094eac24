use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};

use crate::serve::{Served, serve};

/// A server that answers as it is told: in the place of small services that no package brings, such as
/// the metadata of machines.
pub struct Answers {
    served: Served,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Answers {
    /// Starts one with status and body for each request.
    pub fn start<A>(answer: A) -> Answers
    where
        A: Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
    {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (shared, answer) = (asked.clone(), Arc::new(answer));
        let served = serve(move |request: Request<Bytes>| {
            let (shared, answer) = (shared.clone(), answer.clone());
            async move {
                let headers = request.headers().iter();
                let headers = headers.map(|(name, value)| {
                    let value = value.to_str().unwrap().to_owned();
                    (name.as_str().to_owned(), value)
                });
                let asked = Asked {
                    method: request.method().to_string(),
                    target: request.uri().to_string(),
                    headers: headers.collect(),
                    body: String::from_utf8_lossy(request.body()).into_owned(),
                };
                let (status, body) = answer(&asked);
                shared.lock().unwrap().push(asked);
                let never = |never: Infallible| -> io::Error { match never {} };
                let mut response = Response::new(Full::new(Bytes::from(body)).map_err(never));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            }
        });
        Answers { served, asked }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.served.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.served.address
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}
