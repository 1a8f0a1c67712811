//! `cargo xtask bench`: the engine at its full size, with optimisation: an hour of ten thousand services and a million
//! events. It fails when that takes more time or memory than promised.

use std::time::Duration;

use crate::{child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Mostly for the compiler.
const LIMIT: Duration = Duration::from_secs(1800);

pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    child::show(
        workspace::cargo()
            .args([
                "test",
                "--release",
                "--package",
                "probe-user",
                "--test",
                "engine_scale",
            ])
            .args(["--", "--nocapture", "--test-threads=1", "--ignored"]),
        LIMIT,
    )
}
