//! The XML interface of GCS, as far as objects are written by it, on top of the JSON one.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, header::HOST};

use crate::serve::{Served, hand_on, serve};

/// Stands before a server that has the JSON interface only.
pub(crate) struct XmlFront(Served);

/// Uploads in parts by their ids.
#[derive(Default)]
struct Uploads {
    last: u64,
    parts: HashMap<String, BTreeMap<u32, Bytes>>,
}

impl XmlFront {
    pub(crate) fn start(upstream: &str) -> XmlFront {
        let upstream = Arc::new(upstream.to_owned());
        let uploads = Arc::<Mutex<Uploads>>::default();
        XmlFront(serve(move |request| {
            let (upstream, uploads) = (upstream.clone(), uploads.clone());
            async move {
                let response = answer(request, &upstream, &uploads).await?;
                Ok(response.map(|body| Full::new(body).map_err(|never| match never {})))
            }
        }))
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }
}

async fn answer(
    mut request: Request<Bytes>,
    upstream: &str,
    uploads: &Mutex<Uploads>,
) -> io::Result<Response<Bytes>> {
    request
        .headers_mut()
        .insert(HOST, upstream.parse().unwrap());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let upload = parameter("uploadId");
    match (request.method().clone(), upload) {
        (Method::POST, None) if query.starts_with("uploads") => {
            let mut uploads = uploads.lock().unwrap();
            uploads.last += 1;
            let id = format!("upload-{}", uploads.last);
            uploads.parts.insert(id.clone(), BTreeMap::new());
            let xml = format!(
                "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>\
                 <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            Ok(Response::new(xml.into()))
        }
        (Method::PUT, Some(id)) => {
            let number = parameter("partNumber").and_then(|number| number.parse().ok());
            let mut uploads = uploads.lock().unwrap();
            match (uploads.parts.get_mut(&id), number) {
                (Some(parts), Some(number)) => {
                    parts.insert(number, request.into_body());
                    Ok(with_etag(
                        Response::new(Bytes::new()),
                        &format!("part-{number}"),
                    ))
                }
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            }
        }
        (Method::POST, Some(id)) => {
            let parts = uploads.lock().unwrap().parts.remove(&id);
            let Some(parts) = parts else {
                return Ok(empty(StatusCode::NOT_FOUND));
            };
            let whole = parts.into_values().collect::<Vec<_>>().concat();
            let written = write(&request, whole.into(), upstream).await?;
            if !written.status().is_success() {
                return Ok(written);
            }
            let xml = "<CompleteMultipartUploadResult><ETag>whole</ETag>\
                       </CompleteMultipartUploadResult>";
            Ok(written.map(|_| xml.into()))
        }
        (Method::DELETE, Some(id)) => {
            uploads.lock().unwrap().parts.remove(&id);
            Ok(empty(StatusCode::NO_CONTENT))
        }
        (Method::PUT, None) => {
            let body = request.body().clone();
            write(&request, body, upstream).await
        }
        _ => hand_on(request, upstream).await,
    }
}

/// Writes the object that the request's path names.
async fn write(
    request: &Request<Bytes>,
    body: Bytes,
    upstream: &str,
) -> io::Result<Response<Bytes>> {
    let path = request.uri().path().trim_start_matches('/');
    let (bucket, object) = path.split_once('/').unwrap_or((path, ""));
    // What has a meaning in queries has none in paths.
    let object = object.replace('+', "%2B").replace('&', "%26");
    let generation = request.headers().get("x-goog-if-generation-match");
    let condition = match generation.and_then(|generation| generation.to_str().ok()) {
        None => String::new(),
        Some(generation) => format!("&ifGenerationMatch={generation}"),
    };
    let target =
        format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={object}{condition}");
    let request = Request::post(target)
        .header(HOST, upstream)
        .header("content-type", "application/octet-stream")
        .body(body)
        .map_err(io::Error::other)?;
    let answer = hand_on(request, upstream).await?;
    Ok(match answer.status().is_success() {
        true => with_etag(Response::new(Bytes::new()), "whole"),
        false => empty(answer.status()),
    })
}

fn with_etag(mut response: Response<Bytes>, etag: &str) -> Response<Bytes> {
    let value = format!("\"{etag}\"").parse().unwrap();
    response.headers_mut().insert("etag", value);
    response
}

fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
