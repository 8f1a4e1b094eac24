use br_format::log::metadata::{LogMeta, META_SIZE_BYTES_MAX};
use br_format::log::names::{self, MetaName};
use br_types::TimeStamp;
use futures::{Stream, StreamExt, stream};

use super::{LogReadError, LogStorage};

/// The names of metadata, and what they prove of values.
pub(super) struct MetaNames {
    /// With ranges in the name that can be relied upon.
    pub(super) sound: Vec<(String, MetaName)>,
    /// Those that have to be read to be judged.
    pub(super) unsound: Vec<String>,
    /// Those whose name says that they have no files.
    pub(super) empty: Vec<String>,
}

impl MetaNames {
    /// What names say of the least `start_ts` of commits in `[start_ts, restored_ts]`; never later
    /// than what the content would say.
    pub(super) fn shift_ts(&self, start_ts: TimeStamp, restored_ts: TimeStamp) -> TimeStamp {
        self.sound
            .iter()
            .filter_map(|(_, name)| name.sound_stats())
            .filter(|stats| stats.min_ts <= restored_ts && stats.max_ts >= start_ts)
            .map(|stats| stats.min_begin_ts)
            .fold(start_ts, TimeStamp::min)
    }
}

impl LogStorage {
    pub(super) async fn meta_names(&self) -> Result<MetaNames, LogReadError> {
        let mut found = MetaNames {
            sound: Vec::new(),
            unsound: Vec::new(),
            empty: Vec::new(),
        };
        for name in self.names_in(names::META_FOLDER).await? {
            if !names::is_meta(&name) {
                continue;
            }
            match MetaName::parse(&name) {
                Some(parsed) if parsed.is_empty() => found.empty.push(name),
                Some(parsed) if parsed.sound_stats().is_some() => found.sound.push((name, parsed)),
                _ => found.unsound.push(name),
            }
        }
        Ok(found)
    }

    /// Reads metadata, several at once, in no particular order.
    pub fn metas<'a>(
        &'a self,
        names: impl IntoIterator<Item = String, IntoIter: Send> + 'a,
    ) -> impl Stream<Item = Result<(String, LogMeta), LogReadError>> + 'a {
        stream::iter(names)
            .map(move |name| async move {
                let bytes = self
                    .storage()
                    .read_at_most(&name, META_SIZE_BYTES_MAX)
                    .await?;
                let meta = LogMeta::decode(&name, &bytes)?;
                Ok((name, meta))
            })
            .buffer_unordered(self.reads())
    }
}
