//! One file that runs on any Linux of this architecture: linked with musl.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, ensure};

use super::{Args, LIMIT};
use crate::{apt, child, workspace};

const TRIPLE: &str = "x86_64-unknown-linux-musl";
/// musl's compiler: SQLite is written in C.
const PACKAGES: [&str; 2] = ["musl-tools", "binutils"];

/// The compiler and the standard library for it.
fn prepare() -> anyhow::Result<()> {
    apt::install(&PACKAGES)?;
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TRIPLE])
        .current_dir(workspace::root());
    child::show(&mut rustup, LIMIT).with_context(|| {
        format!("Rust's standard library for {TRIPLE} is missing, and Debian has no package of it")
    })
}

/// Whether it compiles: what glibc alone has is soon used, and nobody else would notice. Where it cannot be tried, that is said.
pub(super) fn check() -> anyhow::Result<()> {
    if let Err(error) = prepare() {
        println!("skipped: whether the static program compiles: {error:#}");
        return Ok(());
    }
    let mut cargo = workspace::cargo();
    cargo.args([
        "check",
        "--package",
        "probe-user",
        "--bin",
        "probe",
        "--target",
        TRIPLE,
    ]);
    child::show(&mut cargo, LIMIT)
}

pub(super) fn build(args: &Args) -> anyhow::Result<PathBuf> {
    prepare()?;
    child::show(args.cargo().args(["--target", TRIPLE]), LIMIT)?;
    let program = workspace::target_dir()?
        .join(TRIPLE)
        .join(args.directory())
        .join("probe");
    let mut readelf = Command::new("readelf");
    let dynamic = child::capture(
        readelf.args(["--dynamic", "--program-headers"]).arg(&program),
        Duration::from_secs(60),
    )?;
    ensure!(
        !dynamic.contains("(NEEDED)") && !dynamic.contains("INTERP"),
        "{} needs libraries: {dynamic}",
        program.display()
    );
    Ok(program)
}
