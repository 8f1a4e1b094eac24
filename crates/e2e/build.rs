//! Finds what only some machines have and tests want: large golden data, and a cluster with TiDB that
//! the user names.

#[path = "../../tests/golden/find.rs"]
mod golden;

#[allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]
fn main() {
    golden::main();
    println!("cargo::rerun-if-env-changed=E2E_TIDB");
    println!("cargo::rustc-check-cfg=cfg(tidb)");
    if std::env::var_os("E2E_TIDB").is_some_and(|address| !address.is_empty()) {
        println!("cargo::rustc-cfg=tidb");
    }
}
