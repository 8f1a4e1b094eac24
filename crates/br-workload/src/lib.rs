//! Workloads with a model that knows every table's content at every timestamp.
//!
//! Works on any cluster: it writes rows and index entries as TiDB would, through the transactional
//! client, and knows from the acknowledged commit timestamps what a reader must see.

mod bank;
pub mod bulk;
mod check;
mod ddl;
mod ddl_job;
pub mod history;
mod model;
mod row;
mod run;
pub mod schema_generator;
mod table;
mod table_json;

pub use bank::FIRST_BALANCE;
pub use check::{Checked, check};
pub use ddl::Statement;
pub use model::{Entries, Model, RowChange, SchemaChange};
pub use run::{Kinds, Workload, WorkloadError};
pub use table::{Column, ColumnType, Handle, Index, PrimaryKey, Row, Table, Value};
pub use table_json::db_json;
