//! Finds the servers that `scripts/install-test-servers` installed. Tests that need one which is
//! not there are ignored and say how to install it.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn main() {
    println!("cargo::rerun-if-env-changed=HOLDFAST_SERVERS");
    let home = env::var_os("HOME").unwrap_or_default();
    let folder = env::var_os("HOLDFAST_SERVERS").map_or_else(
        || Path::new(&home).join(".cache/holdfast/servers/bin"),
        PathBuf::from,
    );
    // A folder that is not there would make cargo run this each time; without the right to make
    // it, so be it.
    let _ = fs::create_dir_all(&folder);
    println!("cargo::rerun-if-changed={}", folder.display());
    for (name, cfg) in [
        ("moto", "moto"),
        ("azurite", "azurite"),
        ("fake-gcs-server", "fake_gcs"),
    ] {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if folder.join(name).is_file() {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}
