use std::collections::{BTreeMap, HashSet};

use br_format::log::migration::{DeletedSpans, MetaEdit};

use super::collect::Collected;

/// What is taken out of the log: objects as a whole where nothing of them is left, else pieces.
pub(super) fn edits(collected: &Collected) -> Vec<MetaEdit> {
    let files = collected.groups.iter().flat_map(|group| &group.files);
    let compacted: HashSet<(&str, u64)> = files
        .map(|(object, file)| (object.as_str(), file.span.offset))
        .collect();
    let mut edits = Vec::new();
    for (name, meta) in &collected.metas {
        let mut edit = MetaEdit {
            path: name.clone(),
            ..MetaEdit::default()
        };
        let (mut is_left, mut is_data_left) = (false, false);
        let mut spans: BTreeMap<&str, DeletedSpans> = BTreeMap::new();
        for group in &meta.groups {
            let is_gone = |file| collected.removed.is_file_removed(name, &group.path, file);
            let is_done = |offset| compacted.contains(&(group.path.as_str(), offset));
            let done: Vec<_> = group
                .files
                .iter()
                .filter(|file| is_done(file.span.offset))
                .map(|file| file.span)
                .collect();
            for file in &group.files {
                if !is_done(file.span.offset) && !is_gone(file) {
                    is_left = true;
                    is_data_left |= !file.identity.is_schema;
                }
            }
            let whole = group.files.iter();
            let mut whole = whole.map(|file| is_done(file.span.offset) || is_gone(file));
            if done.is_empty() {
                continue;
            }
            if whole.all(|is_out| is_out) {
                edit.delete_objects.push(group.path.clone());
            } else {
                let deleted = spans.entry(&group.path).or_insert_with(|| DeletedSpans {
                    path: group.path.clone(),
                    spans: Vec::new(),
                    whole_length: group.length,
                });
                deleted.spans.extend(done);
            }
        }
        edit.delete_spans = spans.into_values().collect();
        if edit.delete_objects.is_empty() && edit.delete_spans.is_empty() {
            continue;
        }
        edit.destruct_self = !is_left;
        edit.all_data_files_compacted = !is_data_left;
        edits.push(edit);
    }
    edits
}
