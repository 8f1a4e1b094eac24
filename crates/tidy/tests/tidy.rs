//! Checks of the tree itself: the layers look down only, files stay small, and nothing of the
//! machine that it was written on is in it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Each crate's layer, and the crates of the same layer that it may use. Every crate may use all
/// lower layers. ARCHITECTURE.md has the picture.
const LAYERS: &[(&str, u32, &[&str])] = &[
    ("br-types", 0, &[]),
    ("br-proto", 0, &[]),
    ("br-codec", 0, &["br-types"]),
    ("br-tidb", 0, &["br-types", "br-codec"]),
    ("br-sst", 0, &["br-types"]),
    ("br-format", 0, &["br-types", "br-codec", "br-proto"]),
    ("br-rt", 1, &[]),
    ("br-storage", 1, &["br-rt"]),
    ("br-cluster", 1, &["br-rt"]),
    ("br-catalog", 2, &[]),
    ("br-snapshot", 2, &["br-catalog"]),
    ("br-log", 2, &["br-catalog", "br-snapshot"]),
    ("br-store", 2, &[]),
    ("br-workload", 2, &["br-catalog"]),
    ("br-engine", 3, &[]),
    ("br-embed", 3, &["br-engine"]),
    ("br-inspect", 3, &[]),
    ("br-drill", 3, &["br-engine", "br-embed", "br-inspect"]),
    ("br", 4, &[]),
    ("bench", 5, &["test-servers"]),
    ("sim", 5, &[]),
    ("e2e", 5, &["sim"]),
    ("test-servers", 5, &[]),
    ("tidy", 0, &[]),
];

/// A file of code longer than this holds a second concept; its tests belong in `tests.rs`.
const FILE_LINES_MAX: usize = 800;

/// The tests' copies of files that the official tools made.
const GOLDEN_BYTES_MAX: u64 = 10 << 20;

fn root() -> PathBuf {
    Path::new("../..").canonicalize().unwrap()
}

/// The files that git tracks or would track.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the tree");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .lines()
        .map(|name| root().join(name))
        .filter(|path| path.is_file())
        .collect()
}

fn code() -> impl Iterator<Item = (PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
}

#[test]
fn layers_look_down_only() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let layers: BTreeMap<&str, (u32, &[&str])> = LAYERS
        .iter()
        .map(|(name, layer, same)| (*name, (*layer, *same)))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some((layer, same)) = layers.get(name) else {
            wrong.push(format!("{name} has no layer in this test"));
            continue;
        };
        seen.insert(name);
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let (Some((below, _)), true) = (layers.get(on), dependency["kind"].is_null()) else {
                continue;
            };
            if below >= layer && !same.contains(&on) {
                wrong.push(format!("{name} (layer {layer}) uses {on} (layer {below})"));
            }
            if *layer == 0 && ["tokio", "tonic", "object_store"].contains(&on) {
                wrong.push(format!("{name} is pure and uses {on}"));
            }
        }
    }
    let gone: Vec<_> = layers
        .keys()
        .filter(|name| !seen.contains(**name))
        .collect();
    assert!(
        wrong.is_empty() && gone.is_empty(),
        "{wrong:#?} gone: {gone:?}"
    );
}

#[test]
fn only_one_crate_links_rocksdb() {
    let mut users = Vec::new();
    for path in files().iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(path).unwrap();
        if text.contains("rust-rocksdb") && path.parent() != Some(&root()) {
            users.push(path.parent().unwrap().file_name().unwrap().to_owned());
        }
    }
    assert_eq!(users, ["br-engine"]);
}

#[test]
fn files_stay_small() {
    let long: Vec<_> = code()
        .filter(|(_, text)| text.lines().count() > FILE_LINES_MAX)
        .map(|(path, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn names_are_concepts() {
    let vague: Vec<_> = files()
        .into_iter()
        .filter(|path| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            matches!(
                stem,
                Some("utils" | "util" | "common" | "helpers" | "helper" | "misc")
            )
        })
        .collect();
    assert!(vague.is_empty(), "{vague:#?}");
}

#[test]
fn nothing_of_a_machine_is_in_the_tree() {
    // Put together here, so that this file does not hold the words that it looks for.
    let words = ["/wo", "/ro", "/fa", "/ho"]
        .iter()
        .zip(["rk/", "ot/", "rm/", "me/"])
        .map(|(a, b)| format!("{a}{b}"));
    let words: Vec<_> = words.collect();
    let mut wrong = Vec::new();
    for path in files() {
        let inside = path.strip_prefix(root()).unwrap().to_owned();
        if inside.starts_with("tests/golden") || inside.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {line}", inside.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Clones share compiled code, and cargo does not compile again for another path: a test that has
/// the path of its clone compiled in would look for files in the other one.
#[test]
fn paths_of_the_clone_are_not_compiled_in() {
    let name = ["CARGO_MANIFEST", "_DIR"].concat();
    let wrong: Vec<_> = code()
        .filter(|(path, text)| text.contains(&name) && !path.ends_with("tests/golden/find.rs"))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn golden_copies_stay_small() {
    let golden = root().join("tests/golden");
    let bytes: u64 = files()
        .iter()
        .filter(|path| path.starts_with(&golden))
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(bytes <= GOLDEN_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn every_error_code_has_its_page() {
    let pages = fs::read_to_string(root().join("docs/errors/README.md")).unwrap();
    let codes = fs::read_to_string(root().join("crates/br-types/src/code.rs")).unwrap();
    let missing: Vec<_> = codes
        .split('"')
        .filter(|text| text.starts_with("BR:"))
        .filter(|code| !pages.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// tokio's `select!` begins with a branch of its own choice, unless it is told not to; then a seed
/// would not give one run.
#[test]
fn selects_have_an_order() {
    let select = concat!("select", "! {");
    let mut wrong = Vec::new();
    for (path, text) in code() {
        let mut rest = text.as_str();
        while let Some((_, after)) = rest.split_once(select) {
            if !after.trim_start().starts_with("biased;") {
                wrong.push(path.display().to_string());
            }
            rest = after;
        }
    }
    assert!(wrong.is_empty(), "select without biased: {wrong:#?}");
}
