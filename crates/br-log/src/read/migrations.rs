use std::collections::{HashMap, HashSet};

use br_format::log::file::LogFile;
use br_format::log::migration::{Migration, MigrationName, Migrations};
use br_format::log::names;

use super::{LogReadError, LogStorage};
use br_storage::read_again;

impl LogStorage {
    /// All migrations.
    ///
    /// # Errors
    /// The storage did not help, or one of them is damaged or newer than this tool.
    pub async fn migrations(&self) -> Result<Migrations, LogReadError> {
        let mut base = None;
        let mut layers = Vec::new();
        for object in self.names_in(names::MIGRATION_FOLDER).await? {
            let Some(name) = MigrationName::parse(&object) else {
                return Err(LogReadError::UnknownMigration { object });
            };
            if name == MigrationName::BaseTemporary {
                continue;
            }
            let migration = read_again(async || {
                let bytes = self.storage().read(&object).await?;
                Ok::<_, LogReadError>(Migration::decode(&object, &bytes)?)
            })
            .await?;
            match name {
                MigrationName::Base | MigrationName::BaseTemporary => base = Some(migration),
                MigrationName::Layer { number, .. } => layers.push((number, migration)),
            }
        }
        let safe_point = self.truncate_safe_point().await?;
        Ok(Migrations::new(base, layers, safe_point))
    }
}

/// What migrations took out of the log.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    metas: HashMap<String, OfMeta>,
}

#[derive(Clone, Debug, Default)]
struct OfMeta {
    all: bool,
    objects: HashSet<String>,
    /// Offsets of files, by object.
    files: HashMap<String, HashSet<u64>>,
}

impl Removed {
    /// What this migration takes out; give it all of them as one, see [`Migrations::merged`].
    pub fn new(migration: &Migration) -> Removed {
        let mut metas: HashMap<String, OfMeta> = HashMap::new();
        for edit in &migration.edits {
            let of_meta = metas.entry(edit.path.clone()).or_default();
            of_meta.all |= edit.destruct_self;
            of_meta.objects.extend(edit.delete_objects.iter().cloned());
            for deleted in &edit.delete_spans {
                let files = of_meta.files.entry(deleted.path.clone()).or_default();
                files.extend(deleted.spans.iter().map(|span| span.offset));
            }
        }
        Removed { metas }
    }

    /// Whether all of a metadata object was taken out.
    pub fn is_meta_removed(&self, meta: &str) -> bool {
        self.metas.get(meta).is_some_and(|of_meta| of_meta.all)
    }

    /// Whether an object with events was taken out, as far as this metadata names it.
    pub fn is_object_removed(&self, meta: &str, object: &str) -> bool {
        self.metas
            .get(meta)
            .is_some_and(|of_meta| of_meta.all || of_meta.objects.contains(object))
    }

    /// Whether a file was taken out.
    pub fn is_file_removed(&self, meta: &str, object: &str, file: &LogFile) -> bool {
        let Some(of_meta) = self.metas.get(meta) else {
            return false;
        };
        let of_object = of_meta.files.get(object);
        self.is_object_removed(meta, object)
            || of_object.is_some_and(|files| files.contains(&file.span.offset))
    }
}
