//! `br verify` and `br drill` as operators see them: what is said, and the exit status.

use std::path::{Path, PathBuf};

use crate::{br, dir};

fn golden(folder: &str) -> PathBuf {
    let golden = Path::new("../../tests/golden/tidb-1").join(folder);
    golden.canonicalize().expect("a golden folder")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).expect("a copy")),
        }
    }
}

fn url(path: &Path) -> String {
    format!("local://{}", path.display())
}

#[test]
fn a_whole_backup_ends_with_0_and_a_log_with_lost_objects_with_3() {
    let dir = dir();
    // Of the log only small objects are in this repository.
    let (full, log) = (url(&golden("full")), url(&golden("log")));
    let (code, said, errors) = br(dir.path(), &["verify", "-s", &full]);
    assert_eq!(code, 0, "{said}{errors}");
    assert!(said.contains("nothing is missing or damaged"), "{said}");
    assert!(said.contains("Can be restored: all of it."), "{said}");
    let args = [
        "verify",
        "-s",
        &full,
        "--log-storage",
        &log,
        "--depth",
        "objects",
        "--json",
    ];
    let (code, said, _) = br(dir.path(), &args);
    assert_eq!(code, 3);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let damage = said["damage"].as_array().expect("a list");
    let of_log = damage
        .iter()
        .all(|one| one["part"] == "log" && one["window"]["from"]["tso"].is_u64());
    assert!(of_log && damage.len() > 5, "{damage:#?}");
    assert_eq!(
        said["restorable"]["from"]["tso"],
        470_613_951_976_046_597_u64
    );
    assert_eq!(
        said["restorable"]["log_end"]["tso"],
        470_613_990_642_548_738_u64
    );
    assert!(said["restorable"]["until"]["tso"].as_u64() < Some(470_613_990_642_548_738));
}

#[test]
fn damage_ends_with_3_and_tells_what_it_costs() {
    let dir = dir();
    let place = dir.path().join("b");
    copy(&golden("table-snappy"), &place);
    let folder = std::fs::read_dir(&place).expect("a folder");
    let folder = folder
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.is_dir());
    let mut files: Vec<_> = std::fs::read_dir(folder.expect("a store"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let file = files.last().expect("a data file");
    let name = file
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let mut bytes = std::fs::read(file).expect("bytes");
    bytes[10] ^= 4;
    std::fs::write(file, &bytes).expect("it is written");
    let (code, said, errors) = br(dir.path(), &["verify", "-s", &url(&place)]);
    assert_eq!(code, 3, "{said}{errors}");
    assert!(
        said.contains(&name) && said.contains("costs bank.accounts"),
        "{said}"
    );
    assert!(said.contains("all tables but bank.accounts"), "{said}");
    assert!(errors.contains("[BR:Common:ErrDataDamaged]"), "{errors}");
    // Sizes alone do not show it, and a drill that restores does.
    let (code, ..) = br(
        dir.path(),
        &["verify", "-s", &url(&place), "--depth", "objects"],
    );
    assert_eq!(code, 0);
    let (code, said, errors) = br(dir.path(), &["drill", "-s", &url(&place)]);
    assert_eq!(code, 3, "{said}{errors}");
    let (code, said, _) = br(dir.path(), &["verify", "-s", &url(&place), "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(code, 3);
    assert_eq!(
        said["damage"][0]["tables"],
        serde_json::json!(["bank.accounts"])
    );
}

#[test]
fn wrong_input_ends_with_2() {
    let dir = dir();
    let encrypted = url(&golden("db-aes256"));
    let wrong = "ff".repeat(32);
    let interrupted = url(&golden("interrupted"));
    for (args, told) in [
        (vec!["-s", "local:///nowhere/at/all"], "/nowhere/at/all"),
        (vec!["-s", &interrupted], "did not end"),
        (
            vec![
                "-s",
                &encrypted,
                "--crypter.method",
                "aes256-ctr",
                "--crypter.key",
                &wrong,
            ],
            "this key and method",
        ),
        (vec!["-s", &encrypted], "no key was given"),
        (vec!["-s", &encrypted, "--sample", "0%"], "more than 0%"),
        (vec!["-s", &encrypted, "--depth", "deep"], "deep"),
    ] {
        let args = [&["verify"][..], &args].concat();
        let (code, said, errors) = br(dir.path(), &args);
        assert_eq!(code, 2, "{args:?} {said}{errors}");
        assert!(errors.contains(told), "{args:?} {errors}");
    }
}
