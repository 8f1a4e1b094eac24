use std::path::PathBuf;

use br_drill::{Place, RehearsalOptions, Sources};
use br_format::backupmeta::Compatibility;
use br_inspect::verify::{self, Depth, Sample, Verified, VerifyOptions};
use br_storage::Storage;
use br_types::{Code, Kind};
use clap::{Args, ValueEnum};

use super::{
    common_flags::{CrypterFlags, LogCrypterFlags},
    global_flags::GlobalFlags,
    session::Session,
    storage_flags::{CloudFlags, Holds},
};
use crate::{
    edge::{CommandError, Outcome},
    summary,
};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DepthName {
    /// All objects are there with their sizes.
    Objects,
    /// The same, and contents are as they were written and make sense.
    Checksums,
    /// The same, and a restore into a cluster of its own gives what it should.
    Restore,
}

/// `br verify`.
#[derive(Args)]
pub(super) struct VerifyCommand {
    #[command(flatten)]
    places: PlaceFlags,
    /// How deep to look.
    #[arg(long, value_enum, default_value = "checksums", value_name = "DEPTH")]
    depth: DepthName,
    /// Read the contents of a share of the objects only, such as 10%; with --depth restore, also
    /// restore a share of the tables only.
    #[arg(long, value_parser = parse_percent, default_value = "100%", value_name = "PERCENT")]
    sample: u32,
    /// Another number takes another sample.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Folder for the cluster of --depth restore; without it, that of the system.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A backup and the log on top of it.
#[derive(Args)]
pub(super) struct PlaceFlags {
    /// URL of the log backup on top of the backup.
    #[arg(long, value_name = "URL")]
    log_storage: Option<String>,
    /// URL of what an incremental backup goes on from, to rehearse its restore: the full backup, and
    /// then those between in their order.
    #[arg(long = "base", value_name = "URL")]
    bases: Vec<String>,
    #[command(flatten)]
    crypter: CrypterFlags,
    #[command(flatten)]
    log_crypter: LogCrypterFlags,
    #[command(flatten)]
    cloud: CloudFlags,
}

impl PlaceFlags {
    pub(super) async fn open(&self, global: &GlobalFlags, session: &Session) -> Outcome<Sources> {
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        let log = match &self.log_storage {
            None => None,
            Some(url) => Some(global.storage.backend_at(url, &self.cloud, Holds::Log)?),
        };
        let mut bases = Vec::new();
        for url in &self.bases {
            let backend = global.storage.backend_at(url, &self.cloud, Holds::Backup)?;
            bases.push(Place {
                storage: Storage::open(&session.rt, &backend).await?,
                backend,
            });
        }
        Ok(Sources {
            bases,
            backup: Place {
                storage: Storage::open(&session.rt, &backend).await?,
                backend,
            },
            log: match log {
                None => None,
                Some(backend) => {
                    let storage = Storage::open(&session.rt, &backend).await?;
                    let keys = &self.log_crypter.master_keys;
                    Some(Place {
                        storage: keys.with_keys(storage, session).await?,
                        backend,
                    })
                }
            },
        })
    }

    pub(super) fn rehearsal(
        &self,
        global: &GlobalFlags,
        temp_dir: Option<&PathBuf>,
    ) -> Outcome<RehearsalOptions> {
        Ok(RehearsalOptions {
            crypter: self.crypter.crypter()?,
            log_crypter: self.log_crypter.crypter()?,
            compatibility: match global.cluster.check_requirements.0 {
                true => Compatibility::Strict,
                false => Compatibility::Lenient,
            },
            at: None,
            sample: Sample::all(),
            temp_dir: temp_dir.cloned().unwrap_or_else(std::env::temp_dir),
        })
    }
}

impl VerifyCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let sample = Sample::new(self.sample, self.seed);
        let rehearsal = RehearsalOptions {
            sample,
            ..self.places.rehearsal(global, self.temp_dir.as_ref())?
        };
        let options = VerifyOptions {
            sample,
            crypter: rehearsal.crypter.clone(),
            log_crypter: rehearsal.log_crypter.clone(),
            compatibility: rehearsal.compatibility,
            ..VerifyOptions::new(match self.depth {
                DepthName::Objects => Depth::Objects,
                DepthName::Checksums | DepthName::Restore => Depth::Checksums,
            })
        };
        let sources = self.places.open(global, session).await?;
        let verified = verify::verify(
            &session.rt,
            &sources.backup.storage,
            sources.log.as_ref().map(|log| &log.storage),
            &options,
            session.display.progress(),
            &session.cancel,
        );
        let verified = Box::pin(verified).await?;
        if self.depth == DepthName::Restore {
            let outcome = self.rehearse(session, &sources, &verified, rehearsal).await;
            return summary::verify::rehearsed(&verified, outcome, self.json);
        }
        summary::verify::verified(&verified, self.json);
        judge(&verified)
    }

    /// Restores what can be restored; nothing if the backup is damaged.
    async fn rehearse(
        &self,
        session: &Session,
        sources: &Sources,
        verified: &Verified,
        options: RehearsalOptions,
    ) -> Outcome<Option<br_drill::Rehearsal>> {
        let rest = &verified.restorable;
        let Some(looked) = &verified.backup else {
            return Err(br_drill::DrillError::NoBackup.into());
        };
        if let Some(reason) = &rest.apart {
            let reason = reason.clone();
            return Err(br_drill::DrillError::Apart { reason }.into());
        }
        if rest.is_backup_lost || !rest.damaged_tables.is_empty() {
            return Ok(None);
        }
        let options = RehearsalOptions {
            at: rest.until_ts,
            ..options
        };
        let (progress, cancel) = (session.display.progress(), &session.cancel);
        let done = br_drill::rehearse(&session.rt, sources, looked, &options, progress, cancel);
        Ok(Some(Box::pin(done).await?))
    }
}

/// Damage is exit status 3.
pub(crate) fn judge(verified: &Verified) -> Outcome {
    match verified.findings.len() {
        0 => match &verified.restorable.apart {
            None => Ok(()),
            Some(reason) => Err(br_drill::DrillError::Apart {
                reason: reason.clone(),
            }
            .into()),
        },
        count => Err(CommandError {
            kind: Kind::Data,
            code: Code::DATA_DAMAGED,
            cause: match count {
                1 => "an object is missing or damaged".to_owned(),
                n => format!("{n} objects are missing or damaged"),
            },
            next_step: Some("see above what it costs and what can still be restored".into()),
        }),
    }
}

/// A percentage as parts of a million.
fn parse_percent(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent: f64 = number
        .parse()
        .map_err(|_| "a share is written as 10%".to_owned())?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err("a share is more than 0% and at most 100%".to_owned());
    }
    Ok(((percent * 10_000.0).round() as u32).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_in_percent() {
        for (text, parts) in [
            ("10%", Some(100_000)),
            ("10", Some(100_000)),
            ("0.5%", Some(5_000)),
            ("100%", Some(1_000_000)),
            ("0.00001%", Some(1)),
            ("0%", None),
            ("101%", None),
            ("-1%", None),
            ("NaN", None),
            ("ten", None),
            ("", None),
        ] {
            assert_eq!(parse_percent(text).ok(), parts, "{text}");
        }
    }
}
