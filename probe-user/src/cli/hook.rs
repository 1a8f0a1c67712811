//! `probe hook`.

use clap::{Args, Subcommand};

use super::reach::Reach;

/// Try the hooks that are told of findings
#[derive(Debug, Args)]
pub(crate) struct Hook {
    #[command(subcommand)]
    pub(crate) command: HookCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HookCommand {
    Test(HookTest),
}

/// Send a sample finding through a hook, and say what became of it
#[derive(Debug, Args)]
#[command(after_help = "\
The daemon sends it; where none runs, or with --direct, this process does. The sample says of itself that it is one: its
summary begins with `this is a test`, and its JSON has `\"test\": true`.

Exit codes: 0 the hook took it, 1 it did not, 2 wrong usage, 7 the daemon did not answer in time.

Examples:
  probe hook test page
  probe hook test --direct --config ./probe.toml hook-1   the first hook, which has no name")]
pub(crate) struct HookTest {
    /// Name of a hook
    pub(crate) name: String,

    /// Do not ask the daemon: this process sends it, as the configuration says
    #[arg(long)]
    pub(crate) direct: bool,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}
