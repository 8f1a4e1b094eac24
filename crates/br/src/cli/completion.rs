use clap::Args;
use clap_complete::Shell;

/// `br completion`.
#[derive(Args)]
pub(super) struct CompletionCommand {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(command: &CompletionCommand) {
    let mut tree = super::command();
    clap_complete::generate(command.shell, &mut tree, "br", &mut std::io::stdout());
}
