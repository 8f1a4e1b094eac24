use br_proto::metapb::Region;
use br_rt::UnixMillis;
use br_storage::NameLayout;
use br_types::{Cf, RawKey, StoreId};
use sha2::{Digest, Sha256};

/// The name that the two files of one piece share, without `_default.sst` or `_write.sst`.
///
/// `start` is the raw key at which the file begins; `None` only for a raw backup from the first key
/// of all, whose name carries neither its hash nor the time.
///
/// Source: TiKV `backup/src/endpoint.rs`, `backup_file_name`.
pub(super) fn stem(
    layout: NameLayout,
    store: StoreId,
    region: &Region,
    start: Option<&RawKey>,
    now: UnixMillis,
) -> String {
    let separator = match layout {
        NameLayout::SubDirectories => '/',
        NameLayout::Flat => '_',
    };
    let version = region
        .region_epoch
        .as_ref()
        .map_or(0, |epoch| epoch.version);
    let mut stem = format!("{store}{separator}{}_{version}", region.id);
    if let Some(start) = start {
        let hash = hex::encode(Sha256::digest(start.as_bytes()));
        stem.push_str(&format!("_{hash}_{}", now.0));
    }
    stem
}

/// The name of the file of one column family.
pub(super) fn file_name(stem: &str, cf: Cf) -> String {
    format!("{stem}_{cf}.sst")
}

#[cfg(test)]
mod tests {
    use br_proto::metapb::RegionEpoch;

    use super::*;

    #[test]
    fn names_are_those_of_the_official_store() {
        let region = Region {
            id: 12,
            region_epoch: Some(RegionEpoch {
                conf_ver: 1,
                version: 34,
            }),
            ..Default::default()
        };
        let store = StoreId(5);
        let key = RawKey::from(&b"abc"[..]);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            stem(
                NameLayout::SubDirectories,
                store,
                &region,
                Some(&key),
                UnixMillis(7)
            ),
            format!("5/12_34_{hash}_7")
        );
        assert_eq!(
            stem(NameLayout::Flat, store, &region, Some(&key), UnixMillis(7)),
            format!("5_12_34_{hash}_7")
        );
        let whole = stem(NameLayout::Flat, store, &region, None, UnixMillis(7));
        assert_eq!(file_name(&whole, Cf::Write), "5_12_34_write.sst");
    }
}
