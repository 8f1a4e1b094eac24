use proptest::prelude::*;

use super::*;
use crate::log::file::Span;

fn span(offset: u64, length: u64) -> Span {
    Span { offset, length }
}

fn spans(path: &str, spans: &[Span], whole_length: u64) -> DeletedSpans {
    DeletedSpans {
        path: path.into(),
        spans: spans.to_vec(),
        whole_length,
    }
}

#[test]
fn names() {
    let layer = MigrationName::Layer {
        number: 1,
        hash: 0x5273_E5EC_5D8E_3B2A,
    };
    let name = "v1/migrations/00000001_5273E5EC5D8E3B2A.mgrt";
    assert_eq!(layer.to_name(), name);
    assert_eq!(MigrationName::parse(name), Some(layer));
    for name in [MigrationName::Base, MigrationName::BaseTemporary] {
        assert_eq!(MigrationName::parse(&name.to_name()), Some(name));
    }
    for bad in [
        "v1/migrations/1_5273E5EC5D8E3B2A.mgrt",
        "v1/migrations/x",
        "BASE",
    ] {
        assert_eq!(MigrationName::parse(bad), None, "{bad}");
    }
}

#[test]
fn merged_edits_lose_nothing() {
    let first = MetaEdit {
        path: "m".into(),
        delete_objects: vec!["a".into()],
        delete_spans: vec![spans("b", &[span(0, 4)], 10)],
        destruct_self: true,
        all_data_files_compacted: true,
    };
    let second = MetaEdit {
        path: "m".into(),
        delete_objects: vec!["a".into(), "c".into()],
        delete_spans: vec![spans("b", &[span(4, 6), span(0, 4)], 10)],
        ..MetaEdit::default()
    };
    let mut all = Migration {
        edits: vec![first],
        truncated_to: TimeStamp(3),
        ..Migration::default()
    };
    all.merge(Migration {
        edits: vec![second],
        truncated_to: TimeStamp(2),
        version: MigrationVersion::M2,
        ..Migration::default()
    });
    assert_eq!(all.truncated_to, TimeStamp(3));
    assert_eq!(all.version, MigrationVersion::M2);
    let [edit] = all.edits.as_slice() else {
        panic!("{all:?}")
    };
    assert!(edit.destruct_self && edit.all_data_files_compacted);
    assert_eq!(edit.delete_objects, ["a", "c"]);
    assert_eq!(
        edit.delete_spans,
        [spans("b", &[span(0, 4), span(4, 6)], 10)]
    );
    assert!(edit.delete_spans[0].is_whole());
    assert!(!spans("b", &[span(0, 4), span(5, 5)], 10).is_whole());
    assert!(!spans("b", &[], 0).is_whole());
}

#[test]
fn the_safe_point_counts_as_part_of_the_base() {
    let layers = vec![(2, Migration::default()), (1, Migration::default())];
    let all = Migrations::new(None, layers, TimeStamp(7));
    assert_eq!(all.merged().truncated_to, TimeStamp(7));
    assert_eq!(all.layers[0].0, 1);
    assert_eq!(all.next_number(), 3);
}

#[test]
fn newer_migrations_are_refused() {
    let newer = Proto {
        version: 3,
        ..Proto::default()
    };
    let refused = Migration::decode("x", &newer.encode_to_vec());
    assert!(
        matches!(refused, Err(LogFormatError::NewerVersion { found: 3, .. })),
        "{refused:?}"
    );
    let unknown = [15 << 3, 1];
    let refused = Migration::decode("x", &unknown);
    assert!(
        matches!(
            refused,
            Err(LogFormatError::UnknownField { number: 15, .. })
        ),
        "{refused:?}"
    );
}

prop_compose! {
    fn any_edit()(
        path in "[ab]", delete_objects in prop::collection::vec("[a-d]", 0..3),
        offsets in prop::collection::vec(0..4u64, 0..3), destruct_self: bool,
    ) -> MetaEdit {
        let pieces: Vec<_> = offsets.iter().map(|offset| span(*offset, 1)).collect();
        MetaEdit {
            path, delete_objects, destruct_self,
            delete_spans: vec![spans("o", &pieces, 4)],
            all_data_files_compacted: false,
        }
    }
}

prop_compose! {
    fn any_migration()(
        edits in prop::collection::vec(any_edit(), 0..4), truncated_to in 0..9u64,
        names in prop::collection::vec("[xyz]", 0..3),
    ) -> Migration {
        let compactions = names.iter().map(|name| Compaction {
            name: name.clone(), input_max_ts: TimeStamp(truncated_to), ..Compaction::default()
        });
        Migration {
            edits, truncated_to: TimeStamp(truncated_to), compactions: compactions.collect(),
            destruct_prefixes: names.clone(), ingested_paths: names, ..Migration::default()
        }
    }
}

proptest! {
    #[test]
    fn migrations_come_back(migration in any_migration()) {
        let decoded = Migration::decode("x", &migration.encode()).unwrap();
        prop_assert_eq!(decoded.hash(), migration.hash());
        prop_assert_eq!(decoded, migration);
    }

    /// However migrations are folded into the base, readers see the same.
    #[test]
    fn folding_changes_nothing(all in prop::collection::vec(any_migration(), 0..5), at in 0usize..5) {
        let layers: Vec<_> = (1..).zip(all).collect();
        let whole = Migrations::new(None, layers.clone(), TimeStamp(0)).merged();
        let (folded, rest) = layers.split_at(at.min(layers.len()));
        let base = Migrations::new(None, folded.to_vec(), TimeStamp(0)).merged();
        let after = Migrations::new(Some(base), rest.to_vec(), TimeStamp(0)).merged();
        prop_assert_eq!(after, whole);
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>, name: String) {
        let _ = Migration::decode("x", &noise);
        let _ = MigrationName::parse(&format!("v1/migrations/{name}"));
    }
}
