//! A TiDB of the named cluster: statements, and the contents of databases.

use std::{collections::BTreeMap, time::Duration};

use br_rt::Rt;
use mysql_async::{Conn, Opts, OptsBuilder, Row, prelude::Queryable};
use regex::Regex;

/// Of each table, view and sequence: its statement and its sorted rows.
pub(super) type Contents = BTreeMap<String, (String, Vec<String>)>;

/// Looks at the tables, ten each second; longer than a server goes without looking for new schemas.
const LOOKS_MAX: usize = 900;

/// One session.
pub(super) struct Sql {
    conn: Conn,
}

impl Sql {
    /// `[user[:password]@]host:port`; `root` without a user.
    pub(super) async fn connect(address: &str) -> Result<Sql, mysql_async::Error> {
        let user = if address.contains('@') { "" } else { "root@" };
        let opts = Opts::from_url(&format!("mysql://{user}{address}"))?;
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false);
        let conn = Conn::new(opts).await?;
        let mut sql = Sql { conn };
        sql.run("SET time_zone = '+00:00'").await;
        Ok(sql)
    }

    pub(super) async fn run(&mut self, statement: &str) {
        let done = self.conn.query_drop(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub(super) async fn run_all(&mut self, script: &str) {
        for statement in script.split(";\n") {
            if !statement.trim().is_empty() {
                self.run(statement).await;
            }
        }
    }

    /// Whether TiDB refuses it.
    pub(super) async fn refuses(&mut self, statement: &str) -> bool {
        self.conn.query_drop(statement).await.is_err()
    }

    /// Values as SQL writes them.
    pub(super) async fn rows(&mut self, query: &str) -> Vec<Vec<String>> {
        let rows: Result<Vec<Row>, _> = self.conn.query(query).await;
        let rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
        let texts = |row: Row| {
            row.unwrap()
                .iter()
                .map(|value| value.as_sql(true))
                .collect()
        };
        rows.into_iter().map(texts).collect()
    }

    pub(super) async fn number(&mut self, query: &str) -> u64 {
        let rows = self.rows(query).await;
        rows[0][0].trim_matches('\'').parse().unwrap()
    }

    /// The names of the tables of databases that begin so, and whether they are views or the like.
    async fn tables(&mut self, prefix: &str) -> Vec<(String, String, String)> {
        let query = format!(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables \
             WHERE LEFT(table_schema, {}) = '{prefix}'",
            prefix.len()
        );
        let rows = self.rows(&query).await;
        let plain = |text: &String| text.trim_matches('\'').to_owned();
        rows.iter()
            .map(|row| (plain(&row[0]), plain(&row[1]), plain(&row[2])))
            .collect()
    }

    /// Waits until TiDB sees so many tables. It hears of new schemas at once and then has to load
    /// them, which a restore does not wait for.
    pub(super) async fn sees(&mut self, prefix: &str, tables: usize) {
        let rt = Rt::real();
        let mut seen = 0;
        for _ in 0..LOOKS_MAX {
            seen = self.tables(prefix).await.len();
            if seen == tables {
                return;
            }
            rt.sleep(Duration::from_millis(100)).await;
        }
        panic!("TiDB sees {seen} tables, not {tables}");
    }

    pub(super) async fn contents(&mut self, prefix: &str) -> Contents {
        // How far ids were given out is no part of the contents; a restore turns TTL off, as the
        // official one does.
        let moving = Regex::new(
            r" AUTO_INCREMENT=\d+|/\*T!\[auto_rand_base\][^*]*\*/ ?|TTL_ENABLE='+(ON|OFF)'+",
        );
        let moving = moving.unwrap();
        let mut contents = Contents::new();
        for (db, table, kind) in self.tables(prefix).await {
            let name = format!("`{db}`.`{table}`");
            let shown = self.rows(&format!("SHOW CREATE TABLE {name}")).await;
            let statement = moving.replace_all(&shown[0][1], "").into_owned();
            let mut rows = Vec::new();
            if kind != "SEQUENCE" {
                let found = self.rows(&format!("SELECT * FROM {name}")).await;
                rows.extend(found.into_iter().map(|row| row.join(", ")));
                rows.sort();
            }
            contents.insert(name, (statement, rows));
        }
        contents
    }

    /// Lets TiDB compare rows and indexes of each table.
    pub(super) async fn check(&mut self, prefix: &str) {
        for (db, table, kind) in self.tables(prefix).await {
            if kind == "BASE TABLE" {
                self.run(&format!("ADMIN CHECK TABLE `{db}`.`{table}`"))
                    .await;
            }
        }
    }

    pub(super) async fn drop_databases(&mut self, prefix: &str) {
        self.run("SET foreign_key_checks = 0").await;
        let query = format!(
            "SELECT schema_name FROM information_schema.schemata \
             WHERE LEFT(schema_name, {}) = '{prefix}'",
            prefix.len()
        );
        for row in self.rows(&query).await {
            let db = row[0].trim_matches('\'');
            self.run(&format!("DROP DATABASE `{db}`")).await;
        }
        self.run("SET foreign_key_checks = 1").await;
    }
}

/// Says which tables differ, and the first row of each that does.
pub(super) fn assert_equal(what: &str, found: &Contents, expected: &Contents) {
    let mut differences = Vec::new();
    for name in expected.keys().chain(found.keys()) {
        match (found.get(name), expected.get(name)) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) if one.0 != other.0 => {
                differences.push(format!("{name} is {} and was {}", one.0, other.0));
            }
            (Some(one), Some(other)) => {
                let differing = one.1.iter().find(|row| !other.1.contains(row));
                let missing = other.1.iter().find(|row| !one.1.contains(row));
                differences.push(format!("{name}: now {differing:?}, before {missing:?}"));
            }
            (found, _) => {
                let which = if found.is_some() { "new" } else { "missing" };
                differences.push(format!("{name} is {which}"));
            }
        }
    }
    assert!(differences.is_empty(), "{what}: {differences:#?}");
}
