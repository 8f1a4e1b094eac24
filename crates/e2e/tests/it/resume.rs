//! What is interrupted goes on, or says why it cannot.

use std::{sync::Arc, time::Duration};

use br_cluster::{GcScope, KeyPrefix};
use br_format::{crypter::Crypter, names, resume::ResumeMeta};
use br_rt::{CancellationToken, Silent};
use br_snapshot::backup::{self, BackupContext, BackupError, BackupOptions};
use br_storage::Storage;
use br_types::{Classify, Code, Kind};

use futures::TryStreamExt as _;

use crate::site::{Place, Site, back_up_tables, options, restore_tables};

async fn context(site: &Site, place: &Place, cancel: &CancellationToken) -> BackupContext {
    let rt = site.cluster.rt();
    BackupContext {
        cluster: site.cluster.with_cancel(cancel),
        key_prefix: KeyPrefix::default(),
        storage: Storage::create_base(rt, &place.backend).await.unwrap(),
        backend: place.backend.clone(),
        progress: Arc::new(Silent),
    }
}

/// Begins a backup and cancels it once it can be resumed.
async fn interrupt(site: &Site, place: &Place, options: &BackupOptions) -> ResumeMeta {
    let cancel = CancellationToken::new();
    let context = context(site, place, &cancel).await;
    let slow = BackupOptions {
        rate_limit_bytes_per_s: 256 << 10,
        ..options.clone()
    };
    let watch = async {
        while !context.storage.exists(names::RESUME_META).await.unwrap() {
            site.cluster.rt().sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (done, ()) = tokio::join!(Box::pin(backup::run(&context, &slow)), watch);
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error:?}");
    let meta = context.storage.read(names::RESUME_META).await.unwrap();
    ResumeMeta::decode(names::RESUME_META, &meta).unwrap()
}

/// A cluster with something to back up.
async fn loaded() -> Site {
    let site = Site::start(options()).await;
    let golden = Place::existing("../../tests/golden/tidb-1/full".into());
    site.restore(&golden, &restore_tables(None)).await;
    site
}

/// It was completed by a command that died before it removed its progress.
#[tokio::test(flavor = "multi_thread")]
async fn a_complete_backup_is_not_given_up() {
    let site = loaded().await;
    let place = Place::temporary();
    let options = back_up_tables(&["*.*"], Crypter::plaintext());
    interrupt(&site, &place, &options).await;
    let context = context(&site, &place, &CancellationToken::new()).await;
    let storage = &context.storage;
    let progress = storage.read(names::RESUME_META).await.unwrap();
    site.back_up(&place, &options).await;
    storage.write(names::RESUME_META, progress).await.unwrap();
    let list = async || -> Vec<_> {
        let listed: Vec<_> = storage.list("").try_collect().await.unwrap();
        listed.into_iter().map(|entry| entry.name).collect()
    };
    let before = list().await;
    let error = backup::abort(&context).await.unwrap_err();
    assert!(error.to_string().contains("is complete"), "{error}");
    assert_eq!(list().await, before);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_shows_the_time_at_which_it_began() {
    let site = loaded().await;
    let place = Place::temporary();
    let options = back_up_tables(&["*.*"], Crypter::plaintext());
    let meta = interrupt(&site, &place, &options).await;
    let again = interrupt(&site, &place, &options).await;
    assert_eq!(again, meta);
    let done = site.back_up(&place, &options).await;
    assert_eq!(done.backup_ts, Some(meta.backup_ts));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_that_has_passed_an_interrupted_backup_is_told() {
    let site = loaded().await;
    let place = Place::temporary();
    let options = back_up_tables(&["*.*"], Crypter::plaintext());
    let meta = interrupt(&site, &place, &options).await;

    // As if nobody had come back in time.
    let pd = site.cluster.pd();
    pd.unprotect_from_gc(GcScope::Cluster, &meta.gc_service_id)
        .await
        .unwrap();
    let now = site.now().await;
    let gc = &site.embedded.pd().gc;
    gc.advance_txn_safe_point(now, site.embedded.pd().clock())
        .unwrap();
    gc.advance_gc_safe_point(now).unwrap();

    let context = context(&site, &place, &CancellationToken::new()).await;
    let refused = Box::pin(backup::run(&context, &options)).await.unwrap_err();
    assert!(
        matches!(refused, BackupError::ResumeTooLate { .. }),
        "{refused:?}"
    );
    assert_eq!(refused.code(), Code::BACKUP_GC_SAFEPOINT_EXCEEDED);
    assert!(refused.next_step().unwrap().contains("br abort backup"));
    assert!(!context.storage.exists(names::BACKUPMETA).await.unwrap());

    let aborted = backup::abort(&context).await.unwrap();
    assert_eq!(aborted.backup_ts, Some(meta.backup_ts));
    let done = site.back_up(&place, &options).await;
    assert!(done.backup_ts > Some(meta.backup_ts));
    assert_eq!(done.resumed_pieces, 0);
    site.stop().await;
}
