//! A request over the network of a simulation, where the library that sends all others cannot go.

use br_rt::{Network, Rt};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    HeaderMap, StatusCode, Uri,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;

use super::client::ANSWER_BYTES_MAX;
use crate::rpc::chain;

/// Sends, and reads the whole answer.
pub(super) async fn exchange(
    rt: &Rt,
    network: &Network,
    request: reqwest::Request,
) -> Result<(StatusCode, Vec<u8>), String> {
    let mut request = hyper::Request::<reqwest::Body>::try_from(request).map_err(text)?;
    let address = request.uri().authority().map(ToString::to_string);
    let address = address.unwrap_or_default();
    let path = request.uri().path_and_query().cloned();
    let path = path.ok_or_else(|| "a URL without a path".to_owned())?;
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::from_str(&address).map_err(text)?;
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(HOST, host);
    let stream = network.connect(rt, &address).await.map_err(text)?;
    let connected = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(text)?;
    let _connection = rt.spawn(connection);
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes().to_vec()))
}

fn text(error: impl std::error::Error) -> String {
    chain(&error)
}
