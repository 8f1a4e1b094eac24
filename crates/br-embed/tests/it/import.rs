//! Files that clients bring in themselves: streamed as pairs, or sent whole.

use std::path::Path;

use br_codec::{ApiVersion, key::data_key};
use br_embed::Cluster;
use br_engine::{RocksEngine, RocksOptions, SstCompression, SstOptions};
use br_proto::{
    import_sstpb::{
        IngestRequest, Pair, Range, RawWriteBatch, RawWriteRequest, SstMeta, UploadRequest,
        import_sst_client::ImportSstClient, raw_write_request, upload_request,
    },
    kvrpcpb,
};
use br_store::engine::Engine;
use br_types::EncodedKey;
use tonic::transport::Channel;

use crate::client::{Client, options};

/// A cluster with a client for the import service of the one region's leader.
struct Importer {
    cluster: Cluster,
    client: Client,
    imports: ImportSstClient<Channel>,
    context: kvrpcpb::Context,
}

impl Importer {
    async fn start() -> Importer {
        let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
        let mut client = Client::connect(&cluster).await;
        let (_, context) = client.route(b"k".to_vec()).await;
        let leader = cluster.region_of(&EncodedKey::from(&b"k"[..])).unwrap();
        let stores = cluster.store_infos();
        let store = stores
            .iter()
            .find(|store| store.id == leader.leader_store());
        let url = format!("http://{}", store.unwrap().record.address);
        let imports = ImportSstClient::connect(url).await.unwrap();
        Importer {
            cluster,
            client,
            imports,
            context,
        }
    }

    fn meta(&self, uuid: u8) -> SstMeta {
        SstMeta {
            uuid: vec![uuid; 16],
            range: Some(Range {
                start: b"k1".to_vec(),
                end: b"k3".to_vec(),
            }),
            cf_name: "default".into(),
            region_id: self.context.region_id,
            region_epoch: self.context.region_epoch,
            ..Default::default()
        }
    }

    async fn ingest(&mut self, meta: SstMeta) -> Option<br_proto::errorpb::Error> {
        let request = IngestRequest {
            context: Some(self.context.clone()),
            sst: Some(meta),
        };
        let answer = self.imports.ingest(request).await.unwrap();
        answer.into_inner().error
    }
}

#[tokio::test]
async fn raw_pairs_are_streamed_into_a_file_and_ingested() {
    let mut importer = Importer::start().await;
    let meta = importer.meta(1);
    let batch = |ttl, keys: &[&str]| {
        let pairs = keys.iter().map(|key| Pair {
            key: key.as_bytes().to_vec(),
            value: format!("value {key}").into_bytes(),
            ..Default::default()
        });
        RawWriteRequest {
            chunk: Some(raw_write_request::Chunk::Batch(RawWriteBatch {
                ttl,
                pairs: pairs.collect(),
                ..Default::default()
            })),
            ..Default::default()
        }
    };
    let begin = RawWriteRequest {
        chunk: Some(raw_write_request::Chunk::Meta(meta.clone())),
        ..Default::default()
    };
    let stream = |batches: Vec<RawWriteRequest>| {
        futures::stream::iter([vec![begin.clone()], batches].concat())
    };
    let refused = importer.imports.raw_write(stream(vec![batch(60, &["k1"])]));
    let refused = refused.await.unwrap().into_inner();
    assert!(refused.error.unwrap().message.contains("ttl"));

    let batches = vec![batch(0, &["k1", "k2"]), batch(0, &["k3"])];
    let written = importer.imports.raw_write(stream(batches)).await.unwrap();
    let metas = written.into_inner().metas;
    assert_eq!(metas, std::slice::from_ref(&meta));
    assert_eq!(importer.client.raw_get("k2").await, "");
    assert_eq!(importer.ingest(metas[0].clone()).await, None);
    for key in ["k1", "k2", "k3"] {
        assert_eq!(importer.client.raw_get(key).await, format!("value {key}"));
    }
    // Taken in once, it is there no more.
    let again = importer.ingest(meta).await.unwrap();
    assert!(again.stale_command.is_some());
    importer.cluster.stop().await;
}

#[tokio::test]
async fn a_file_is_uploaded_in_pieces_and_checked() {
    let mut importer = Importer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.sst");
    let keys = ["k1", "k2", "k3"];
    sst(&path, &keys);
    let bytes = std::fs::read(&path).unwrap();
    let meta = SstMeta {
        crc32: crc32fast::hash(&bytes),
        length: bytes.len() as u64,
        ..importer.meta(2)
    };
    let chunk = |chunk| UploadRequest { chunk: Some(chunk) };
    let pieces = |meta: &SstMeta, bytes: &[u8]| {
        let meta = chunk(upload_request::Chunk::Meta(meta.clone()));
        let data = bytes.chunks(100).map(<[u8]>::to_vec);
        let data = data.map(|data| chunk(upload_request::Chunk::Data(data)));
        futures::stream::iter([vec![meta], data.collect()].concat())
    };
    let half = pieces(&meta, &bytes[..bytes.len() / 2]);
    assert!(importer.imports.upload(half).await.is_err());
    let mut flipped = bytes.clone();
    flipped[10] ^= 1;
    let flipped = importer.imports.upload(pieces(&meta, &flipped)).await;
    assert!(flipped.unwrap_err().message().contains("crc32"));
    let headless = futures::stream::iter([chunk(upload_request::Chunk::Data(bytes.clone()))]);
    let headless = importer.imports.upload(headless).await;
    assert_eq!(headless.unwrap_err().code(), tonic::Code::InvalidArgument);

    importer
        .imports
        .upload(pieces(&meta, &bytes))
        .await
        .unwrap();
    assert_eq!(importer.ingest(meta).await, None);
    for key in keys {
        assert_eq!(importer.client.raw_get(key).await, format!("value {key}"));
    }
    importer.cluster.stop().await;
}

/// A file of raw pairs, as a client's own writer makes it.
fn sst(path: &Path, keys: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), RocksOptions::default()).unwrap();
    let options = SstOptions {
        compression: SstCompression::Zstd,
        level: 0,
    };
    let mut writer = engine.sst_writer(path, options).unwrap();
    for key in keys {
        let value = format!("value {key}");
        writer
            .put(data_key(key.as_bytes()).as_bytes(), value.as_bytes())
            .unwrap();
    }
    writer.finish().unwrap();
}
