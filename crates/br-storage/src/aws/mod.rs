//! What Amazon's services ask of a client beyond S3: where credentials come from, roles, keys.

mod call;
mod credentials;
mod kms;
mod profile;
mod sts;

pub(crate) use call::reason;
pub(crate) use credentials::{lasting_keys, provider};
pub use kms::{Kms, KmsDataKey, KmsError};
