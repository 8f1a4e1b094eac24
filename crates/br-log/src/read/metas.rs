use br_format::log::metadata::{LogMeta, META_SIZE_BYTES_MAX};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::{LogReadError, LogStorage};

impl LogStorage {
    /// Reads metadata, several at once, in no particular order.
    pub fn metas<'a>(
        &'a self,
        names: impl IntoIterator<Item = String, IntoIter: Send> + 'a,
    ) -> impl Stream<Item = Result<(String, LogMeta), LogReadError>> + 'a {
        stream::iter(names)
            .map(move |name| self.meta(name))
            .buffer_unordered(self.reads())
    }

    pub(super) async fn meta(&self, name: String) -> Result<(String, LogMeta), LogReadError> {
        let decode = |bytes: Bytes| Ok::<_, LogReadError>(LogMeta::decode(&name, &bytes)?);
        let read = self
            .storage()
            .read_checked(&name, META_SIZE_BYTES_MAX, decode);
        let mut meta = read.await?;
        self.open_keys(&mut meta).await?;
        Ok((name, meta))
    }

    /// Puts the data keys of files beside them that lie under master keys, if those were given
    /// ([`br_storage::Storage::with_master_keys`]).
    ///
    /// # Errors
    /// [`LogReadError::MasterKey`].
    pub async fn open_keys(&self, meta: &mut LogMeta) -> Result<(), LogReadError> {
        let Some(keys) = self.storage().master_keys() else {
            return Ok(());
        };
        let files = meta.groups.iter_mut().flat_map(|group| &mut group.files);
        for encryption in files.filter_map(|file| file.encryption.as_mut()) {
            keys.open_file_key(encryption).await?;
        }
        Ok(())
    }
}
