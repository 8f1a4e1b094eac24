use br_codec::{Write, WriteKind, key};
use br_proto::import_sstpb::Range;
use proptest::prelude::*;

use super::*;

fn rule(old: &[u8], new: &[u8]) -> RewriteRule {
    RewriteRule {
        old_key_prefix: old.into(),
        new_key_prefix: new.into(),
        ..Default::default()
    }
}

fn keyspace(old: &[u8], new: &[u8]) -> Rewrite {
    Rewrite::new(Some(&rule(old, new)), DownloadRequestType::Keyspace)
}

fn meta(start: &[u8], end: &[u8], end_key_exclusive: bool) -> SstMeta {
    let range = Some(Range {
        start: start.into(),
        end: end.into(),
    });
    SstMeta {
        range,
        end_key_exclusive,
        ..Default::default()
    }
}

fn data_key(raw: &[u8], ts: u64) -> Vec<u8> {
    key::data_key_at(key::encode(raw).as_bytes(), TimeStamp(ts)).into_bytes()
}

#[test]
fn bounds_are_those_of_the_old_keys() {
    let rewrite = keyspace(b"t123", b"t456");
    let clip = rewrite.clip(&meta(b"t456_a", b"t456_b", false)).unwrap();
    assert_eq!(clip.start, Bound::Included(bytes::encode(b"t123_a")));
    assert_eq!(clip.end, Bound::Included(bytes::encode(b"t123_b")));
    let clip = rewrite.clip(&meta(b"t456", b"t457", true)).unwrap();
    assert_eq!(clip.end, Bound::Excluded(bytes::encode(b"t124")));
    assert!(rewrite.clip(&meta(b"t456", b"t457", false)).is_err());
    assert!(rewrite.clip(&meta(b"t455", b"t456", false)).is_err());
}

#[test]
fn open_bounds_of_no_prefix_become_those_of_the_old_one() {
    let clip = keyspace(b"x\0\0\x01", b"")
        .clip(&meta(b"", b"", false))
        .unwrap();
    assert_eq!(clip.start, Bound::Included(bytes::encode(b"x\0\0\x01")));
    assert_eq!(clip.end, Bound::Excluded(bytes::encode(b"x\0\0\x02")));
    let clip = keyspace(b"", b"").clip(&meta(b"", b"", false)).unwrap();
    assert_eq!(
        clip,
        Clip {
            start: Bound::Unbounded,
            end: Bound::Unbounded
        }
    );
}

#[test]
fn an_inclusive_end_of_encoded_keys_leaves_out_the_versions_of_that_key() {
    // As TiKV: the bound has no timestamp, the versions of the key sort after it.
    let clip = keyspace(b"t1", b"t1")
        .clip(&meta(b"t1a", b"t1b", false))
        .unwrap();
    assert!(!clip.is_before(&data_key(b"t1a", 5)[1..]));
    assert!(!clip.is_after(&data_key(b"t1a", 5)[1..]));
    assert!(clip.is_after(&data_key(b"t1b", 5)[1..]));
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let mut out = Vec::new();
    for (old, new) in [(&b"t123"[..], &b"t456"[..]), (b"t123", b"t4567")] {
        let result = keyspace(old, new).key(&data_key(b"t124_r", 5), &mut out);
        assert!(
            matches!(result, Err(RewriteError::WrongPrefix { .. })),
            "{result:?}"
        );
    }
    // The padding of a short key is no data.
    let result = keyspace(b"t\0\0", b"t\x01\x01").key(&data_key(b"t", 5), &mut out);
    assert!(
        matches!(result, Err(RewriteError::WrongPrefix { .. })),
        "{result:?}"
    );
    assert!(keyspace(b"", b"").key(b"short", &mut out).is_err());
}

#[test]
fn legacy_rules_are_text() {
    let rewrite = Rewrite::new(Some(&rule(b"t123", b"t9")), DownloadRequestType::Legacy);
    let mut out = Vec::new();
    assert_eq!(rewrite.key(b"zt123abc", &mut out), Ok(true));
    assert_eq!(out, b"zt9abc");
    let clip = rewrite.clip(&meta(b"t9a", b"t9z", true)).unwrap();
    assert_eq!(clip.start, Bound::Included(b"t123a".to_vec()));
    assert_eq!(clip.end, Bound::Excluded(b"t123z".to_vec()));
}

#[test]
fn timestamps_are_replaced_and_filtered() {
    let with = |rule: RewriteRule| Rewrite::new(Some(&rule), DownloadRequestType::Keyspace);
    let mut out = Vec::new();
    let new_ts = with(RewriteRule {
        new_timestamp: 9,
        ..rule(b"a", b"b")
    });
    assert_eq!(new_ts.key(&data_key(b"ak", 5), &mut out), Ok(true));
    assert_eq!(out, data_key(b"bk", 9));
    let record = Write::new(WriteKind::Delete, TimeStamp(4), None).to_bytes();
    let rewritten = new_ts.value(Cf::Write, &record).unwrap();
    assert_eq!(WriteRef::parse(&rewritten).unwrap().start_ts, TimeStamp(9));
    assert_eq!(new_ts.value(Cf::Default, b"any").unwrap(), &b"any"[..]);
    assert!(!new_ts.is_identity());

    let window = with(RewriteRule {
        ignore_after_timestamp: 7,
        ignore_before_timestamp: 5,
        ..Default::default()
    });
    let kept: Vec<u64> = (4..9)
        .filter(|ts| window.key(&data_key(b"k", *ts), &mut out).unwrap())
        .collect();
    assert_eq!(kept, [5, 6, 7]);
}

proptest! {
    #[test]
    fn replacing_in_place_is_decoding_and_encoding(
        old in proptest::collection::vec(any::<u8>(), 0..20),
        noise: [u8; 20],
        rest: Vec<u8>,
        ts: u64,
    ) {
        let new = &noise[..old.len()];
        let before = data_key(&[&old[..], &rest].concat(), ts);
        let mut out = Vec::new();
        prop_assert_eq!(keyspace(&old, new).key(&before, &mut out), Ok(true));
        prop_assert_eq!(out, data_key(&[new, &rest].concat(), ts));
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>, old: Vec<u8>) {
        let mut out = Vec::new();
        let _ = keyspace(&old, &old).key(&noise, &mut out);
        let _ = keyspace(&old, b"x").key(&noise, &mut out);
    }
}
