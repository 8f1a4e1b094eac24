use std::time::Duration;

use br_proto::{metapb, pdpb};
use br_rt::UnixMillis;
use br_types::StoreId;

use super::{PdClient, PdError};

/// A store that did not report to PD for so long counts as gone. TiKV reports each 10 s.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(100);

impl PdClient {
    /// All stores but those that are gone for good, TiFlash among them.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn all_stores(&self) -> Result<Vec<metapb::Store>, PdError> {
        let answer = self
            .call("GetAllStores", |mut stub, header| async move {
                let request = pdpb::GetAllStoresRequest {
                    header: Some(header),
                    exclude_tombstone_stores: true,
                };
                stub.get_all_stores(request).await
            })
            .await?;
        Ok(answer
            .stores
            .into_iter()
            .filter(|store| store.state() != metapb::StoreState::Tombstone)
            .collect())
    }

    /// The stores that hold key-value data: all but TiFlash.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn kv_stores(&self) -> Result<Vec<metapb::Store>, PdError> {
        let mut stores = self.all_stores().await?;
        stores.retain(|store| !is_tiflash(store));
        Ok(stores)
    }

    /// The stores that hold key-value data and reported to PD within the last 100 seconds of PD's clock.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn live_stores(&self) -> Result<Vec<metapb::Store>, PdError> {
        let mut stores = self.kv_stores().await?;
        // PD's clock stamped the heartbeats, so it is PD's clock that they are held against: that
        // of this machine may be minutes off.
        let now = UnixMillis(self.tso().await?.physical_ms());
        stores.retain(|store| is_live(store, now));
        Ok(stores)
    }

    /// Finds out whether every store reads and writes sealed storages in this form: only the embedded
    /// ones do, and say so. To be asked before a request or task names a sealed storage, for others
    /// would pass over that and write plain objects.
    ///
    /// # Errors
    /// [`PdError::CannotSeal`]; PD is out of reach or refuses.
    pub async fn check_sealing(&self, form: u32) -> Result<(), PdError> {
        let mut stores = self.kv_stores().await?;
        stores.retain(|store| store.sealed_form < form);
        match stores.is_empty() {
            true => Ok(()),
            false => Err(PdError::CannotSeal(
                stores.iter().map(|store| StoreId(store.id)).collect(),
            )),
        }
    }

    /// One store.
    ///
    /// # Errors
    /// [`PdError::NoStore`] if there is none or it is gone for good; PD is out of reach.
    pub async fn store(&self, id: StoreId) -> Result<metapb::Store, PdError> {
        let answer = self
            .call("GetStore", |mut stub, header| async move {
                let request = pdpb::GetStoreRequest {
                    header: Some(header),
                    store_id: id.0,
                };
                stub.get_store(request).await
            })
            .await;
        let store = match answer {
            Ok(answer) => answer.store,
            // PD has no type of its own for a store that it does not know.
            Err(PdError::Refused { kind, .. }) if kind != pdpb::ErrorType::NotBootstrapped => None,
            Err(error) => return Err(error),
        };
        store
            .filter(|store| store.state() != metapb::StoreState::Tombstone)
            .ok_or(PdError::NoStore(id))
    }

    /// Ids that nobody else has: the first of `count` consecutive ones. A repeated call may leave
    /// some unused.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn alloc_ids(&self, count: u32) -> Result<u64, PdError> {
        const METHOD: &str = "AllocID";
        let answer = self
            .call(METHOD, |mut stub, header| async move {
                stub.alloc_id(pdpb::AllocIdRequest {
                    header: Some(header),
                    count,
                })
                .await
            })
            .await?;
        answer
            .id
            .checked_sub(u64::from(count.max(1)) - 1)
            .filter(|first| *first > 0)
            .ok_or_else(|| PdError::InvalidResponse {
                method: METHOD,
                what: format!("is {}", answer.id),
            })
    }
}

/// Whether the store is a TiFlash, which holds copies and serves none of the calls used here.
pub(crate) fn is_tiflash(store: &metapb::Store) -> bool {
    store.labels.iter().any(|label| {
        label.key == "engine" && (label.value == "tiflash" || label.value == "tiflash_compute")
    })
}

fn is_live(store: &metapb::Store, now: UnixMillis) -> bool {
    let heard_ms = u64::try_from(store.last_heartbeat / 1_000_000).unwrap_or_default();
    let limit_ms = u64::try_from(HEARTBEAT_AGE_MAX.as_millis()).unwrap_or(u64::MAX);
    matches!(
        store.state(),
        metapb::StoreState::Up | metapb::StoreState::Offline
    ) && now.0.saturating_sub(heard_ms) < limit_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_lives_while_it_reports() {
        let now = UnixMillis(1_000_000);
        let store = |state: metapb::StoreState, age_ms: i64| metapb::Store {
            id: 1,
            state: state.into(),
            last_heartbeat: (1_000_000 - age_ms) * 1_000_000,
            ..Default::default()
        };
        assert!(is_live(&store(metapb::StoreState::Up, 99_999), now));
        assert!(is_live(&store(metapb::StoreState::Offline, 0), now));
        assert!(!is_live(&store(metapb::StoreState::Up, 100_000), now));
        assert!(!is_live(&store(metapb::StoreState::Tombstone, 0), now));
        // A clock that is a little behind PD's does no harm.
        assert!(is_live(&store(metapb::StoreState::Up, -5_000), now));
    }

    #[test]
    fn tiflash_is_told_by_its_label() {
        let label = |key: &str, value: &str| metapb::Store {
            labels: vec![metapb::StoreLabel {
                key: key.into(),
                value: value.into(),
            }],
            ..Default::default()
        };
        assert!(is_tiflash(&label("engine", "tiflash")));
        assert!(!is_tiflash(&label("zone", "tiflash")));
    }
}
