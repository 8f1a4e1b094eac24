use std::marker::PhantomData;

use br_proto::backup::{File, Schema};
use bytes::Bytes;
use prost::Message;
use serde_json::value::RawValue;

use super::{DataFile, INDEX_DEPTH_MAX, MetaError, ObjectRef};
use crate::names::BACKUPMETA;
use crate::schema::SchemaEntry;
use crate::wire::{Field, Fields};

/// Where items stand in the message that holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `backup.BackupMeta`, whose DDL jobs are one JSON array.
    Root,
    /// `backup.MetaFile`.
    MetaFile,
}

/// A piece of the index, in memory: a meta file, or what stands in `backupmeta` itself.
///
/// Items are decoded one at a time as they are asked for, so that it takes little more memory
/// than its bytes.
#[derive(Clone, Debug)]
pub struct MetaNode {
    object: String,
    parts: Vec<(Shape, Bytes)>,
    children: Vec<ObjectRef>,
}

impl MetaNode {
    /// `root`: encoded fields of `BackupMeta`; `index`: what stands beside it in the second layout.
    pub(super) fn of_root(root: Bytes, index: Bytes, children: Vec<ObjectRef>) -> MetaNode {
        let parts = vec![(Shape::Root, root), (Shape::MetaFile, index)];
        MetaNode {
            object: BACKUPMETA.to_owned(),
            parts,
            children,
        }
    }

    pub(super) fn of_metafile(
        object: String,
        bytes: Bytes,
        depth: usize,
    ) -> Result<MetaNode, MetaError> {
        let mut node = MetaNode {
            object,
            parts: vec![(Shape::MetaFile, bytes)],
            children: Vec::new(),
        };
        let children: Result<Vec<ObjectRef>, MetaError> = node
            .items::<File>(None, Some(1))
            .map(|file| ObjectRef::from_proto(&node.object, file?, depth + 1))
            .collect();
        node.children = children?;
        if depth >= INDEX_DEPTH_MAX && !node.children.is_empty() {
            return Err(MetaError::TooDeep {
                object: node.object,
                max: INDEX_DEPTH_MAX,
            });
        }
        Ok(node)
    }

    /// The object that it was read from.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Meta files further down.
    pub fn children(&self) -> &[ObjectRef] {
        &self.children
    }

    /// Its data files. Files of one stem follow each other.
    pub fn data_files(&self) -> impl Iterator<Item = Result<DataFile, MetaError>> + '_ {
        self.items::<File>(Some(4), Some(2))
            .map(|file| DataFile::from_proto(&self.object, file?))
    }

    /// Its databases and tables.
    pub fn schemas(&self) -> impl Iterator<Item = Result<SchemaEntry, MetaError>> + '_ {
        self.items::<Schema>(Some(7), Some(3))
            .map(|schema| SchemaEntry::from_proto(&self.object, schema?))
    }

    /// Its DDL jobs, each as TiDB's JSON.
    ///
    /// # Errors
    /// [`MetaError::Malformed`].
    pub fn ddl_jobs(&self) -> Result<Vec<Vec<u8>>, MetaError> {
        let mut jobs = Vec::new();
        for (shape, bytes) in &self.parts {
            let number = match shape {
                Shape::Root => 10,
                Shape::MetaFile => 5,
            };
            for field in Fields::new(bytes) {
                let field = field.map_err(|_| self.malformed("protobuf"))?;
                match field {
                    Field {
                        number: found,
                        payload: Some(payload),
                        ..
                    } if found == number => match shape {
                        Shape::Root => jobs.extend(self.split_array(payload)?),
                        Shape::MetaFile => jobs.push(payload.to_vec()),
                    },
                    _ => {}
                }
            }
        }
        Ok(jobs)
    }

    fn split_array(&self, array: &[u8]) -> Result<Vec<Vec<u8>>, MetaError> {
        if array.is_empty() {
            return Ok(Vec::new());
        }
        // Go writes an empty list as `null` or as `[]`.
        let jobs: Option<Vec<&RawValue>> =
            serde_json::from_slice(array).map_err(|_| self.malformed("JSON of DDL jobs"))?;
        Ok(jobs
            .unwrap_or_default()
            .iter()
            .map(|job| job.get().as_bytes().to_vec())
            .collect())
    }

    fn malformed(&self, what: &str) -> MetaError {
        MetaError::malformed(&self.object, format!("it has invalid {what}"))
    }

    /// Messages under that number of `BackupMeta`, and under that of `MetaFile`.
    fn items<'a, T: Message + Default + 'a>(
        &'a self,
        in_root: Option<u32>,
        in_metafile: Option<u32>,
    ) -> impl Iterator<Item = Result<T, MetaError>> + 'a {
        self.parts
            .iter()
            .flat_map(move |(shape, bytes)| {
                let number = match shape {
                    Shape::Root => in_root,
                    Shape::MetaFile => in_metafile,
                };
                Items::<T> {
                    fields: Fields::new(bytes),
                    number,
                    item: PhantomData,
                }
            })
            .map(|item| item.map_err(|_| self.malformed("protobuf")))
    }
}

struct Items<'a, T> {
    fields: Fields<'a>,
    number: Option<u32>,
    item: PhantomData<T>,
}

impl<T: Message + Default> Iterator for Items<'_, T> {
    type Item = Result<T, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = self.number?;
        for field in &mut self.fields {
            match field {
                Err(_) => return Some(Err(())),
                Ok(Field {
                    number,
                    payload: Some(payload),
                    ..
                }) if number == wanted => {
                    return Some(T::decode(payload).map_err(|_| ()));
                }
                Ok(_) => {}
            }
        }
        None
    }
}
