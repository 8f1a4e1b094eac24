//! Finds the large golden data, which lies outside of the repository: the folder that
//! `HOLDFAST_GOLDEN` names, or `shared/golden` beside the workspace. Tests that need it are
//! ignored without it.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::env;
use std::path::{Path, PathBuf};

pub(crate) fn main() {
    println!("cargo::rerun-if-env-changed=HOLDFAST_GOLDEN");
    println!("cargo::rustc-check-cfg=cfg(golden)");
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let beside = Path::new(&here).join("../../../shared/golden");
    let folder = env::var_os("HOLDFAST_GOLDEN").map_or(beside, PathBuf::from);
    println!("cargo::rerun-if-changed={}", folder.display());
    if let Ok(folder) = folder.join("tidb-1/log").canonicalize()
        && let Some(folder) = folder.parent()
    {
        println!("cargo::rustc-cfg=golden");
        println!("cargo::rustc-env=GOLDEN_TIDB_1={}", folder.display());
    }
}
