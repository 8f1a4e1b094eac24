use std::{io, sync::mpsc, thread};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Body, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// A server of this process, on a thread of its own; it ends with this value.
pub(crate) struct Served {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    _stop: oneshot::Sender<()>,
}

/// Answers each request by `answer`; an error ends the connection without an answer.
pub(crate) fn serve<A, F, B>(answer: A) -> Served
where
    A: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<B>>> + Send,
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let (sender, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _ = sender.send(listener.local_addr().unwrap().to_string());
            tokio::select! {
                biased;
                _ = stopped => {}
                () = accept(listener, answer) => {}
            }
        });
    });
    Served {
        address: address.recv().unwrap(),
        _stop: stop,
    }
}

async fn accept<A, F, B>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<B>>> + Send,
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                answer(Request::from_parts(head, body)).await
            }
        });
        tokio::spawn(async move {
            // Ends with an error where a fault breaks the connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Sends a request to the server at `upstream`, over a connection of its own.
pub(crate) async fn hand_on(
    request: Request<Bytes>,
    upstream: &str,
) -> io::Result<Response<Bytes>> {
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await;
    let (mut head, body) = response.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    // The body is handed on in a form of our own.
    head.headers.remove("transfer-encoding");
    head.headers.remove("connection");
    Ok(Response::from_parts(head, body))
}
