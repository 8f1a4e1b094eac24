/// What backupmeta records as the tool, and `--version` shows.
pub(crate) fn text() -> String {
    format!("Holdfast br v{}", env!("CARGO_PKG_VERSION"))
}

#[expect(clippy::print_stdout, reason = "it was asked for")]
pub(super) fn print() {
    println!("Release Version: v{}", env!("CARGO_PKG_VERSION"));
    println!("Tool: Holdfast br");
    println!(
        "Target: {} {}",
        std::env::consts::ARCH,
        std::env::consts::OS
    );
}
