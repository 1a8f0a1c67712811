//! `probe completions`.

use clap::{Args, ValueEnum};

/// Print a script that has a shell complete commands and options
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  probe completions bash > /etc/bash_completion.d/probe
  probe completions zsh > /usr/share/zsh/vendor-completions/_probe
  probe completions fish > /usr/share/fish/vendor_completions.d/probe.fish")]
pub(crate) struct Completions {
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}
