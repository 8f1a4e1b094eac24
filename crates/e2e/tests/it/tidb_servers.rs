//! A restore and TiDB servers, of which there are only the places where they register and answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use br_rt::Task;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::site::{Place, Site, options, restore_tables};

/// A server that has loaded the newest schemas from some question on.
struct Server {
    status_port: u16,
    asked: Arc<AtomicUsize>,
    _running: Task<()>,
}

impl Server {
    async fn start(site: &Site, loaded_from: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let status_port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let running = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /db-table/"));
                let number = count.fetch_add(1, Ordering::Relaxed);
                let (status, body) = match number {
                    // Of the table it knows nothing, then something old.
                    0 => ("400 Bad Request", "no such table".to_owned()),
                    _ => {
                        let version = if number < loaded_from { 0 } else { i64::MAX };
                        ("200 OK", format!(r#"{{"schema_version":{version}}}"#))
                    }
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let server = Server {
            status_port,
            asked,
            _running: site.cluster.rt().spawn(running),
        };
        register(site, server.status_port).await;
        server
    }
}

async fn register(site: &Site, status_port: u16) {
    let key = format!("/tidb/server/info/{status_port}");
    let info = format!(r#"{{"version":"8.5.6","ip":"127.0.0.1","status_port":{status_port}}}"#);
    let etcd = site.cluster.etcd();
    etcd.put(key.as_bytes(), info.as_bytes(), None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_until_servers_have_loaded_its_schemas() {
    let site = Site::start(options()).await;
    let (quick, slow) = (Server::start(&site, 1).await, Server::start(&site, 4).await);
    // Nobody answers there.
    register(&site, 1).await;
    let golden = Place::existing("../../tests/golden/tidb-1/db-lz4".into());
    site.restore(&golden, &restore_tables(None)).await;
    assert_eq!(quick.asked.load(Ordering::Relaxed), 2);
    assert_eq!(slow.asked.load(Ordering::Relaxed), 5);

    let stuck = Server::start(&site, usize::MAX).await;
    let limit = Duration::from_millis(100);
    let late = br_catalog::wait_until_loaded(&site.cluster, limit).await;
    let mut late: Vec<_> = late
        .unwrap()
        .into_iter()
        .map(|server| (server.address, server.error.is_some()))
        .collect();
    late.sort();
    let stuck = format!("127.0.0.1:{}", stuck.status_port);
    assert_eq!(late, [("127.0.0.1:1".to_owned(), true), (stuck, false)]);
    site.stop().await;
}
