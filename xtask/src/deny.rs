//! `cargo deny`: no licence, source or crate that `deny.toml` does not allow.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{child, workspace};

const VERSION: &str = "0.20.2";
/// It is a large program.
const BUILD: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(600);

/// Checks what needs no database from elsewhere. cargo-deny is built into the cache where it is not in PATH.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut deny = match program()? {
        Some(path) => Command::new(path),
        None => Command::new(build()?),
    };
    deny.args(["check", "licenses", "bans", "sources"])
        .current_dir(workspace::root());
    child::show(&mut deny, LIMIT)
}

fn cached() -> anyhow::Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("cargo-deny-{VERSION}")))
}

/// Where it is.
fn program() -> anyhow::Result<Option<PathBuf>> {
    let own = cached()?.join("bin/cargo-deny");
    let mut candidates = vec![own];
    candidates.extend(
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .map(|directory| directory.join("cargo-deny")),
    );
    Ok(candidates.into_iter().find(|path| path.is_file()))
}

fn build() -> anyhow::Result<PathBuf> {
    let directory = cached()?;
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "install",
            "--locked",
            "--version",
            VERSION,
            "cargo-deny",
            "--root",
        ])
        .arg(&directory);
    child::show(&mut cargo, BUILD)?;
    Ok(directory.join("bin/cargo-deny"))
}
