//! `Debug` of messages that carry keys or passwords: everything else is shown.

use std::fmt;

use crate::{backup, encryptionpb};

macro_rules! redacted {
    ($($message:ty { $($field:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    backup::CipherInfo { cipher_type }
    backup::S3 {
        endpoint, region, bucket, prefix, storage_class, sse, acl, force_path_style,
        sse_kms_key_id, role_arn, object_lock_enabled, provider, profile
    }
    backup::Gcs { endpoint, bucket, prefix, storage_class, predefined_acl }
    backup::AzureCustomerKey { encryption_key_sha256 }
    backup::AzureBlobStorage {
        endpoint, bucket, prefix, storage_class, account_name, encryption_scope
    }
    backup::CloudDynamic { bucket, provider_name }
    encryptionpb::AzureKms { tenant_id, client_id, key_vault_url, hsm_name, hsm_url }
    encryptionpb::GcpKms {}
    encryptionpb::AwsKms {}
}
