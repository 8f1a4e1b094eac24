//! Walks over encoded protobuf without decoding it: single fields, and fields that are not known.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost::encoding::{WireType, decode_varint};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

use crate::log::LogFormatError;

/// Nesting that is followed; deeper than any published message goes.
const DEPTH_MAX: u32 = 32;

/// The bytes are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A field that stands in a message.
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    /// The content, if it is of variable length.
    pub(crate) payload: Option<&'a [u8]>,
    /// Tag, length and content.
    pub(crate) encoded: &'a [u8],
}

/// The fields of a message, in the order in which they stand there.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.rest;
        let tag = decode_varint(&mut self.rest).map_err(|_| Malformed)?;
        let tag = u32::try_from(tag).map_err(|_| Malformed)?;
        let number = tag >> 3;
        let wire_type = WireType::try_from(u64::from(tag & 7)).map_err(|_| Malformed)?;
        let mut payload = None;
        match wire_type {
            WireType::Varint => {
                decode_varint(&mut self.rest).map_err(|_| Malformed)?;
            }
            WireType::ThirtyTwoBit => {
                self.split(4)?;
            }
            WireType::SixtyFourBit => {
                self.split(8)?;
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).map_err(|_| Malformed)?;
                payload = Some(self.split(usize::try_from(length).map_err(|_| Malformed)?)?);
            }
            // Groups have not been in use for as long as these formats exist.
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        }
        if number == 0 {
            return Err(Malformed);
        }
        let encoded = start
            .get(..start.len() - self.rest.len())
            .ok_or(Malformed)?;
        Ok(Field {
            number,
            payload,
            encoded,
        })
    }

    fn split(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.take();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// A field that the published messages do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownField {
    pub(crate) message: String,
    pub(crate) number: u32,
}

/// The first unknown field anywhere in an encoded message of that type.
///
/// All of it is walked, so that [`Malformed`] comes before an unknown field: bytes that were
/// decrypted with a wrong key are the former.
pub(crate) fn unknown_field(
    message: &'static str,
    bytes: &[u8],
) -> Result<Option<UnknownField>, Malformed> {
    let known = known();
    let root = *known
        .by_name
        .get(message)
        .expect("asked for messages of the compiled protos only");
    let mut unknown = None;
    walk(known, root, bytes, DEPTH_MAX, &mut unknown)?;
    Ok(unknown)
}

/// Refuses what would be lost, or passed over, of an object of a log.
pub(crate) fn refuse_unknown(
    message: &'static str,
    object: &str,
    bytes: &[u8],
) -> Result<(), LogFormatError> {
    match unknown_field(message, bytes) {
        Ok(None) => Ok(()),
        Ok(Some(UnknownField { message, number })) => Err(LogFormatError::UnknownField {
            object: object.to_owned(),
            message,
            number,
        }),
        Err(Malformed) => Err(LogFormatError::malformed(object, "it is no protobuf")),
    }
}

fn walk(
    known: &Known,
    message: usize,
    bytes: &[u8],
    depth: u32,
    unknown: &mut Option<UnknownField>,
) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let Some(message) = known.messages.get(message) else {
        return Err(Malformed);
    };
    for field in Fields::new(bytes) {
        let field = field?;
        match (message.fields.get(&field.number), field.payload) {
            (None, _) => {
                unknown.get_or_insert_with(|| UnknownField {
                    message: message.name.clone(),
                    number: field.number,
                });
            }
            (Some(&Some(child)), Some(payload)) => walk(known, child, payload, depth, unknown)?,
            (Some(_), _) => {}
        }
    }
    Ok(())
}

/// The numbers of all fields of the messages that lie on storage, made from the descriptors once.
struct Known {
    messages: Vec<KnownMessage>,
    by_name: HashMap<String, usize>,
}

struct KnownMessage {
    name: String,
    /// By number: the message that the field holds, if it holds one.
    fields: HashMap<u32, Option<usize>>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let pool = DescriptorPool::decode(br_proto::DESCRIPTORS)
            .expect("the descriptors are compiled into the program");
        let mut known = Known {
            messages: Vec::new(),
            by_name: HashMap::new(),
        };
        for name in [
            "backup.BackupMeta",
            "backup.MetaFile",
            "backup.StatsFile",
            "backup.Metadata",
            "backup.Migration",
        ] {
            let message = pool
                .get_message_by_name(name)
                .expect("the protos have this message");
            known.add(&message);
        }
        known
    })
}

impl Known {
    fn add(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(&index) = self.by_name.get(message.full_name()) {
            return index;
        }
        let index = self.messages.len();
        self.by_name.insert(message.full_name().to_owned(), index);
        self.messages.push(KnownMessage {
            name: message.full_name().to_owned(),
            fields: HashMap::new(),
        });
        for field in message.fields() {
            let child = match field.kind() {
                Kind::Message(child) => Some(self.add(&child)),
                _ => None,
            };
            if let Some(message) = self.messages.get_mut(index) {
                message.fields.insert(field.number(), child);
            }
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use br_proto::backup::{BackupMeta, File, MetaFile};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[test]
    fn finds_an_unknown_field_however_deep() {
        let file = File {
            name: "a".into(),
            ..Default::default()
        };
        let index = MetaFile {
            meta_files: vec![file],
            ..Default::default()
        };
        let meta = BackupMeta {
            cluster_id: 1,
            file_index: Some(index),
            ..Default::default()
        };
        let bytes = meta.encode_to_vec();
        assert_eq!(unknown_field("backup.BackupMeta", &bytes), Ok(None));

        // File { name: "a", 14: 1 } within MetaFile.meta_files within BackupMeta.file_index.
        let deep = [
            13 << 3 | 2,
            7,
            1 << 3 | 2,
            5,
            1 << 3 | 2,
            1,
            b'a',
            14 << 3,
            1,
        ];
        let expected = UnknownField {
            message: "backup.File".into(),
            number: 14,
        };
        assert_eq!(
            unknown_field("backup.BackupMeta", &deep),
            Ok(Some(expected))
        );
        assert_eq!(
            unknown_field("backup.BackupMeta", &deep[..8]),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unknown_field("backup.BackupMeta", &bytes);
            let total: usize =
                Fields::new(&bytes).map_while(Result::ok).map(|field| field.encoded.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
