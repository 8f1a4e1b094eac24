//! A backup: its indices, held against what is there and against each other.

mod files;
mod schemas;

use br_format::backupmeta::{BackupMeta, Content, MetaNode};
use br_format::kv_stats::KvStats;
use br_format::names::{BACKUP_LOCK, BACKUPMETA, BACKUPMETA_SUM, MetaKind, RESUME_FOLDER};
use br_rt::{Phase, Unit};
use br_snapshot::stored_meta;
use br_storage::{READS_OF_DAMAGED, Storage};
use br_types::Kind;

use super::error::{MISSING, Trouble, VerifyError};
use super::listing::Listing;
use super::report::{BackupLooked, Cost, Found, Part, Report};
use super::{Depth, Look};

/// Said of an index that makes no sense, if no key was given.
const MAYBE_ENCRYPTED: &str = "; if the backup is encrypted, give its key";

/// A backup under examination.
struct Examined<'a> {
    look: &'a Look<'a>,
    storage: &'a Storage,
    meta: &'a BackupMeta,
    listing: Listing,
    looked: BackupLooked,
    report: &'a mut Report,
    phase: Phase,
}

pub(super) async fn look(
    look: &Look<'_>,
    storage: &Storage,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let phase = Phase::start(look.progress, "Verify Backup", Unit::Files, 0);
    let mut listing = Listing::read(storage).await?;
    let is_begun = listing.name(BACKUP_LOCK).is_some();
    let stored = match stored_meta::read(storage).await {
        Ok(stored) => stored,
        Err(error) if error.is_not_found() => {
            return Err(VerifyError::Nothing {
                place: storage.to_string(),
                unfinished: is_begun,
            });
        }
        Err(error) => return Err(error.into()),
    };
    listing.name(BACKUPMETA);
    listing.name(BACKUPMETA_SUM);
    let looked = BackupLooked {
        head: None,
        tables: 0,
        objects: 1,
        files: 0,
        file_bytes: 0,
        sums: KvStats::default(),
        contents: super::Contents::default(),
    };
    let options = look.options;
    let decode = |stored| BackupMeta::decode(stored, &options.crypter, options.compatibility);
    let meta = match stored.and_then(decode) {
        Ok(meta) => meta,
        Err(error) => {
            let problem = match Trouble::from(error) {
                Trouble::Damage(problem) => problem,
                Trouble::End(error) => return Err(error),
            };
            let hint = match options.crypter.is_plaintext() {
                true => MAYBE_ENCRYPTED,
                false => "",
            };
            report.found.push(Found {
                part: Part::Backup,
                object: BACKUPMETA.to_owned(),
                named_by: None,
                problem: format!("{}{hint}", about(&problem, BACKUPMETA)),
                cost: Cost::All,
                window: None,
            });
            report.backup = Some(looked);
            return Ok(());
        }
    };
    let mut examined = Examined {
        look,
        storage,
        meta: &meta,
        listing,
        looked,
        report,
        phase,
    };
    examined.looked.head = Some(meta.head.clone());
    examined.policies();
    if examined.is_contradictory() {
        let problem = "it says that it is a backup of keys without schemas, and has schemas";
        examined.found(BACKUPMETA, None, problem, Cost::All);
        examined.report.is_index_broken = true;
        examined.report.backup = Some(examined.looked);
        return Ok(());
    }
    let files = examined.files().await?;
    examined.schemas(files).await?;
    examined.ddl_jobs().await?;
    examined.remains(is_begun).await?;
    examined.report.backup = Some(examined.looked);
    Ok(())
}

/// A problem without the name of the object at its beginning.
pub(super) fn about(problem: &str, object: &str) -> String {
    let rest = problem.strip_prefix(object).map(str::trim_start);
    match rest {
        Some(rest) if rest.starts_with("is ") || rest.starts_with("has ") => format!("it {rest}"),
        // A piece of it.
        Some(rest) if rest.starts_with('(') => rest.to_owned(),
        _ => problem.to_owned(),
    }
}

impl Examined<'_> {
    fn found(&mut self, object: &str, named_by: Option<&str>, problem: &str, cost: Cost) {
        self.report.found.push(Found {
            part: Part::Backup,
            object: object.to_owned(),
            named_by: named_by.map(str::to_owned),
            problem: about(problem, object),
            cost,
            window: None,
        });
    }

    /// Hands all nodes of a kind to `visit`; gives the index objects that are damaged.
    async fn each_node(
        &mut self,
        kind: MetaKind,
        mut visit: impl AsyncFnMut(&mut Self, &MetaNode) -> Result<(), VerifyError>,
    ) -> Result<Vec<Broken>, VerifyError> {
        let mut broken = Vec::new();
        let mut walk = match self.meta.walk(kind) {
            Ok(walk) => walk,
            Err(error) => match Trouble::from(error) {
                Trouble::Damage(problem) => {
                    broken.push(Broken::of(BACKUPMETA, &problem));
                    self.report.is_index_broken = true;
                    return Ok(broken);
                }
                Trouble::End(error) => return Err(error),
            },
        };
        let root = walk.root().clone();
        visit(self, &root).await?;
        while let Some(next) = walk.next_object() {
            self.look.check_cancel()?;
            let name = next.name().to_owned();
            self.looked.objects += 1;
            if self.listing.name(&name).is_none() {
                broken.push(Broken::of(&name, MISSING));
                walk.skip();
                continue;
            }
            let mut opened = Err(Trouble::Damage(MISSING.to_owned()));
            for _ in 0..READS_OF_DAMAGED {
                opened = match self.storage.read(&name).await {
                    Ok(stored) => walk.open(stored).map_err(Trouble::from),
                    Err(error) => Err(Trouble::from(error)),
                };
                if !matches!(opened, Err(Trouble::Damage(_))) {
                    break;
                }
            }
            match opened {
                Ok(node) => visit(self, &node).await?,
                Err(Trouble::Damage(problem)) => {
                    broken.push(Broken::of(&name, &problem));
                    walk.skip();
                }
                Err(Trouble::End(error)) => return Err(error),
            }
        }
        self.report.is_index_broken |= !broken.is_empty();
        Ok(broken)
    }

    fn is_contradictory(&self) -> bool {
        let has_schemas = || {
            let walk = self.meta.walk(MetaKind::Schema);
            walk.is_ok_and(|walk| {
                walk.pending().next().is_some() || walk.root().schemas().next().is_some()
            })
        };
        self.meta.head.content != Content::Tables && has_schemas()
    }

    fn policies(&mut self) {
        let is_json =
            |policy: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(policy).is_ok();
        if !self.meta.head.policies.iter().all(is_json) {
            let problem = "a placement policy in it is no JSON; it costs no rows";
            self.found(BACKUPMETA, None, problem, Cost::Nothing);
        }
    }

    /// Jobs of an incremental backup: they tell what became of tables that are gone.
    async fn ddl_jobs(&mut self) -> Result<(), VerifyError> {
        let broken = self
            .each_node(MetaKind::Ddl, async |this, node| {
                let jobs = match node.ddl_jobs() {
                    Ok(jobs) => jobs,
                    Err(error) => {
                        let problem = error.to_string();
                        this.found(node.object(), None, &problem, Cost::All);
                        return Ok(());
                    }
                };
                let is_json =
                    |job: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(job).is_ok();
                if !jobs.iter().all(is_json) {
                    let problem = "it has a DDL job that is no JSON";
                    this.found(node.object(), None, problem, Cost::All);
                }
                Ok(())
            })
            .await?;
        for object in broken {
            self.found(&object.name, Some(BACKUPMETA), &object.problem, Cost::All);
        }
        Ok(())
    }

    /// What lies there beside the backup.
    async fn remains(&mut self, is_begun: bool) -> Result<(), VerifyError> {
        let of_table = self.meta.head.content == Content::Tables;
        if !is_begun && of_table {
            // Nobody reads it, but every tool writes it.
            let text = "backup.lock is not there; nothing needs it any more";
            self.report.note(Part::Backup, text, Vec::new());
        }
        let mut unnamed = self.listing.unnamed(self.storage, |_| false).await?;
        let (resume, others): (Vec<_>, Vec<_>) = std::mem::take(&mut unnamed.names)
            .into_iter()
            .partition(|name| name.starts_with(RESUME_FOLDER));
        if !resume.is_empty() {
            let text = "what an interrupted run would have gone on from is still there; the \
                        backup is complete, so nothing needs it";
            self.report.note(Part::Backup, text, resume);
        }
        if !others.is_empty() {
            let text = format!(
                "of {} objects with {} bytes the backup knows nothing",
                unnamed.count, unnamed.bytes
            );
            self.report.note(Part::Backup, text, others);
        }
        Ok(())
    }

    fn reads_contents(&self) -> bool {
        self.look.options.depth >= Depth::Checksums
    }
}

/// An index object that is missing or damaged.
struct Broken {
    name: String,
    problem: String,
}

impl Broken {
    fn of(name: &str, problem: &str) -> Broken {
        Broken {
            name: name.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// Damage as text; everything else ends the look.
fn damage(error: br_format::backupmeta::MetaError) -> Result<String, VerifyError> {
    use br_types::Classify;
    match error.kind() {
        Kind::Data => Ok(error.to_string()),
        _ => Err(VerifyError::Meta(error)),
    }
}
