//! The JSON of databases and tables, in TiDB's own field order, which its fast load relies on.

use br_types::DbId;
use serde_json::{Value as Json, json};

use crate::table::{Column, ColumnType, PrimaryKey, Table};

const FLAG_NOT_NULL: u32 = 1;
const FLAG_PRIMARY: u32 = 2;
const FLAG_MULTIPLE: u32 = 8;
const FLAG_BLOB: u32 = 16;
const FLAG_UNSIGNED: u32 = 32;
const FLAG_BINARY: u32 = 128;
const FLAG_NO_DEFAULT: u32 = 4096;

/// `SchemaState` of what is in use.
const PUBLIC: u32 = 5;

/// The JSON of a database.
pub fn db_json(id: DbId, name: &str) -> String {
    json!({
        "id": id.0,
        "db_name": name_json(name),
        "charset": "utf8mb4",
        "collate": "utf8mb4_bin",
        "Deprecated": {},
        "state": PUBLIC,
        "policy_ref_info": null,
    })
    .to_string()
}

fn name_json(name: &str) -> Json {
    json!({ "O": name, "L": name.to_lowercase() })
}

impl Table {
    /// The JSON of the table. `next_id`: the next automatic id, as a backup would note it.
    pub fn json(&self) -> String {
        let clustered_text = self.primary_key == PrimaryKey::CommonHandle;
        let columns: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| self.column(place, column))
            .collect();
        let mut indexes = Vec::new();
        if clustered_text {
            indexes.push(self.index_json(1, "PRIMARY", &[0], true));
        }
        for (place, index) in self.indexes.iter().enumerate() {
            indexes.push(self.index_json(
                self.index_id(place).0,
                &index.name,
                &index.columns,
                false,
            ));
        }
        json!({
            "id": self.id.0,
            "name": name_json(&self.name),
            "charset": "utf8mb4",
            "collate": "utf8mb4_bin",
            "cols": columns,
            "index_info": if indexes.is_empty() { Json::Null } else { json!(indexes) },
            "constraint_info": null,
            "fk_info": null,
            "state": PUBLIC,
            "pk_is_handle": self.primary_key == PrimaryKey::IntHandle,
            "is_common_handle": clustered_text,
            "common_handle_version": u32::from(clustered_text),
            "comment": "",
            "auto_inc_id": 0,
            "auto_id_cache": 0,
            "auto_rand_id": 0,
            "max_col_id": self.columns.len(),
            "max_idx_id": indexes.len(),
            "max_fk_id": 0,
            "max_cst_id": 0,
            "update_timestamp": 0,
            "ShardRowIDBits": 0,
            "max_shard_row_id_bits": 0,
            "auto_random_bits": 0,
            "auto_random_range_bits": 0,
            "pre_split_regions": 0,
            "partition": self.partition_json(),
            "compression": "",
            "view": null,
            "sequence": null,
            "Lock": null,
            "version": PUBLIC,
            "tiflash_replica": null,
            "is_columnar": false,
            "temp_table_type": 0,
            "cache_table_status": 0,
            "policy_ref_info": null,
            "stats_options": null,
            "exchange_partition_info": null,
            "ttl_info": null,
            "revision": 0,
        })
        .to_string()
    }

    fn column(&self, place: usize, column: &Column) -> Json {
        let mut flag = if column.not_null {
            FLAG_NOT_NULL | FLAG_NO_DEFAULT
        } else {
            0
        };
        if place == 0 && self.primary_key != PrimaryKey::None {
            flag |= FLAG_PRIMARY;
        }
        if self
            .indexes
            .iter()
            .any(|index| index.columns.first() == Some(&place))
        {
            flag |= FLAG_MULTIPLE;
        }
        let (tp, own_flag, flen, charset, collate) = match column.ty {
            ColumnType::BigInt => (8, 0, 20, "binary", "binary"),
            ColumnType::BigUint => (8, FLAG_UNSIGNED, 20, "binary", "binary"),
            ColumnType::Varchar(length) => (15, 0, i64::from(length), "utf8mb4", "utf8mb4_bin"),
            ColumnType::Blob => (
                251,
                FLAG_BLOB | FLAG_BINARY,
                i64::from(u32::MAX),
                "binary",
                "binary",
            ),
        };
        json!({
            "id": place + 1,
            "name": name_json(&column.name),
            "offset": place,
            "origin_default": null,
            "origin_default_bit": null,
            "default": null,
            "default_bit": null,
            "default_is_expr": false,
            "generated_expr_string": "",
            "generated_stored": false,
            "dependences": null,
            "type": {
                "Tp": tp,
                "Flag": flag | own_flag,
                "Flen": flen,
                "Decimal": 0,
                "Charset": charset,
                "Collate": collate,
                "Elems": null,
                "ElemsIsBinaryLit": null,
                "Array": false,
            },
            "state": PUBLIC,
            "comment": "",
            "hidden": false,
            "change_state_info": null,
            "version": 2,
        })
    }

    fn index_json(&self, id: i64, name: &str, columns: &[usize], primary: bool) -> Json {
        let columns: Vec<_> = columns
            .iter()
            .filter_map(|place| {
                let column = self.columns.get(*place)?;
                Some(json!({ "name": name_json(&column.name), "offset": place, "length": -1 }))
            })
            .collect();
        json!({
            "id": id,
            "idx_name": name_json(name),
            "tbl_name": name_json(""),
            "idx_cols": columns,
            "state": PUBLIC,
            "backfill_state": 0,
            "comment": "",
            "index_type": 1,
            "is_unique": primary,
            "is_primary": primary,
            "is_invisible": false,
            "is_global": false,
            "mv_index": false,
            "vector_index": null,
            "inverted_index": null,
            "full_text_index": null,
            "condition_expr_string": "",
        })
    }

    fn partition_json(&self) -> Json {
        let Some(key) = self.columns.first().filter(|_| !self.partitions.is_empty()) else {
            return Json::Null;
        };
        let definitions: Vec<_> = self
            .partitions
            .iter()
            .enumerate()
            .map(|(place, id)| {
                json!({
                    "id": id.0,
                    "name": name_json(&format!("p{place}")),
                    "less_than": null,
                    "in_values": null,
                    "policy_ref_info": null,
                })
            })
            .collect();
        json!({
            "type": 2,
            "expr": format!("`{}`", key.name),
            "columns": null,
            "enable": true,
            "is_empty_columns": false,
            "definitions": definitions,
            "adding_definitions": null,
            "dropping_definitions": null,
            "new_partition_ids": null,
            "states": null,
            "num": self.partitions.len(),
            "ddl_state": 0,
            "ddl_action": 0,
        })
    }
}
