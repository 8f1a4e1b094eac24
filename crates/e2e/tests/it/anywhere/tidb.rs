//! What TiDB sees of a restore, without being restarted: tables of many kinds, backed up and
//! restored by this project and by the official tool, each by each.

use std::process::Command;

use br_format::crypter::Crypter;
use br_log::restore::restore;
use br_log::task;
use br_types::TimeStamp;

use super::{
    Anywhere, log, named, own,
    sql::{Contents, Sql, assert_equal},
};
use crate::{
    log_backup::coordinate,
    points::{point_options, point_target_in},
    site::{back_up, back_up_tables, restore_from, restore_tables},
};

const SCHEMAS: &str = include_str!("tidb/schemas.sql");
const ROWS: &str = include_str!("tidb/rows.sql");
const CHANGES: &str = include_str!("tidb/changes.sql");

/// Who backs up or restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Ours,
    Official,
}

fn tools() -> Vec<Tool> {
    let official = named("E2E_OFFICIAL_BR").map(|_| Tool::Official);
    [Some(Tool::Ours), official].into_iter().flatten().collect()
}

/// The official command, with a log file of its own.
fn official(on: &Anywhere, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for attempt in 1.. {
        let mut command = Command::new(named("E2E_OFFICIAL_BR").unwrap());
        command.args(arguments).args(["--pd", &on.pd, "--log-file"]);
        let done = command.arg(&log).output().unwrap();
        if done.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        // TiKV 8.5 drops the answer to this question now and then, and the tool does not ask again.
        let was_dropped = said.contains("failed to check batch download support");
        assert!(was_dropped && attempt < 5, "{arguments:?}: {said}");
    }
}

fn rules() -> [String; 1] {
    [own("*.*")]
}

async fn tidb() -> Sql {
    let address = named("E2E_TIDB");
    let address = address.expect("make test-cluster PD=… TIDB=host:port");
    Sql::connect(&address).await.unwrap()
}

fn script(text: &str) -> String {
    text.replace("{db}", &own("db"))
}

async fn back_up_by(tool: Tool, on: &Anywhere, place: usize) {
    let [rule] = rules();
    match tool {
        Tool::Ours => {
            let options = back_up_tables(&[&rule], Crypter::plaintext());
            back_up(&on.cluster, &on.places[place], &options).await;
        }
        Tool::Official => {
            let storage = on.places[place].url();
            official(on, &["backup", "full", "-f", &rule, "-s", &storage]);
        }
    }
}

async fn restore_by(tool: Tool, on: &Anywhere, place: usize) {
    let [rule] = rules();
    match tool {
        Tool::Ours => {
            let options = restore_tables(Some(&[&rule]));
            restore_from(&on.cluster, &on.places[place], &options).await;
        }
        Tool::Official => {
            let storage = on.places[place].url();
            official(on, &["restore", "full", "-f", &rule, "-s", &storage]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(tidb),
    ignore = "runs with make test-cluster PD=host:port TIDB=host:port"
)]
async fn tables_of_all_kinds_come_back() {
    let mut on = Anywhere::start().await;
    let mut sql = tidb().await;
    sql.run_all(&script(SCHEMAS)).await;
    sql.run_all(&script(ROWS)).await;
    let expected = sql.contents(&own("")).await;
    let mut backups = Vec::new();
    for tool in tools() {
        let place = on.place("tables");
        back_up_by(tool, &on, place).await;
        backups.push((tool, place));
    }
    for (by, place) in backups {
        for tool in tools() {
            let what = format!("backed up by {by:?}, restored by {tool:?}");
            println!("{what}");
            sql.drop_databases(&own("")).await;
            restore_by(tool, &on, place).await;
            sql.sees(&own(""), expected.len()).await;
            assert_equal(&what, &sql.contents(&own("")).await, &expected);
            sql.check(&own("")).await;
            ids_go_on(&mut sql, &what).await;
            sql.check(&own("")).await;
        }
    }
    sql.drop_databases(&own("")).await;
    on.finish().await;
}

/// Inserts get ids behind those that there are, and references are still looked at.
async fn ids_go_on(sql: &mut Sql, what: &str) {
    // What AUTO_RANDOM puts in front is not counted.
    let counted = |column: &str| format!("MAX({column} & ((1 << 58) - 1))");
    for (table, id, columns, values) in [
        ("plain", "id", "a", "'new'"),
        ("cached", "id", "v", "1"),
        ("random", "id", "v", "1"),
        ("numbered", "id", "v", "9"),
    ] {
        let name = script(&format!("{{db}}_1.`{table}`"));
        let query = format!("SELECT {} FROM {name}", counted(id));
        let before = sql.number(&query).await;
        let insert = format!("INSERT INTO {name} ({columns}) VALUES ({values})");
        sql.run(&insert).await;
        let after = sql.number(&query).await;
        assert!(after > before, "{what}: {name} gave {after} after {before}");
    }
    sql.run(&script("INSERT INTO {db}_1.hidden VALUES (1, 'n')"))
        .await;
    sql.run(&script("INSERT INTO {db}_1.sharded VALUES (1, 1)"))
        .await;
    let orphan = script("INSERT INTO {db}_1.child VALUES (100000, 987654)");
    assert!(sql.refuses(&orphan).await, "{what}: a child has no parent");
}

/// A moment in a log, and what SQL gave of it.
struct Moment {
    at: TimeStamp,
    contents: Contents,
}

impl Moment {
    async fn now(on: &Anywhere, sql: &mut Sql) -> Moment {
        Moment {
            contents: sql.contents(&own("")).await,
            at: on.now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(tidb),
    ignore = "runs with make test-cluster PD=host:port TIDB=host:port"
)]
async fn points_between_statements_come_back() {
    let mut on = Anywhere::start().await;
    let mut sql = tidb().await;
    let (place, task) = (on.place("log"), own("task"));
    log::start(&on.cluster, &on.places[place], &task).await;
    // Stands aside: TiDB coordinates.
    let coordinator = coordinate(&on.cluster);
    sql.run_all(&script(SCHEMAS)).await;
    sql.run_all(&script(ROWS)).await;
    let mut backups = Vec::new();
    for tool in tools() {
        let full = on.place("full");
        back_up_by(tool, &on, full).await;
        backups.push(full);
    }
    let mut moments = Vec::new();
    sql.run_all(&script(CHANGES)).await;
    moments.push(Moment::now(&on, &mut sql).await);
    sql.run_all(&script(
        "INSERT INTO {db}_2.wide SELECT id + 100000, v FROM {db}_2.wide;\n\
         DROP TABLE {db}_1.random;\nUPDATE {db}_1.made SET v = v + 1",
    ))
    .await;
    moments.push(Moment::now(&on, &mut sql).await);
    log::reach(&on.cluster, &on.places[place], moments[1].at).await;
    task::stop(&on.cluster, &task).await.unwrap();
    drop(coordinator);

    for is_compacted in [false, true] {
        if is_compacted {
            assert!(log::compact_all(&on.cluster, &on.places[place]).await > 0);
        }
        for (tool, (full, moment)) in tools()
            .into_iter()
            .flat_map(|tool| backups.iter().zip(&moments).map(move |pair| (tool, pair)))
        {
            let what = format!("to {} by {tool:?}, compacted: {is_compacted}", moment.at);
            println!("{what}");
            sql.drop_databases(&own("")).await;
            restore_point_by(tool, &on, *full, place, moment.at).await;
            sql.sees(&own(""), moment.contents.len()).await;
            assert_equal(&what, &sql.contents(&own("")).await, &moment.contents);
            sql.check(&own("")).await;
        }
    }
    sql.drop_databases(&own("")).await;
    on.finish().await;
}

async fn restore_point_by(tool: Tool, on: &Anywhere, full: usize, log: usize, at: TimeStamp) {
    let [rule] = rules();
    let (full, log) = (&on.places[full], &on.places[log]);
    match tool {
        Tool::Ours => {
            let target = point_target_in(&on.cluster, full, log).await;
            let done = Box::pin(restore(&target, &point_options(&[&rule], at))).await;
            done.unwrap_or_else(|error| panic!("to {at}: {error}: {error:?}"));
        }
        Tool::Official => {
            let (log, full, at) = (log.url(), full.url(), at.0.to_string());
            let storages = ["-s", &log, "--full-backup-storage", &full];
            let point = ["restore", "point", "--restored-ts", &at, "-f", &rule];
            official(on, &[&point[..], &storages].concat());
        }
    }
}
