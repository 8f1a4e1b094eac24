//! Edits of TableInfo, DBInfo and PolicyInfo on their own text.

use br_types::{DbId, IndexId, TableId, TimeStamp};

use super::{
    SchemaError, SchemaState, TableInfo, check_fast_load_shape,
    object::{Object, list_text, parse_list, push_string},
};

const PARTITION: &str = "PartitionInfo";
/// The lists of partition definitions within PartitionInfo.
const DEFINITION_LISTS: [&str; 3] = ["definitions", "adding_definitions", "dropping_definitions"];

/// Edits of a TableInfo. Fields that no edit names keep their text.
pub struct TablePatch(Object);

impl TablePatch {
    /// Begins with the text of a TableInfo.
    ///
    /// # Errors
    /// It is not an object of JSON.
    pub fn new(json: &str) -> Result<Self, SchemaError> {
        Object::parse("TableInfo", json).map(Self)
    }

    /// Gives the table and its partitions new ids.
    ///
    /// # Errors
    /// `new_id` knows one of them not, or a field is missing.
    pub fn set_ids(
        &mut self,
        mut new_id: impl FnMut(TableId) -> Option<TableId>,
    ) -> Result<(), SchemaError> {
        let id = renumbered(&self.0, "TableInfo", &mut new_id)?;
        self.0.set("id", id)?;
        self.edit_partitions(|definition| {
            let id = renumbered(definition, PARTITION, &mut new_id)?;
            definition.set("id", id)
        })
    }

    /// Gives it a new name.
    ///
    /// # Errors
    /// There is no name to replace.
    pub fn set_name(&mut self, name: &str) -> Result<(), SchemaError> {
        self.0.set("name", name_text(name))
    }

    /// Sets its state.
    ///
    /// # Errors
    /// There is no state to replace.
    pub fn set_state(&mut self, state: SchemaState) -> Result<(), SchemaError> {
        self.0.set("state", state.0.to_string())
    }

    /// Removes the indexes that are not public.
    ///
    /// # Errors
    /// The list of indexes is damaged.
    pub fn keep_public_indexes(&mut self) -> Result<(), SchemaError> {
        let Some(text) = self.0.get_value("index_info") else {
            return Ok(());
        };
        let mut kept = Vec::new();
        let mut is_changed = false;
        for index in parse_list("IndexInfo", text)? {
            let state = Object::parse("IndexInfo", index.get())?;
            if state.get("state") == Some(&SchemaState::PUBLIC.0.to_string()) {
                kept.push(index);
            } else {
                is_changed = true;
            }
        }
        if is_changed {
            self.0.set(
                "index_info",
                list_text(kept.iter().map(|index| index.get())),
            )?;
        }
        Ok(())
    }

    /// Removes indexes, and the hidden columns behind those that are over expressions.
    ///
    /// # Errors
    /// The list of indexes or columns is damaged.
    pub fn remove_indexes(
        &mut self,
        is_removed: impl Fn(IndexId) -> bool,
    ) -> Result<(), SchemaError> {
        let table = TableInfo::parse(self.0.to_text().as_bytes())?;
        let (mut unused, mut still_used) = (Vec::new(), Vec::new());
        for index in &table.indexes {
            let columns = index.columns.iter().map(|column| column.offset);
            match is_removed(IndexId(index.id)) {
                true => unused.extend(columns),
                false => still_used.extend(columns),
            }
        }
        unused.retain(|offset| !still_used.contains(offset));
        let mut columns = table.columns.len();
        // Only the last ones: the places of all others are written in many fields.
        while let Some(last) = columns.checked_sub(1)
            && unused.contains(&last)
            && table.columns.get(last).is_some_and(|column| column.hidden)
        {
            columns = last;
        }
        if let Some(text) = self.0.get_value("index_info") {
            let kept = parse_list("IndexInfo", text)?;
            let kept = kept.iter().zip(&table.indexes);
            let kept = kept.filter(|(_, index)| !is_removed(IndexId(index.id)));
            self.0
                .set("index_info", list_text(kept.map(|(text, _)| text.get())))?;
        }
        if columns < table.columns.len()
            && let Some(text) = self.0.get_value("cols")
        {
            let kept = parse_list("ColumnInfo", text)?;
            let kept = kept.iter().take(columns).map(|column| column.get());
            self.0.set("cols", list_text(kept))?;
        }
        Ok(())
    }

    /// Sets the next AUTO_INCREMENT, row id or sequence value.
    ///
    /// # Errors
    /// There is none to replace.
    pub fn set_auto_inc_id(&mut self, next: i64) -> Result<(), SchemaError> {
        self.0.set("auto_inc_id", next.to_string())
    }

    /// Sets the next row id, of tables where AUTO_INCREMENT is apart from it.
    ///
    /// # Errors
    /// `auto_inc_id`, which it follows, is missing.
    pub fn set_auto_inc_id_extra(&mut self, next: i64) -> Result<(), SchemaError> {
        self.0
            .set_after("auto_inc_id_extra", "auto_inc_id", next.to_string())
    }

    /// Sets the next AUTO_RANDOM.
    ///
    /// # Errors
    /// There is none to replace.
    pub fn set_auto_rand_id(&mut self, next: i64) -> Result<(), SchemaError> {
        self.0.set("auto_rand_id", next.to_string())
    }

    /// Sets when it was changed last.
    ///
    /// # Errors
    /// Never for text of TiDB; very old versions have no such field, which is no error.
    pub fn set_update_ts(&mut self, ts: TimeStamp) -> Result<(), SchemaError> {
        self.0.set_if_there("update_timestamp", ts.to_string())
    }

    /// Forgets that its counters are under another database.
    pub fn clear_counter_db(&mut self) {
        self.0.remove("old_schema_id");
    }

    /// Makes a cached table an ordinary one.
    ///
    /// # Errors
    /// Never for text of TiDB.
    pub fn disable_cache(&mut self) -> Result<(), SchemaError> {
        self.0.set_if_there("cache_table_status", "0".to_owned())
    }

    /// Stops the removal of expired rows; the rule stays.
    ///
    /// # Errors
    /// The rule is damaged.
    pub fn disable_ttl(&mut self) -> Result<(), SchemaError> {
        let Some(text) = self.0.get_value("ttl_info") else {
            return Ok(());
        };
        let mut ttl = Object::parse("TTLInfo", text)?;
        ttl.set("enable", "false".to_owned())?;
        self.0.set("ttl_info", ttl.to_text())
    }

    /// Removes its TiFlash replicas.
    ///
    /// # Errors
    /// Never for text of TiDB.
    pub fn clear_tiflash(&mut self) -> Result<(), SchemaError> {
        self.0.set_if_there("tiflash_replica", "null".to_owned())
    }

    /// Releases `LOCK TABLES`.
    ///
    /// # Errors
    /// Never for text of TiDB.
    pub fn clear_lock(&mut self) -> Result<(), SchemaError> {
        self.0.set_if_there("Lock", "null".to_owned())
    }

    /// Removes the placement policies of the table and its partitions.
    ///
    /// # Errors
    /// The partitions are damaged.
    pub fn clear_placement(&mut self) -> Result<(), SchemaError> {
        self.0.set_if_there("policy_ref_info", "null".to_owned())?;
        self.edit_partitions(|definition| {
            definition.set_if_there("policy_ref_info", "null".to_owned())
        })
    }

    /// Points the placement policies of the table and its partitions, which are matched by name,
    /// to the ids that they have in another cluster.
    ///
    /// # Errors
    /// A reference is damaged, or `id_of` (which gets the name in lower case) knows it not.
    pub fn set_policy_ids(
        &mut self,
        mut id_of: impl FnMut(&str) -> Option<i64>,
    ) -> Result<(), SchemaError> {
        set_policy_id(&mut self.0, &mut id_of)?;
        self.edit_partitions(|definition| set_policy_id(definition, &mut id_of))
    }

    /// The text, without the check of [`Self::finish`]; for backups, which no TiDB loads.
    pub fn into_text(self) -> String {
        self.0.to_text()
    }

    /// The text, fit for a meta key.
    ///
    /// # Errors
    /// TiDB would not load it.
    pub fn finish(self) -> Result<String, SchemaError> {
        let text = self.0.to_text();
        let table = TableInfo::parse(text.as_bytes())?;
        check_fast_load_shape(&text, &table)?;
        Ok(text)
    }

    fn edit_partitions(
        &mut self,
        mut edit: impl FnMut(&mut Object) -> Result<(), SchemaError>,
    ) -> Result<(), SchemaError> {
        let Some(text) = self.0.get_value("partition") else {
            return Ok(());
        };
        let mut partition = Object::parse(PARTITION, text)?;
        for field in DEFINITION_LISTS {
            let Some(text) = partition.get_value(field) else {
                continue;
            };
            let mut definitions = Vec::new();
            for definition in parse_list(PARTITION, text)? {
                let mut definition = Object::parse(PARTITION, definition.get())?;
                edit(&mut definition)?;
                definitions.push(definition.to_text());
            }
            partition.set(field, list_text(&definitions))?;
        }
        self.0.set("partition", partition.to_text())
    }
}

/// Edits of a DBInfo.
pub struct DbPatch(Object);

impl DbPatch {
    /// Begins with the text of a DBInfo.
    ///
    /// # Errors
    /// It is not an object of JSON.
    pub fn new(json: &str) -> Result<Self, SchemaError> {
        Object::parse("DBInfo", json).map(Self)
    }

    /// Gives it a new id.
    ///
    /// # Errors
    /// There is none to replace.
    pub fn set_id(&mut self, id: DbId) -> Result<(), SchemaError> {
        self.0.set("id", id.to_string())
    }

    /// Gives it a new name.
    ///
    /// # Errors
    /// There is none to replace.
    pub fn set_name(&mut self, name: &str) -> Result<(), SchemaError> {
        self.0.set("db_name", name_text(name))
    }

    /// Sets its state.
    ///
    /// # Errors
    /// There is none to replace.
    pub fn set_state(&mut self, state: SchemaState) -> Result<(), SchemaError> {
        self.0.set("state", state.0.to_string())
    }

    /// Removes its placement policy.
    ///
    /// # Errors
    /// Never for text of TiDB.
    pub fn clear_placement(&mut self) -> Result<(), SchemaError> {
        self.0.set_if_there("policy_ref_info", "null".to_owned())
    }

    /// Points its placement policy to the id that it has in another cluster.
    ///
    /// # Errors
    /// The reference is damaged, or `id_of` knows it not.
    pub fn set_policy_id(
        &mut self,
        mut id_of: impl FnMut(&str) -> Option<i64>,
    ) -> Result<(), SchemaError> {
        set_policy_id(&mut self.0, &mut id_of)
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0.to_text()
    }
}

/// A PolicyInfo with another id.
///
/// # Errors
/// It is not a PolicyInfo.
pub fn policy_with_id(json: &str, id: i64) -> Result<String, SchemaError> {
    let mut policy = Object::parse("PolicyInfo", json)?;
    policy.set("id", id.to_string())?;
    Ok(policy.to_text())
}

fn renumbered(
    object: &Object,
    what: &'static str,
    new_id: &mut impl FnMut(TableId) -> Option<TableId>,
) -> Result<String, SchemaError> {
    let text = object
        .get("id")
        .ok_or(SchemaError::MissingField { what, field: "id" })?;
    let id = serde_json::from_str(text).map_err(|source| SchemaError::Json { what, source })?;
    let new = new_id(TableId(id)).ok_or(SchemaError::NoNewId { id })?;
    Ok(new.to_string())
}

fn set_policy_id(
    object: &mut Object,
    id_of: &mut impl FnMut(&str) -> Option<i64>,
) -> Result<(), SchemaError> {
    let what = "PolicyRefInfo";
    let Some(text) = object.get_value("policy_ref_info") else {
        return Ok(());
    };
    let old: super::PolicyRef =
        serde_json::from_str(text).map_err(|source| SchemaError::Json { what, source })?;
    let mut reference = Object::parse(what, text)?;
    let id = id_of(&old.name.lower).ok_or(SchemaError::NoNewId { id: old.id })?;
    reference.set("id", id.to_string())?;
    object.set("policy_ref_info", reference.to_text())
}

fn name_text(name: &str) -> String {
    let mut out = String::from("{\"O\":");
    push_string(&mut out, name);
    out.push_str(",\"L\":");
    push_string(&mut out, &name.to_lowercase());
    out.push('}');
    out
}
