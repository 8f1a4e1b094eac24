use br_types::{ClusterId, StoreId, TimeStamp};
use proptest::prelude::*;

use super::*;

fn stats(min_begin_ts: u64, min_ts: u64, max_ts: u64) -> Stats {
    Stats {
        min_begin_ts: TimeStamp(min_begin_ts),
        min_ts: TimeStamp(min_ts),
        max_ts: TimeStamp(max_ts),
    }
}

#[test]
fn golden_names() {
    let name = "v1/backupmeta/0687F4E847E400090000000000000005-d0687F4E8232C0002l0687F4E8232C0002\
                u0687F4E830740004p0000000000000001.meta";
    let parsed = MetaName::parse(name).unwrap();
    let expected = MetaName::Tagged {
        flush_ts: TimeStamp(0x0687_F4E8_47E4_0009),
        store: StoreId(5),
        stats: stats(
            0x0687_F4E8_232C_0002,
            0x0687_F4E8_232C_0002,
            0x0687_F4E8_3074_0004,
        ),
        flags: Some(MetaFlags {
            no_schemas: true,
            empty: false,
        }),
    };
    assert_eq!(parsed, expected);
    assert_eq!(parsed.to_name(), name);
    assert!(!parsed.may_have_schemas() && !parsed.is_empty());
    let data = DataName {
        min_ts: TimeStamp(470_613_958_700_564_490),
        max_ts: TimeStamp(470_613_961_295_527_946),
        store: StoreId(1),
        is_schema: true,
        unique: "88b9c05d-7017-45d6-af9e-2c1ae968f37f".into(),
    };
    assert_eq!(
        data.to_name(),
        "v1/20261121/08/1/schema-meta/470613958700564490-88b9c05d-7017-45d6-af9e-2c1ae968f37f.log"
    );
    assert!(DataName::is_data(&data.to_name()));
    assert_eq!(DataName::store_of(&data.to_name()), Some(StoreId(1)));
}

#[test]
fn tags_in_any_order_and_unknown_ones() {
    let head = format!("v1/backupmeta/{:016X}{:016X}-", 9, 4);
    let name = format!("{head}z{:016x}u{:016x}l{:016x}d{:016x}.meta", 1, 8, 6, 5);
    let parsed = MetaName::parse(&name).unwrap();
    assert_eq!(parsed.sound_stats(), Some(stats(5, 6, 8)));
    // Without flags nothing is lacking.
    assert!(parsed.may_have_schemas());
    for bad in [
        format!("{head}u{:016x}l{:016x}.meta", 8, 6),
        format!("{head}u{:016x}u{:016x}l{:016x}d{:016x}.meta", 8, 8, 6, 5),
        format!("{head}u{:016x}l{:016x}d{:015x}.meta", 8, 6, 5),
        format!("{head}.meta"),
        "v1/backupmeta/.meta".to_owned(),
        "v1/backupmeta/x-y.meta".to_owned(),
        "backupmeta".to_owned(),
    ] {
        assert_eq!(MetaName::parse(&bad), None, "{bad}");
    }
}

#[test]
fn other_forms() {
    let dashed = format!(
        "v1/backupmeta/{:016X}-{:016X}-{:016X}-{:016X}.meta",
        9, 5, 6, 8
    );
    let parsed = MetaName::parse(&dashed).unwrap();
    assert_eq!(parsed.sound_stats(), Some(stats(5, 6, 8)));
    assert_eq!(parsed.to_name(), dashed);
    let old = "v1/backupmeta/435213818858112001-e2569bda-a75a-4411-88de-f469b49d6256.meta";
    let parsed = MetaName::parse(old).unwrap();
    assert_eq!(parsed.to_name(), old);
    assert_eq!(parsed.sound_stats(), None);
    assert!(parsed.may_hold(TimeStamp(1), TimeStamp(2)));
}

#[test]
fn names_of_fixed_objects() {
    assert_eq!(global_checkpoint(StoreId(4)), "v1/global_checkpoint/4.ts");
    assert!(is_global_checkpoint(CENTRAL_CHECKPOINT));
    assert!(!is_global_checkpoint("v1/global_checkpoint"));
    assert!(is_meta("v1/backupmeta/anything.meta") && !is_meta("v1/backupmeta/x.log"));
    assert_eq!(
        id_map(ClusterId(1), TimeStamp(2)),
        "pitr_id_maps/pitr_id_map.cluster_id:1.restored_ts:2"
    );
    assert_eq!(
        ingested_folder(TimeStamp(10)),
        "v1/ext_backups/backup-000000000000000A"
    );
}

#[test]
fn filters_keep_in_doubt() {
    let named = |stats| MetaName::Dashed {
        flush_ts: TimeStamp(1),
        stats,
    };
    let window = |shift, restored| (TimeStamp(shift), TimeStamp(restored));
    for (stats, (shift, restored), expected) in [
        (stats(5, 6, 8), window(1, 4), false),
        (stats(5, 6, 8), window(1, 5), true),
        (stats(5, 6, 8), window(8, 9), true),
        (stats(5, 6, 8), window(9, 10), false),
        (stats(0, 6, 8), window(9, 10), true),
        (stats(7, 6, 8), window(9, 10), true),
    ] {
        assert_eq!(
            named(stats).may_hold(shift, restored),
            expected,
            "{stats:?} {shift} {restored}"
        );
    }
}

proptest! {
    #[test]
    fn meta_names_come_back(
        flush in any::<u64>(), store in any::<u64>(), range in any::<[u64; 3]>(),
        flags in prop::option::of(any::<(bool, bool)>()), form in 0..3,
    ) {
        let stats = stats(range[0], range[1], range[2]);
        let flush_ts = TimeStamp(flush);
        let name = match form {
            0 => MetaName::Dashed { flush_ts, stats },
            1 => MetaName::Old { resolved_ts: flush_ts, unique: "a-b-c-d-e".into() },
            _ => MetaName::Tagged {
                flush_ts, stats, store: StoreId(store),
                flags: flags.map(|(no_schemas, empty)| MetaFlags { no_schemas, empty }),
            },
        };
        prop_assert_eq!(MetaName::parse(&name.to_name()), Some(name));
    }

    #[test]
    fn noise_never_panics(noise: String) {
        let _ = MetaName::parse(&format!("v1/backupmeta/{noise}.meta"));
        let _ = MetaName::parse(&noise);
        let _ = DataName::store_of(&noise);
    }
}
