//! `probe completions`.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::{self, Cli, Completions};

pub(crate) fn run(args: &Completions) -> anyhow::Result<()> {
    let shell = match args.shell {
        cli::Shell::Bash => Shell::Bash,
        cli::Shell::Zsh => Shell::Zsh,
        cli::Shell::Fish => Shell::Fish,
    };
    // Written at once: `generate` knows no errors of writing.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "probe", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}
