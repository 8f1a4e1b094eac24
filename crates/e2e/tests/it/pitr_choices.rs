//! What a restore to a point in time takes, and what it refuses.

use std::time::Duration;

use br_catalog::{NewTable, SchemaChange};
use br_format::crypter::Crypter;
use br_log::{
    read::LogStorage,
    restore::{PointError, restore},
};
use br_storage::Storage;
use br_types::{Classify, Kind, TimeStamp};
use br_workload::{Kinds, Workload, check};

use crate::{
    log_backup::{coordinate, start_log},
    points::{point_options, point_target},
    site::{Place, Site, back_up_tables, options},
};

/// Waits until the log claims all up to now; gives that time.
async fn catch_up(site: &Site, log: &Place) -> TimeStamp {
    let storage = Storage::open(site.cluster.rt(), &log.backend).await;
    let storage = LogStorage::new(storage.unwrap());
    let now = site.now().await;
    for _ in 0..600 {
        if storage.bounds().await.unwrap().max_ts >= now {
            return now;
        }
        site.cluster.rt().sleep(Duration::from_millis(100)).await;
    }
    panic!("the checkpoint does not reach {now}");
}

/// A table that the backup left out, and that the log knows of because its name has changed: all
/// that was written to it before is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_only_half_there_is_refused() {
    let site = Site::start(options()).await;
    let kinds = Kinds::Wide { tables: 2 };
    let workload = Workload::create(&site.cluster, kinds, 7, "shop", None);
    let workload = workload.await.unwrap();
    let log = tempfile::tempdir().unwrap();
    start_log(&site, log.path(), "half").await;
    let _coordinator = coordinate(&site.cluster);
    let full = Place::temporary();
    site.back_up(&full, &back_up_tables(&["shop.t1"], Crypter::plaintext()))
        .await;

    let model = workload.model();
    let (_, old) = model
        .tables()
        .find(|(_, table)| table.name == "t0")
        .unwrap();
    let new = br_workload::Table {
        name: "renamed".to_owned(),
        ..old.clone()
    };
    let renamed = NewTable {
        db: new.db,
        id: new.id,
        name: new.name.clone(),
        json: new.json(),
        counters: Vec::new(),
        replaces: Some((old.db, old.id)),
    };
    let change = SchemaChange {
        tables: vec![renamed],
        ..SchemaChange::default()
    };
    br_catalog::apply(&site.cluster, &change).await.unwrap();
    let log = Place::existing(log.path().to_owned());
    let at = catch_up(&site, &log).await;

    let fresh = Site::start(options()).await;
    let target = point_target(&fresh, &full, &log).await;
    let all = Box::pin(restore(&target, &point_options(&["shop.*"], at))).await;
    let error = all.unwrap_err();
    assert!(
        matches!(&error, PointError::NotInBackup { table } if table == "shop.renamed"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Invalid);
    let some = Box::pin(restore(&target, &point_options(&["shop.t1"], at))).await;
    some.unwrap();
    let now = fresh.now().await;
    let compared = check(&fresh.cluster, "shop", &model, at, now).await;
    // All but the table that was left out is there.
    let missing = compared.unwrap_err().to_string();
    assert!(
        missing.contains("shop.t0: the table is missing"),
        "{missing}"
    );
    fresh.stop().await;
    site.stop().await;
}
