//! As much of S3 as a backup needs, over a folder: for measurements, where a server has to be faster than
//! what is measured. It checks nothing, least of all signatures.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, header::HeaderMap};

use crate::serve::{Served, serve};

/// The server; its objects are files, written and synced as [`object_store`] does in a folder.
pub struct S3Folder(Served);

struct State {
    root: PathBuf,
    last: AtomicU64,
    /// Uploads in parts by their ids.
    uploads: Mutex<HashMap<String, BTreeMap<u32, Bytes>>>,
}

impl S3Folder {
    /// Starts one; each folder of `root` is a bucket.
    pub fn start(root: &Path) -> S3Folder {
        let state = Arc::new(State {
            root: root.to_owned(),
            last: AtomicU64::new(0),
            uploads: Mutex::default(),
        });
        S3Folder(serve(move |request| {
            let state = state.clone();
            async move {
                let answer = tokio::task::spawn_blocking(move || state.answer(&request));
                let answer = answer.await.map_err(io::Error::other)??;
                Ok(answer.map(|body| Full::new(body).map_err(|never| match never {})))
            }
        }))
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }
}

impl State {
    fn answer(&self, request: &Request<Bytes>) -> io::Result<Response<Bytes>> {
        let name = request.uri().path().trim_matches('/');
        let query = request.uri().query().unwrap_or_default();
        let file = self.root.join(name);
        let upload = parameter(query, "uploadId");
        Ok(match (request.method(), upload) {
            (&Method::GET, _) if query.contains("list-type") => self.list(&file, query)?,
            (&Method::GET | &Method::HEAD, _) => read(&file, request.headers())?,
            (&Method::POST, None) => {
                let id = format!("upload-{}", self.last.fetch_add(1, Ordering::Relaxed));
                self.uploads
                    .lock()
                    .unwrap()
                    .insert(id.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>\
                     <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            (&Method::POST, Some(id)) => {
                let parts = self.uploads.lock().unwrap().remove(&id);
                self.write(&file, parts.unwrap_or_default().into_values(), false)?;
                xml("<CompleteMultipartUploadResult><ETag>whole</ETag>\
                     </CompleteMultipartUploadResult>"
                    .to_owned())
            }
            (&Method::PUT, Some(id)) => {
                let number = parameter(query, "partNumber");
                let number: u32 = number.and_then(|text| text.parse().ok()).unwrap();
                let mut uploads = self.uploads.lock().unwrap();
                let parts = uploads.entry(id).or_default();
                parts.insert(number, request.body().clone());
                with_etag(Response::new(Bytes::new()))
            }
            (&Method::PUT, None) => {
                let is_new = request.headers().contains_key("if-none-match");
                match self.write(&file, [request.body().clone()], is_new)? {
                    true => with_etag(Response::new(Bytes::new())),
                    false => status(StatusCode::PRECONDITION_FAILED),
                }
            }
            (&Method::DELETE, upload) => {
                match upload {
                    Some(id) => drop(self.uploads.lock().unwrap().remove(&id)),
                    None => drop(fs::remove_file(&file)),
                }
                status(StatusCode::NO_CONTENT)
            }
            _ => status(StatusCode::NOT_IMPLEMENTED),
        })
    }

    /// Whether it was written: not if it must be new and is not.
    fn write(
        &self,
        file: &Path,
        parts: impl IntoIterator<Item = Bytes>,
        is_new: bool,
    ) -> io::Result<bool> {
        let folder = file.parent().unwrap();
        fs::create_dir_all(folder)?;
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join(format!("temporary-{number}"));
        let mut written = File::create(&temporary)?;
        for part in parts {
            written.write_all(&part)?;
        }
        written.sync_all()?;
        match is_new {
            true if file.exists() => fs::remove_file(&temporary).map(|()| false),
            _ => {
                fs::rename(&temporary, file)?;
                File::open(folder)?.sync_all()?;
                Ok(true)
            }
        }
    }

    fn list(&self, bucket: &Path, query: &str) -> io::Result<Response<Bytes>> {
        let prefix = parameter(query, "prefix").unwrap_or_default();
        let after = parameter(query, "start-after").unwrap_or_default();
        let mut found = BTreeMap::new();
        walk(bucket, bucket, &mut found)?;
        let mut text = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for (key, size) in found {
            if key.starts_with(&prefix) && key > after {
                write!(
                    text,
                    "<Contents><Key>{key}</Key><Size>{size}</Size>\
                     <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
                .unwrap();
            }
        }
        Ok(xml(text + "</ListBucketResult>"))
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, u64>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => walk(root, &entry.path(), found)?,
            false => {
                let path = entry.path();
                let key = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(key, entry.metadata()?.len());
            }
        }
    }
    Ok(())
}

fn read(file: &Path, headers: &HeaderMap) -> io::Result<Response<Bytes>> {
    let Ok(bytes) = fs::read(file).map(Bytes::from) else {
        return Ok(status(StatusCode::NOT_FOUND));
    };
    let length = bytes.len();
    let range = headers.get("range").and_then(|range| range.to_str().ok());
    let mut response = with_etag(Response::new(bytes.clone()));
    if let Some(range) = range {
        let Some(range) = range_in(range, length) else {
            return Ok(status(StatusCode::RANGE_NOT_SATISFIABLE));
        };
        let place = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
            .headers_mut()
            .insert("content-range", place.parse().unwrap());
        *response.body_mut() = bytes.slice(range);
    }
    Ok(response)
}

/// `bytes=FIRST-LAST`.
fn range_in(text: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last: usize = last.parse().unwrap_or(usize::MAX);
    (first < length).then(|| first..last.saturating_add(1).min(length))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value.replace("%2F", "/"))
}

fn xml(text: String) -> Response<Bytes> {
    with_etag(Response::new(text.into()))
}

fn with_etag(mut response: Response<Bytes>) -> Response<Bytes> {
    response
        .headers_mut()
        .insert("etag", "\"whole\"".parse().unwrap());
    response
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
