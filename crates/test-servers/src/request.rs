use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::TcpStream,
};

use object_store::client::HttpRequest;

/// Sends a request over a connection of its own: status and body of the answer.
pub(crate) fn send(request: &HttpRequest) -> (u16, String) {
    let authority = request.uri().authority().unwrap().as_str();
    let target = request.uri().path_and_query().unwrap().as_str();
    let mut text = format!(
        "{} {target} HTTP/1.1\r\nHost: {authority}\r\n",
        request.method()
    );
    for (name, value) in request.headers() {
        write!(text, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
    }
    let body = request.body().as_bytes().cloned().unwrap_or_default();
    write!(
        text,
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or(0), body.to_owned())
}
