use br_format::crypter::{Crypter, Method};
use br_types::TimeStamp;
use clap::Args;
use jiff::tz::TimeZone;

use super::master_key_flags::MasterKeyFlags;
use crate::{
    edge::{CommandError, Outcome},
    value::{Switch, parse_timestamp},
};

/// Flags of backup and restore.
#[derive(Args)]
pub(super) struct CommonFlags {
    /// Compare checksums with the cluster's.
    #[arg(long, global = true, default_value = "false")]
    pub(super) checksum: Switch,
    /// Checksum requests of one table at a time.
    #[arg(long, global = true, default_value = "4", value_name = "N")]
    pub(super) checksum_concurrency: usize,
    /// MiB a second and store; 0 is no limit.
    #[arg(long, global = true, default_value = "0", value_name = "N")]
    ratelimit: u64,
    /// What the rate limit counts, in bytes.
    #[arg(
        long,
        global = true,
        default_value = "1048576",
        hide = true,
        value_name = "BYTES"
    )]
    ratelimit_unit: u64,
    /// Print the summary as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) crypter: CrypterFlags,
}

impl CommonFlags {
    /// `--ratelimit` in bytes.
    pub(super) fn rate_limit_bytes_per_s(&self) -> u64 {
        self.ratelimit.saturating_mul(self.ratelimit_unit)
    }
}

/// How the backup is encrypted.
#[derive(Args)]
#[command(next_help_heading = "Encryption")]
pub(super) struct CrypterFlags {
    /// plaintext, aes128-ctr, aes192-ctr or aes256-ctr.
    #[arg(
        long = "crypter.method",
        global = true,
        default_value = "plaintext",
        value_name = "METHOD"
    )]
    crypter_method: String,
    /// The key, hexadecimal.
    #[arg(
        long = "crypter.key",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "HEX"
    )]
    crypter_key: String,
    /// A file with the key, hexadecimal.
    #[arg(
        long = "crypter.key-file",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "FILE"
    )]
    crypter_key_file: String,
}

impl CrypterFlags {
    pub(super) fn crypter(&self) -> Outcome<Crypter> {
        let (key, file) = (&self.crypter_key, &self.crypter_key_file);
        crypter("crypter", &self.crypter_method, key, file)
    }
}

/// How a log is encrypted.
#[derive(Args)]
#[command(next_help_heading = "Encryption")]
pub(super) struct LogCrypterFlags {
    /// plaintext, aes128-ctr, aes192-ctr or aes256-ctr.
    #[arg(
        long = "log.crypter.method",
        default_value = "plaintext",
        value_name = "METHOD"
    )]
    log_crypter_method: String,
    /// The key, hexadecimal.
    #[arg(
        long = "log.crypter.key",
        default_value = "",
        hide_default_value = true,
        value_name = "HEX"
    )]
    log_crypter_key: String,
    /// A file with the key, hexadecimal.
    #[arg(
        long = "log.crypter.key-file",
        default_value = "",
        hide_default_value = true,
        value_name = "FILE"
    )]
    log_crypter_key_file: String,
    #[command(flatten)]
    pub(super) master_keys: MasterKeyFlags,
}

impl LogCrypterFlags {
    pub(super) fn crypter(&self) -> Outcome<Crypter> {
        let (key, file) = (&self.log_crypter_key, &self.log_crypter_key_file);
        crypter("log.crypter", &self.log_crypter_method, key, file)
    }
}

/// The crypter of flags that begin with `prefix`.
fn crypter(prefix: &str, method: &str, key: &str, file: &str) -> Outcome<Crypter> {
    let method: Method = method.to_ascii_lowercase().parse()?;
    if method == Method::Plaintext {
        return Ok(Crypter::plaintext());
    }
    match (key, file) {
        ("", "") => Err(CommandError::invalid(
            format!("the method {method} needs a key"),
            format!("pass --{prefix}.key or --{prefix}.key-file"),
        )),
        (key, "") => Ok(Crypter::from_hex(method, key)?),
        ("", file) => {
            let text = std::fs::read(file).map_err(|error| {
                CommandError::system(format_args!("cannot read the key file {file}"), &error)
            })?;
            Ok(Crypter::from_key_file(method, &text)?)
        }
        _ => Err(CommandError::invalid(
            format!("--{prefix}.key and --{prefix}.key-file are both given"),
            "pass one of them",
        )),
    }
}

/// The timestamp of a flag; `None` if it is not given, or empty.
pub(super) fn timestamp(flag: &str, text: &str) -> Outcome<Option<TimeStamp>> {
    match text {
        "" => Ok(None),
        text => given_timestamp(flag, text).map(Some),
    }
}

/// The timestamp of a flag that is given.
pub(super) fn given_timestamp(flag: &str, text: &str) -> Outcome<TimeStamp> {
    parse_timestamp(text, &TimeZone::system()).map_err(|reason| {
        CommandError::invalid(
            format!("{flag} {text:?} is wrong: {reason}"),
            "pass a TSO number or a time such as '2026-11-21 10:17:45 +08:00'",
        )
    })
}
