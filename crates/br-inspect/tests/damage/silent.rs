//! Exports of damaged backups and logs: an error, or the right rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use br_format::backupmeta::Compatibility;
use br_format::crypter::Crypter;
use br_inspect::export::{
    ExportError, ExportOptions, Format, Layer, LogLayer, SORT_MEMORY_BYTES_DEFAULT, export,
};
use br_log::read::LogStorage;
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::{Backend, Storage};
use br_tidb::filter::TableFilter;

use crate::place::{Place, Random, number};

/// Damaged exports of each kind: enough to meet every kind of object.
const EXPORTS: usize = 40;

async fn open(path: &Path) -> Storage {
    let backend = Backend::Local {
        path: path.to_owned(),
    };
    Storage::open(&Rt::real(), &backend).await.unwrap()
}

async fn rows(backup: &Path, log: Option<&Path>) -> Result<BTreeMap<String, Vec<u8>>, ExportError> {
    let output = tempfile::tempdir().unwrap();
    let layers = [Layer {
        storage: open(backup).await,
        crypter: Crypter::plaintext(),
        compatibility: Compatibility::Strict,
    }];
    let mut no_files = |path: &str| Err(format!("no file {path}"));
    let rules = ["*.*", "!mysql.*", "!sys.*"];
    let options = ExportOptions {
        filter: TableFilter::parse(&rules, false, &mut no_files).unwrap(),
        at: None,
        log: match log {
            None => None,
            Some(log) => Some(LogLayer {
                log: LogStorage::new(open(log).await),
                crypter: Crypter::plaintext(),
                temp_dir: output.path().join("sort"),
                memory_bytes: SORT_MEMORY_BYTES_DEFAULT,
            }),
        },
        format: Format::Jsonl,
        output: output.path().join("rows"),
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let cancel = CancellationToken::new();
    let rt = Rt::real();
    let done = export(&rt, &layers, &options, &progress, &cancel);
    let done = Box::pin(done).await?;
    let tables = done.tables.into_iter().map(|table| {
        let content = std::fs::read(&table.path).unwrap();
        (format!("{}.{}", table.db, table.table), content)
    });
    Ok(tables.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_damaged_backup_is_right_or_fails() {
    let place = Place::copy_of("db-lz4", Crypter::plaintext());
    let right = rows(place.path(), None).await.unwrap();
    assert!(right.len() > 5);
    let mut random = Random(number("DAMAGE_SEED", 1));
    let objects = place.objects();
    for _ in 0..EXPORTS {
        let done = damage(&place, &objects, &mut random);
        if let Ok(found) = rows(place.path(), None).await {
            assert_eq!(found, right, "{:?} {}", done.objects, done.damage.name());
        }
        place.undo(done);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn an_export_of_a_damaged_log_is_right_or_fails() {
    let backup = Place::copy_of("full", Crypter::plaintext());
    let large = option_env!("GOLDEN_TIDB_1").unwrap_or_default();
    let log = Place::copy_of_folder(&Path::new(large).join("log"), Crypter::plaintext());
    let right = rows(backup.path(), Some(log.path())).await.unwrap();
    let mut random = Random(number("DAMAGE_SEED", 1));
    // Without an index object its events are nobody's; the marks say where the log ends.
    let objects: Vec<_> = log.objects();
    let objects: Vec<_> = objects
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .collect();
    for _ in 0..EXPORTS / 2 {
        let done = damage(&log, &objects, &mut random);
        if let Ok(found) = rows(backup.path(), Some(log.path())).await {
            assert_eq!(found, right, "{:?} {}", done.objects, done.damage.name());
        }
        log.undo(done);
    }
}

fn damage(place: &Place, objects: &[String], random: &mut Random) -> crate::place::Done {
    let object = &objects[random.below(objects.len())];
    let length = place.read(object).len();
    match random.below(4) {
        0 => place.remove(object),
        1 => place.cut(object, random),
        2 if objects.len() > 1 => {
            let at = objects.iter().position(|name| name == object).unwrap();
            place.swap(object, &objects[(at + 1) % objects.len()])
        }
        _ => place.flip(object, random.below(length), random.below(8)),
    }
}
