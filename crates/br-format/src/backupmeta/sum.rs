//! `backupmeta.sha256`: the sum of `backupmeta`, which has none of its own, in the form that
//! `sha256sum --check` reads. Other tools neither write it nor mind it.

use sha2::{Digest as _, Sha256};

use super::MetaError;
use crate::Object;
use crate::names::{BACKUPMETA, BACKUPMETA_SUM};

/// The object for these stored bytes of `backupmeta`.
pub fn sum_of(stored: &[u8]) -> Object {
    let hex = hex::encode(Sha256::digest(stored));
    Object {
        name: BACKUPMETA_SUM.to_owned(),
        bytes: format!("{hex}  {BACKUPMETA}\n").into(),
    }
}

/// Holds the stored bytes of `backupmeta` against what `backupmeta.sha256` says.
///
/// # Errors
/// [`MetaError::Checksum`]: `backupmeta` is another one than was summed. [`MetaError::Malformed`]:
/// there is no sum in its object.
pub fn check_sum(stored: &[u8], sum: &[u8]) -> Result<(), MetaError> {
    let found = sum_of(stored).bytes;
    if found == sum {
        return Ok(());
    }
    match (digits(sum), digits(&found)) {
        (Some(expected), Some(found)) if expected != found => Err(MetaError::Checksum {
            object: BACKUPMETA.to_owned(),
            expected,
            found,
        }),
        _ => Err(MetaError::malformed(BACKUPMETA_SUM, "it is not a sum")),
    }
}

/// The sum in an object of [`sum_of`].
fn digits(sum: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(sum).ok()?;
    let (digits, name) = text.strip_suffix('\n')?.split_once("  ")?;
    let is_sum = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_sum && name == BACKUPMETA).then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_changed_is_noticed() {
        let sum = sum_of(b"meta");
        assert_eq!(sum.name, "backupmeta.sha256");
        assert_eq!(
            sum.bytes,
            "ea3bd73e2b506e00527232b3ed743c066da83a8e3066f62a71e75eb9b4aa1db6  backupmeta\n"
        );
        assert_eq!(check_sum(b"meta", &sum.bytes), Ok(()));
        let changed = check_sum(b"mets", &sum.bytes).unwrap_err();
        assert!(matches!(changed, MetaError::Checksum { .. }), "{changed}");
        for at in 0..sum.bytes.len() {
            let cut = check_sum(b"meta", &sum.bytes[..at]).unwrap_err();
            assert!(matches!(cut, MetaError::Malformed { .. }), "{cut}");
            let mut flipped = sum.bytes.to_vec();
            flipped[at] ^= 4;
            assert!(check_sum(b"meta", &flipped).is_err(), "byte {at}");
        }
    }
}
