use futures::{Stream, StreamExt, TryStreamExt, future, stream, stream::BoxStream};
use object_store::path::Path;

use crate::{Operation, Storage, StorageError};

/// One object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, relative to the storage.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

impl Storage {
    /// The objects whose names begin with `prefix`, in no particular order, page by page.
    ///
    /// `prefix` is text, not a directory: `a/b` finds `a/b`, `a/bc` and `a/b/c`. Objects that come
    /// or go meanwhile may be in it or not.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry, StorageError>> {
        let directory = match prefix.rsplit_once('/') {
            None => Ok(Path::default()),
            Some((directory, _)) => self.path(Operation::List, directory),
        };
        let (storage, prefix) = (self.clone(), prefix.to_owned());
        stream::once(async move {
            let directory = directory?;
            storage
                .retry(Operation::List, &prefix, || future::ready(Ok(())))
                .await?;
            Ok::<_, StorageError>(storage.list_below(&directory, prefix))
        })
        .try_flatten()
        .boxed()
    }

    fn list_below(
        &self,
        directory: &Path,
        prefix: String,
    ) -> impl Stream<Item = Result<Entry, StorageError>> + Send + use<> {
        let root = (!directory.as_ref().is_empty()).then_some(directory);
        // The storage skips the names up to the offset. It is the prefix without its last
        // character, as the object that is named like the prefix belongs to the listing.
        let mut offset = prefix.clone();
        offset.pop();
        let objects = match Path::parse(&offset) {
            Ok(offset) if offset.as_ref().len() > directory.as_ref().len() + 1 => {
                self.object_store().list_with_offset(root, &offset)
            }
            _ => self.object_store().list(root),
        };
        let storage = self.clone();
        let (matching, wanted) = (prefix.clone(), prefix.clone());
        let sorted = self.is_sorted();
        objects
            .map_err(move |error| storage.error(Operation::List, &prefix, error.into()))
            .map_ok(|meta| Entry {
                name: meta.location.into(),
                size_bytes: meta.size,
            })
            .try_take_while(move |entry| {
                let beyond = entry.name > matching && !entry.name.starts_with(&matching);
                future::ready(Ok(!(sorted && beyond)))
            })
            .try_filter(move |entry| future::ready(entry.name.starts_with(&wanted)))
    }
}
