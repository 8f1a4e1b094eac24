//! Contents of data files: read in pairs, several at once.

use br_codec::ApiVersion;
use br_format::backupmeta::{BackupHead, Content, DataFile};
use br_rt::Phase;
use br_storage::{READS_OF_DAMAGED, Storage};
use br_tidb::table_key::table_id;
use futures::{StreamExt, TryStreamExt, stream};

use super::error::{Trouble, VerifyError};
use super::pair::{self, Form, Half, Problem};
use super::report::{Contents, Cost, Found, Part};
use super::{CONTENTS_IN_FLIGHT_MAX, Look};

/// The files of one piece.
pub(super) struct Pair {
    pub(super) files: Vec<DataFile>,
    /// Whether the index names no other, and both are there: then records and values can be
    /// related.
    pub(super) is_complete: bool,
    /// The index that they stand in.
    pub(super) named_by: String,
}

impl Pair {
    fn bytes(&self) -> u64 {
        let sizes = self.files.iter().map(|file| file.size_bytes);
        sizes.fold(0, u64::saturating_add)
    }
}

pub(super) fn form(head: &BackupHead) -> Form {
    match head.content {
        Content::Tables | Content::Txn => Form::Txn,
        Content::Raw(_) => {
            let version = ApiVersion::from_number(head.api_version as i32);
            Form::Raw(version.unwrap_or(ApiVersion::V1))
        }
    }
}

/// Reads and checks the pairs that the sample takes; what is wrong goes to `found`.
pub(super) async fn check(
    look: &Look<'_>,
    storage: &Storage,
    form: Form,
    pairs: Vec<Pair>,
    phase: &Phase,
    found: &mut Vec<Found>,
) -> Result<Contents, VerifyError> {
    let mut contents = Contents::default();
    let (taken, left): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| {
        let first = pair.files.first();
        first.is_some_and(|file| look.options.sample.takes(stem(&file.name)))
    });
    for pair in left {
        contents.skipped += pair.files.len() as u64;
        contents.skipped_bytes = contents.skipped_bytes.saturating_add(pair.bytes());
    }
    let mut checked = stream::iter(taken)
        .map(|pair| async move {
            let files = pair.files.len() as u64;
            let bytes = pair.bytes();
            let found = check_pair(look, storage, form, pair).await?;
            Ok::<_, VerifyError>((files, bytes, found))
        })
        .buffer_unordered(CONTENTS_IN_FLIGHT_MAX);
    while let Some((files, bytes, problems)) = checked.try_next().await? {
        look.check_cancel()?;
        contents.read += files;
        contents.read_bytes = contents.read_bytes.saturating_add(bytes);
        phase.advance(files, bytes);
        found.extend(problems);
    }
    Ok(contents)
}

/// What both files of a pair have in common.
pub(super) fn stem(name: &str) -> &str {
    br_format::names::parse_sst(name).map_or(name, |(stem, _)| stem)
}

async fn check_pair(
    look: &Look<'_>,
    storage: &Storage,
    form: Form,
    pair: Pair,
) -> Result<Vec<Found>, VerifyError> {
    let _room = look.room(pair.bytes()).await;
    let mut problems = Vec::new();
    for _ in 0..READS_OF_DAMAGED {
        problems = read_and_check(look, storage, form, &pair).await?;
        if problems.is_empty() {
            break;
        }
    }
    let costs: Vec<(String, Cost)> = pair.files.iter().map(cost).collect();
    let found = problems.into_iter().map(|problem| {
        let cost = costs.iter().find(|(name, _)| *name == problem.object);
        Found {
            part: Part::Backup,
            named_by: Some(pair.named_by.clone()),
            problem: problem.text,
            cost: cost.map_or(Cost::All, |(_, cost)| cost.clone()),
            object: problem.object,
            window: None,
        }
    });
    Ok(found.collect())
}

async fn read_and_check(
    look: &Look<'_>,
    storage: &Storage,
    form: Form,
    pair: &Pair,
) -> Result<Vec<Problem>, VerifyError> {
    let mut problems = Vec::new();
    let mut halves = Vec::new();
    let mut is_complete = pair.is_complete;
    for file in &pair.files {
        match storage.read(&file.name).await {
            Ok(stored) => halves.push(Half {
                file: file.clone(),
                stored,
            }),
            Err(error) => {
                let text = match Trouble::from(error) {
                    Trouble::Damage(text) => text,
                    Trouble::End(error) => return Err(error),
                };
                is_complete = false;
                problems.push(Problem {
                    object: file.name.clone(),
                    text,
                });
            }
        }
    }
    let crypter = look.options.crypter.clone();
    let checked = look
        .rt
        .blocking(move || pair::check(halves, is_complete, form, &crypter))
        .await;
    let checked = checked.map_err(|wrong| VerifyError::WrongKey {
        object: wrong.object,
    })?;
    problems.extend(checked);
    Ok(problems)
}

fn cost(file: &DataFile) -> (String, Cost) {
    (file.name.clone(), cost_of(file))
}

/// What is lost with a data file.
pub(super) fn cost_of(file: &DataFile) -> Cost {
    match table_id(file.range.start.as_bytes()) {
        Some(id) => Cost::of([id]),
        None => Cost::All,
    }
}
