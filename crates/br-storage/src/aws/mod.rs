//! What Amazon's services ask of a client beyond S3: where credentials come from, roles, keys.

mod credentials;
mod kms;
mod metadata;
mod process;
mod profile;
mod sts;

use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::HttpRequest,
};

use crate::Failure;

pub(crate) use credentials::{lasting_keys, provider};
pub use kms::{Kms, KmsDataKey, KmsError};

/// Signs a request to a service.
fn sign(
    request: &mut HttpRequest,
    credential: &AwsCredential,
    service: &str,
    region: &str,
) -> Result<(), Failure> {
    AwsAuthorizer::new(credential, service, region).try_authorize(request, None)?;
    Ok(())
}
