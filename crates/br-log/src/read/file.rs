use br_format::crypter::Crypter;
use br_format::log::content;
use br_format::log::file::LogFile;
use br_storage::read_again;
use bytes::Bytes;

use super::{LogReadError, LogStorage};

impl LogStorage {
    /// The stored bytes of a file, as they are.
    ///
    /// # Errors
    /// [`LogReadError::Missing`]; the storage's own.
    pub async fn read_stored(&self, object: &str, file: &LogFile) -> Result<Bytes, LogReadError> {
        let read = match file.span.end() {
            // The first layout: an object is a file.
            _ if file.span.length == 0 => self.storage().read(object).await,
            Some(end) => {
                let range = file.span.offset..end;
                self.storage().read_range(object, range).await
            }
            None => self.storage().read(object).await,
        };
        read.map_err(|error| match error.is_not_found() {
            true => LogReadError::Missing {
                object: object.to_owned(),
                named_by: "metadata of the log".to_owned(),
            },
            false => error.into(),
        })
    }

    /// The records of a file, all sums, keys and timestamps checked; see
    /// [`br_format::log::record::Records`].
    ///
    /// # Errors
    /// The object is missing or damaged, or encrypted with another key.
    pub async fn read_file(
        &self,
        object: &str,
        file: &LogFile,
        crypter: &Crypter,
    ) -> Result<Bytes, LogReadError> {
        read_again(async || {
            let stored = self.read_stored(object, file).await?;
            let records = content::open(object, file, stored, crypter)?;
            content::check_records(object, file, &records)?;
            Ok(records)
        })
        .await
    }
}
