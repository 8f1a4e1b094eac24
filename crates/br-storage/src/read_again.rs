use br_types::{Classify, Kind};
use bytes::Bytes;

use crate::{Storage, StorageError};

/// How often what looks damaged is read, before it is called so.
pub const READS_OF_DAMAGED: u32 = 3;

/// Reads and checks something again if it looks damaged: bytes change on the way, too, in the
/// memory of a proxy or of a machine between. `read` begins anew each time; its storage does its
/// own retries of requests that fail.
///
/// # Errors
/// Those of the last time.
pub async fn read_again<T, E: Classify>(
    mut read: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..READS_OF_DAMAGED {
        match read().await {
            Err(error) if error.kind() == Kind::Data => {
                tracing::warn!(%error, "read again");
            }
            done => return done,
        }
    }
    read().await
}

impl Storage {
    /// Reads an object until `check` takes it; see [`read_again`].
    ///
    /// # Errors
    /// Those of the storage, and the last one of `check`.
    pub async fn read_checked<T, E: Classify + From<StorageError>>(
        &self,
        name: &str,
        size_bytes_max: u64,
        mut check: impl FnMut(Bytes) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut left = READS_OF_DAMAGED;
        loop {
            left -= 1;
            let read = match self.read_at_most(name, size_bytes_max).await {
                Ok(bytes) => check(bytes),
                Err(error) => Err(error.into()),
            };
            match read {
                Err(error) if error.kind() == Kind::Data && left > 0 => {
                    tracing::warn!(%error, "read again");
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use br_rt::Rt;

    use super::*;
    use crate::{Backend, forget_memory};

    #[derive(Debug, thiserror::Error)]
    enum Wrong {
        #[error("it is damaged")]
        Damaged,
        #[error("it is newer")]
        Newer,
        #[error(transparent)]
        Storage(#[from] StorageError),
    }

    impl Classify for Wrong {
        fn kind(&self) -> Kind {
            match self {
                Wrong::Damaged => Kind::Data,
                Wrong::Newer => Kind::Invalid,
                Wrong::Storage(error) => error.kind(),
            }
        }
    }

    #[tokio::test]
    async fn only_what_looks_damaged_is_read_again() {
        let name = "read-again".to_owned();
        let prefix = String::new();
        let backend = Backend::Memory {
            name: name.clone(),
            prefix,
        };
        let storage = Storage::open(&Rt::real(), &backend).await.unwrap();
        storage.write("object", "bytes").await.unwrap();
        // Damaged so often, then whole; how often it is read.
        for (damaged, reads) in [(0, 1), (1, 2), (2, 3), (3, 3)] {
            let mut seen = 0;
            let read = storage.read_checked("object", 100, |bytes: Bytes| {
                seen += 1;
                match seen > damaged {
                    true => Ok(bytes),
                    false => Err(Wrong::Damaged),
                }
            });
            let read = read.await;
            assert_eq!(read.is_ok(), damaged < 3, "{read:?}");
            assert_eq!(seen, reads);
            let mut seen = 0;
            let again = read_again(async || {
                seen += 1;
                match seen > damaged {
                    true => Ok(()),
                    false => Err(Wrong::Damaged),
                }
            });
            assert_eq!((again.await.is_ok(), seen), (damaged < 3, reads));
        }
        let mut seen = 0;
        let check = |_| {
            seen += 1;
            Err::<(), _>(Wrong::Newer)
        };
        let newer = storage.read_checked("object", 100, check).await;
        assert!(matches!(newer, Err(Wrong::Newer)), "{newer:?}");
        assert_eq!(seen, 1);
        forget_memory(&name);
    }
}
