//! A small writer of tables, and properties over what it writes.

use super::*;
use crate::footer::{BlockHandle, ChecksumKind};

#[derive(Clone, Copy, Debug)]
struct Shape {
    checksum: u8,
    levels: usize,
    delta: bool,
    user_key_index: bool,
    first_key: bool,
    hash_index: bool,
    restart_interval: usize,
    block_entries: usize,
    compression: u8,
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

enum Value<'a> {
    Bytes(&'a [u8]),
    /// Whole and as a difference.
    Delta(&'a [u8], &'a [u8]),
}

#[derive(Default)]
struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    last: Vec<u8>,
    count: usize,
}

impl BlockBuilder {
    fn add(&mut self, key: &[u8], value: &Value<'_>, interval: usize) {
        let restart = self.count.is_multiple_of(interval);
        let shared = if restart {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            key.iter()
                .zip(&self.last)
                .take_while(|(a, b)| a == b)
                .count()
        };
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (key.len() - shared) as u64);
        if let Value::Bytes(value) = value {
            put_varint(&mut self.bytes, value.len() as u64);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(match value {
            Value::Bytes(value) => value,
            Value::Delta(_, delta) if shared > 0 => delta,
            Value::Delta(whole, _) => whole,
        });
        self.last = key.to_vec();
        self.count += 1;
    }

    fn finish(mut self, hash_index: bool) -> Vec<u8> {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let mut packed = self.restarts.len() as u32;
        if hash_index {
            self.bytes.extend_from_slice(&[0xFF; 7]);
            self.bytes.extend_from_slice(&7u16.to_le_bytes());
            packed |= 1 << 31;
        }
        self.bytes.extend_from_slice(&packed.to_le_bytes());
        self.bytes
    }
}

struct FileBuilder {
    shape: Shape,
    bytes: Vec<u8>,
}

impl FileBuilder {
    fn block(&mut self, plain: Vec<u8>, compression: u8) -> BlockHandle {
        let mut stored = Vec::new();
        match compression {
            0 => stored = plain,
            1 => stored = snap::raw::Encoder::new().compress_vec(&plain).unwrap(),
            4 | 5 => {
                put_varint(&mut stored, plain.len() as u64);
                stored.extend(lz4_flex::block::compress(&plain));
            }
            _ => {
                put_varint(&mut stored, plain.len() as u64);
                stored.extend(zstd::bulk::compress(&plain, 3).unwrap());
            }
        }
        let handle = BlockHandle {
            offset: self.bytes.len() as u64,
            size: stored.len() as u64,
        };
        stored.push(compression);
        let kind = match self.shape.checksum {
            0 => ChecksumKind::None,
            1 => ChecksumKind::Crc32c,
            2 => ChecksumKind::XxHash32,
            3 => ChecksumKind::XxHash64,
            _ => ChecksumKind::Xxh3,
        };
        let sum = kind.sum(&stored[..stored.len() - 1], &stored).unwrap_or(0);
        self.bytes.extend(stored);
        self.bytes.extend(sum.to_le_bytes());
        handle
    }

    fn index(&mut self, blocks: &[(Vec<u8>, Vec<u8>, BlockHandle)]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        let mut previous = BlockHandle::default();
        for (first, last, handle) in blocks {
            let mut whole = encode_handle(*handle);
            let mut delta = Vec::new();
            let difference = handle.size as i64 - previous.size as i64;
            put_varint(&mut delta, (difference << 1 ^ difference >> 63) as u64);
            if self.shape.first_key {
                for value in [&mut whole, &mut delta] {
                    put_varint(value, first.len() as u64);
                    value.extend_from_slice(first);
                }
            }
            let key = if self.shape.user_key_index {
                &last[..last.len() - 8]
            } else {
                last
            };
            let value = match self.shape.delta {
                true => Value::Delta(&whole, &delta),
                false => Value::Bytes(&whole),
            };
            builder.add(key, &value, self.shape.restart_interval);
            previous = *handle;
        }
        builder.finish(false)
    }
}

fn encode_handle(handle: BlockHandle) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, handle.offset);
    put_varint(&mut bytes, handle.size);
    bytes
}

fn build(shape: Shape, entries: &[(Vec<u8>, Vec<u8>)], range_deletions: bool) -> Vec<u8> {
    let mut file = FileBuilder {
        shape,
        bytes: Vec::new(),
    };
    let mut blocks = Vec::new();
    for chunk in entries.chunks(shape.block_entries) {
        let mut builder = BlockBuilder::default();
        let internal = |key: &[u8]| [key, &(5u64 << 8 | 1).to_le_bytes()].concat();
        for (key, value) in chunk {
            builder.add(&internal(key), &Value::Bytes(value), shape.restart_interval);
        }
        let handle = file.block(builder.finish(shape.hash_index), shape.compression);
        blocks.push((
            internal(&chunk[0].0),
            internal(&chunk[chunk.len() - 1].0),
            handle,
        ));
    }
    if shape.levels == 2 {
        let mut parts = Vec::new();
        for chunk in blocks.chunks(3) {
            let index = file.index(chunk);
            let handle = file.block(index, shape.compression);
            parts.push((chunk[0].0.clone(), chunk[chunk.len() - 1].1.clone(), handle));
        }
        blocks = parts;
    }
    let index = file.index(&blocks);
    let index = file.block(index, shape.compression);
    let kind: u32 = if shape.levels == 2 {
        2
    } else {
        u32::from(shape.first_key) * 3
    };
    let mut properties = BlockBuilder::default();
    for (name, value) in [
        (
            "rocksdb.block.based.table.index.type",
            kind.to_le_bytes().to_vec(),
        ),
        (
            "rocksdb.index.key.is.user.key",
            vec![u8::from(shape.user_key_index)],
        ),
        (
            "rocksdb.index.value.is.delta.encoded",
            vec![u8::from(shape.delta)],
        ),
        (
            "rocksdb.num.range-deletions",
            vec![u8::from(range_deletions)],
        ),
    ] {
        properties.add(name.as_bytes(), &Value::Bytes(&value), 1);
    }
    let properties = file.block(properties.finish(false), 0);
    let mut metaindex = BlockBuilder::default();
    metaindex.add(
        b"rocksdb.properties",
        &Value::Bytes(&encode_handle(properties)),
        1,
    );
    let metaindex = file.block(metaindex.finish(false), 0);
    let mut footer = vec![shape.checksum];
    footer.extend(encode_handle(metaindex));
    footer.extend(encode_handle(index));
    footer.resize(41, 0);
    footer.extend(if shape.delta { 4u32 } else { 2 }.to_le_bytes());
    footer.extend(0x88e2_41b7_85f4_cff7u64.to_le_bytes());
    file.bytes.extend(footer);
    file.bytes
}

fn shapes() -> impl Strategy<Value = Shape> {
    let form = (
        0u8..5,
        1usize..3,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let sizes = (
        1usize..5,
        1usize..6,
        prop::sample::select(vec![0u8, 1, 4, 5, 7]),
    );
    (form, sizes).prop_map(|(form, sizes)| {
        let (checksum, levels, delta, user_key_index, first_key, hash_index) = form;
        let (restart_interval, block_entries, compression) = sizes;
        Shape {
            checksum,
            levels,
            delta,
            user_key_index,
            first_key: first_key && levels == 1,
            hash_index,
            restart_interval,
            block_entries,
            compression,
        }
    })
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..4, 0..6)
}

proptest! {
    #[test]
    fn every_shape_of_table_is_read_and_sought(
        shape in shapes(),
        model in prop::collection::btree_map(key(), prop::collection::vec(any::<u8>(), 0..200), 0..60),
        sought in prop::collection::vec(key(), 0..5),
    ) {
        let entries: Vec<_> = model.clone().into_iter().collect();
        let bytes = Bytes::from(build(shape, &entries, false));
        let expected: Vec<OwnedEntry> = entries
            .into_iter()
            .map(|(key, value)| (key, 5, EntryKind::Put, value))
            .collect();
        prop_assert_eq!(read_all(bytes.clone()).unwrap(), expected);
        let table = Table::open(bytes).unwrap();
        let mut iter = table.iter();
        for sought in sought {
            iter.seek(&sought).unwrap();
            for (key, value) in model.range(sought..).take(4) {
                let found = iter.next().unwrap().map(|entry| {
                    (entry.user_key.to_vec(), entry.value.to_vec())
                });
                prop_assert_eq!(found, Some((key.clone(), value.clone())));
            }
        }
    }

    /// Without checksums nothing stands between damage and the parser.
    #[test]
    fn damage_without_checksums_never_panics(
        mut shape in shapes(),
        model in prop::collection::btree_map(key(), prop::collection::vec(any::<u8>(), 0..50), 1..40),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        sought in key(),
    ) {
        shape.checksum = 0;
        let entries: Vec<_> = model.into_iter().collect();
        let mut bytes = build(shape, &entries, false);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let bytes = Bytes::from(bytes);
        let _ = read_all(bytes.clone());
        if let Ok(table) = Table::open(bytes) {
            let mut iter = table.iter();
            if iter.seek(&sought).is_ok() {
                while let Ok(Some(_)) = iter.next() {}
            }
        }
    }
}

#[test]
fn range_deletions_are_refused() {
    let shape = Shape {
        checksum: 1,
        levels: 1,
        delta: false,
        user_key_index: false,
        first_key: false,
        hash_index: false,
        restart_interval: 1,
        block_entries: 1,
        compression: 0,
    };
    let file = Bytes::from(build(shape, &[(b"k".to_vec(), b"v".to_vec())], true));
    let error = Table::open(file).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it uses range deletions, which is not supported"
    );
}
