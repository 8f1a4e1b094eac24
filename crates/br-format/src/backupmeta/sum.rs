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
/// [`MetaError::Malformed`]: one of the two has changed.
pub fn check_sum(stored: &[u8], sum: &[u8]) -> Result<(), MetaError> {
    match sum_of(stored).bytes == sum {
        true => Ok(()),
        false => Err(MetaError::malformed(
            BACKUPMETA,
            format!("it does not have the SHA-256 that {BACKUPMETA_SUM} says"),
        )),
    }
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
        assert!(check_sum(b"mets", &sum.bytes).is_err());
        assert!(check_sum(b"meta", &sum.bytes[1..]).is_err());
    }
}
