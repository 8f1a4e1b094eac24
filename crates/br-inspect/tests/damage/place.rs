//! A copy of golden data to damage, and what verify says of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use br_format::crypter::Crypter;
use br_inspect::verify::{Depth, Finding, Part, Verified, VerifyError, VerifyOptions, verify};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::{Backend, SealKeys, Storage};
use br_types::{Classify, Kind};
use tempfile::TempDir;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    Flip,
    Cut,
    Remove,
    Swap,
}

impl Damage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Damage::Flip => "a bit flipped",
            Damage::Cut => "cut off",
            Damage::Remove => "removed",
            Damage::Swap => "swapped with another",
        }
    }
}

/// Damage that was done, to be undone.
pub(crate) struct Done {
    pub(crate) damage: Damage,
    /// The objects that were changed.
    pub(crate) objects: Vec<String>,
    undo: Vec<(PathBuf, Vec<u8>)>,
}

impl Done {
    /// The first object as it was.
    pub(crate) fn before(&self) -> &[u8] {
        &self.undo[0].1
    }
}

/// A copy of a golden folder.
pub(crate) struct Place {
    folder: TempDir,
    crypter: Crypter,
    seal: SealKeys,
    /// Holds the files of `seal`.
    _keys: Option<TempDir>,
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), &target).unwrap()),
        }
    }
}

fn list(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap();
            found.insert(name.to_str().unwrap().to_owned());
        }
    }
}

impl Place {
    pub(crate) fn copy_of(golden: &str, crypter: Crypter) -> Place {
        let golden = Path::new("../../tests/golden/tidb-1").join(golden);
        Place::copy_of_folder(&golden, crypter)
    }

    pub(crate) fn copy_of_folder(golden: &Path, crypter: Crypter) -> Place {
        let folder = tempfile::tempdir().unwrap();
        copy(golden, folder.path());
        Place {
            crypter,
            folder,
            ..Place::empty()
        }
    }

    pub(crate) fn empty() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
            crypter: Crypter::plaintext(),
            seal: SealKeys::default(),
            _keys: None,
        }
    }

    pub(crate) fn seal_with(&mut self, seal: SealKeys, keys: TempDir) {
        self.seal = seal;
        self._keys = Some(keys);
    }

    pub(crate) fn backend(&self) -> Backend {
        let backend = Backend::Local {
            path: self.path().to_owned(),
        };
        backend.sealed(self.seal.clone())
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn objects(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        list(self.path(), self.path(), &mut found);
        found.into_iter().collect()
    }

    pub(crate) fn read(&self, object: &str) -> Vec<u8> {
        std::fs::read(self.path().join(object)).unwrap()
    }

    pub(crate) fn write(&self, object: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(object), bytes).unwrap();
    }

    /// Flips one bit.
    pub(crate) fn flip(&self, object: &str, at: usize, bit: usize) -> Done {
        let before = self.read(object);
        let mut bytes = before.clone();
        bytes[at] ^= 1 << bit;
        self.write(object, &bytes);
        self.done(Damage::Flip, vec![(object, before)])
    }

    pub(crate) fn cut(&self, object: &str, random: &mut Random) -> Done {
        let before = self.read(object);
        self.write(object, &before[..random.below(before.len())]);
        self.done(Damage::Cut, vec![(object, before)])
    }

    pub(crate) fn remove(&self, object: &str) -> Done {
        let before = self.read(object);
        std::fs::remove_file(self.path().join(object)).unwrap();
        self.done(Damage::Remove, vec![(object, before)])
    }

    pub(crate) fn swap(&self, one: &str, other: &str) -> Done {
        let (first, second) = (self.read(one), self.read(other));
        self.write(one, &second);
        self.write(other, &first);
        self.done(Damage::Swap, vec![(one, first), (other, second)])
    }

    fn done(&self, damage: Damage, before: Vec<(&str, Vec<u8>)>) -> Done {
        Done {
            damage,
            objects: before.iter().map(|(name, _)| (*name).to_owned()).collect(),
            undo: before
                .into_iter()
                .map(|(name, bytes)| (self.path().join(name), bytes))
                .collect(),
        }
    }

    pub(crate) fn undo(&self, done: Done) {
        for (path, bytes) in done.undo {
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) async fn verify(&self) -> Result<Verified, VerifyError> {
        let rt = Rt::real();
        let storage = Storage::open(&rt, &self.backend()).await.unwrap();
        let options = VerifyOptions {
            crypter: self.crypter.clone(),
            log_crypter: self.crypter.clone(),
            ..VerifyOptions::new(Depth::Checksums)
        };
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let cancel = CancellationToken::new();
        let verified = verify(&rt, &storage, None, &options, &progress, &cancel);
        Box::pin(verified).await
    }

    /// What verify finds; an error that names the object stands for a finding of everything.
    pub(crate) async fn findings(&self, done: &Done) -> Vec<Finding> {
        match self.verify().await {
            Ok(verified) => verified.findings,
            Err(error) => {
                // A backup without its index is none; encrypted, nonsense is a wrong key; a number
                // of a version may become one that is not known.
                let said = error.to_string();
                let names_it = done.objects.iter().any(|name| said.contains(name.as_str()))
                    || said.contains("no complete backup");
                assert!(
                    names_it && error.kind() == Kind::Invalid,
                    "{error}: {error:?}"
                );
                vec![Finding {
                    part: Part::Backup,
                    object: done.objects[0].clone(),
                    named_by: None,
                    problem: said,
                    tables: br_inspect::verify::LostTables::All,
                    window: None,
                }]
            }
        }
    }
}

/// Whether one of the findings names what was damaged: as damaged, or as what says how the other
/// has to be.
pub(crate) fn names(findings: &[Finding], objects: &[String]) -> bool {
    findings.iter().any(|finding| {
        objects.contains(&finding.object)
            || finding
                .named_by
                .as_ref()
                .is_some_and(|name| objects.contains(name))
    })
}
