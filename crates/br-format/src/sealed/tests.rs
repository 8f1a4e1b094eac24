use proptest::prelude::*;

use super::{
    DataKey, DataKeyId, SealedError,
    keyring::{Generation, Keyring, WrappedKeyring},
    object::{
        CHUNK_BYTES, HEADER_BYTES, Header, ObjectKey, SEALED_CHUNK_BYTES, TAG_BYTES, chunks_of,
        looks_sealed, plain_size, stored_offset, stored_size,
    },
};
use crate::master_key::{MASTER_KEY_BYTES, MasterKey};

fn data_key(byte: u8) -> DataKey {
    DataKey::new(DataKeyId([byte; 8]), [byte ^ 0x5a; 32])
}

fn sealed(name: &str, plain: &[u8]) -> Vec<u8> {
    ObjectKey::for_new(&data_key(1), name, [7; 32]).seal(plain)
}

/// Opens a whole object as readers do.
fn open(name: &str, stored: &[u8]) -> Result<Vec<u8>, SealedError> {
    let size = plain_size(stored.len() as u64)?;
    let header = Header::decode(stored)?;
    let key = ObjectKey::for_existing(&data_key(1), name, header)?;
    let mut plain = Vec::new();
    let mut chunks = stored[HEADER_BYTES..].chunks(SEALED_CHUNK_BYTES).peekable();
    let mut number = 0;
    while let Some(chunk) = chunks.next() {
        let mut chunk = chunk.to_vec();
        let is_last = chunks.peek().is_none();
        plain.extend_from_slice(key.open_chunk(number, is_last, &mut chunk)?);
        number += 1;
    }
    assert_eq!(plain.len() as u64, size);
    Ok(plain)
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

#[test]
fn sizes_around_whole_chunks() {
    for size in [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        3 * CHUNK_BYTES,
    ] {
        let plain = content(size);
        let stored = sealed("a/b", &plain);
        assert_eq!(stored.len() as u64, stored_size(size as u64));
        assert_eq!(plain_size(stored.len() as u64), Ok(size as u64));
        assert_eq!(open("a/b", &stored).unwrap(), plain);
        assert!(looks_sealed(&stored));
    }
    // An empty chunk after full ones, or none at all, is of no object.
    let full = HEADER_BYTES + SEALED_CHUNK_BYTES;
    for wrong in [
        0,
        HEADER_BYTES,
        HEADER_BYTES + 3,
        full + 1,
        full + TAG_BYTES,
    ] {
        assert_eq!(
            plain_size(wrong as u64),
            Err(SealedError::Size(wrong as u64))
        );
    }
}

#[test]
fn places_of_ranges() {
    let chunk = CHUNK_BYTES as u64;
    assert_eq!(chunks_of(&(0..1)), 0..1);
    assert_eq!(chunks_of(&(chunk - 1..chunk)), 0..1);
    assert_eq!(chunks_of(&(chunk - 1..chunk + 1)), 0..2);
    assert_eq!(chunks_of(&(chunk..3 * chunk)), 1..3);
    assert_eq!(stored_offset(0), HEADER_BYTES as u64);
    assert_eq!(
        stored_offset(2),
        (HEADER_BYTES + 2 * SEALED_CHUNK_BYTES) as u64
    );
}

#[test]
fn other_names_keys_and_headers_do_not_open() {
    let stored = sealed("a", b"content");
    assert_eq!(open("b", &stored), Err(SealedError::Header));
    let header = Header::decode(&stored).unwrap();
    // A key of the same name with another secret.
    let other = DataKey::new(data_key(1).id, [0; 32]);
    let wrong = ObjectKey::for_existing(&other, "a", header).err();
    assert_eq!(wrong, Some(SealedError::Header));
    assert_eq!(Header::decode(b"plain"), Err(SealedError::NotSealed));
    assert_eq!(Header::decode(&stored[..20]), Err(SealedError::Size(20)));
    let mut newer = stored;
    newer[7] = 2;
    assert_eq!(Header::decode(&newer), Err(SealedError::Version(2)));
}

#[test]
fn chunks_do_not_move() {
    let plain = content(3 * CHUNK_BYTES);
    let stored = sealed("a", &plain);
    let chunk = |number: usize| {
        let at = HEADER_BYTES + number * SEALED_CHUNK_BYTES;
        &stored[at..at + SEALED_CHUNK_BYTES]
    };
    let of = |chunks: &[usize]| {
        let mut bytes = stored[..HEADER_BYTES].to_vec();
        for number in chunks {
            bytes.extend_from_slice(chunk(*number));
        }
        bytes
    };
    assert_eq!(open("a", &of(&[0, 1, 2])).unwrap(), plain);
    // Cut at the end of a chunk, swapped, repeated, taken out, added.
    for wrong in [
        &[0, 1][..],
        &[0],
        &[1, 0, 2],
        &[0, 0, 2],
        &[0, 2],
        &[0, 1, 2, 2],
    ] {
        let error = open("a", &of(wrong)).unwrap_err();
        assert!(matches!(error, SealedError::Chunk { .. }), "{wrong:?}");
    }
    // A chunk of another object under the same data key.
    let other = ObjectKey::for_new(&data_key(1), "a", [8; 32]).seal(&plain);
    let mut mixed = stored.clone();
    let second = HEADER_BYTES + SEALED_CHUNK_BYTES..HEADER_BYTES + 2 * SEALED_CHUNK_BYTES;
    mixed[second.clone()].copy_from_slice(&other[second]);
    let plain_offset = CHUNK_BYTES as u64;
    assert_eq!(open("a", &mixed), Err(SealedError::Chunk { plain_offset }));
}

proptest! {
    #[test]
    fn no_bit_can_change(size in 0..3 * CHUNK_BYTES, at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut stored = sealed("a", &content(size));
        let at = at.index(stored.len());
        stored[at] ^= 1u8 << bit;
        prop_assert!(open("a", &stored).is_err());
    }

    #[test]
    fn nothing_can_be_cut(size in 0..3 * CHUNK_BYTES, at in any::<prop::sample::Index>()) {
        let stored = sealed("a", &content(size));
        prop_assert!(open("a", &stored[..at.index(stored.len())]).is_err());
    }

    #[test]
    fn hostile_keyrings_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(WrappedKeyring::decode(Generation::FIRST, &bytes).is_err());
    }
}

/// The form never changes: an object that was sealed once is opened by every later version.
#[test]
fn the_form_is_fixed() {
    let stored = ObjectKey::for_new(&data_key(1), "v1/a.log", [7; 32]).seal(b"content");
    assert_eq!(hex::encode(stored), FIXED);
}

/// As another implementation computes it, of HKDF and AES-GCM in Python.
const FIXED: &str = concat!(
    "077365616c6564010101010101010101070707070707070707070707070707070707070707070707",
    "0707070707070707429bc0bfa7f195d60bf760b6e9c0ce7e3548ae55b44e7fffa252a01462b93ff2",
    "3974a9a5ff4897",
);

fn encoded(keyring: &Keyring) -> Vec<u8> {
    let master = MasterKey::new(&[3; MASTER_KEY_BYTES]).unwrap();
    let wrapped: Vec<_> = keyring
        .keys()
        .iter()
        .map(|key| br_proto::encryptionpb::MasterKeyBased {
            data_key_encrypted_content: vec![
                master.seal(key.secret(), key.id.0[..1].repeat(12).try_into().unwrap()),
            ],
        })
        .collect();
    keyring
        .encode(&wrapped, vec!["local:///k".to_owned()])
        .to_vec()
}

fn reopened(generation: u32, bytes: &[u8]) -> Result<Keyring, SealedError> {
    let master = MasterKey::new(&[3; MASTER_KEY_BYTES]).unwrap();
    let wrapped = WrappedKeyring::decode(Generation(generation), bytes)?;
    let secrets: Vec<Vec<u8>> = wrapped
        .keys
        .iter()
        .map(|key| {
            master
                .open(&key.wrapped.data_key_encrypted_content[0])
                .unwrap()
        })
        .collect();
    wrapped.open(&secrets)
}

#[test]
fn keyrings_come_back() {
    let first = Keyring::new(data_key(1));
    assert_eq!(reopened(1, &encoded(&first)).unwrap(), first);
    let second = first.next(Some(data_key(2)));
    assert_eq!(second.active().id, data_key(2).id);
    let read = reopened(2, &encoded(&second)).unwrap();
    assert_eq!(read, second);
    assert_eq!(read.key(data_key(1).id), Ok(&data_key(1)));
    let unknown = data_key(9).id;
    assert_eq!(read.key(unknown), Err(SealedError::UnknownKey(unknown)));
    assert_eq!(second.next(None).active().id, data_key(2).id);
    assert_eq!(Generation(7).name(), "holdfast.keys/00000007");
    assert_eq!(
        Generation::of_name("holdfast.keys/00000007"),
        Some(Generation(7))
    );
    assert_eq!(Generation::of_name("holdfast.keys/7"), None);
}

#[test]
fn keyrings_do_not_change_unnoticed() {
    let keyring = Keyring::new(data_key(1)).next(Some(data_key(2)));
    let text = String::from_utf8(encoded(&keyring)).unwrap();
    assert!(reopened(2, text.as_bytes()).is_ok());
    // Under another number.
    assert!(matches!(
        reopened(3, text.as_bytes()),
        Err(SealedError::Keyring(_))
    ));
    let (one, two) = (data_key(1).id.to_string(), data_key(2).id.to_string());
    let changes = [
        // The older key for new objects again.
        text.replacen(&two, &one, 1),
        // Names swapped.
        text.replace(&one, "x")
            .replace(&two, &one)
            .replace('x', &two),
        text.replace("local:///k", "local:///l"),
    ];
    for changed in changes {
        assert_ne!(changed, text);
        assert!(matches!(
            reopened(2, changed.as_bytes()),
            Err(SealedError::Keyring(_))
        ));
    }
}
