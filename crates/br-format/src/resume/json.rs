//! JSON as Go's standard library writes it: bytes in base64, nothing as `null`.

use bytes::Bytes;
use serde::Serialize;

/// Types of this module have text keys only, so that they always have a JSON form.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("plain structs have a JSON form")
        .into()
}

pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) mod base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Empty bytes are written as `null`.
    pub(in crate::resume) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            [] => serializer.serialize_none(),
            _ => serializer.serialize_some(&STANDARD.encode(bytes)),
        }
    }

    pub(in crate::resume) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(Vec::new()),
            Some(text) => STANDARD.decode(text).map_err(D::Error::custom),
        }
    }
}
