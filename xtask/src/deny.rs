//! `cargo deny`: no licence, source or crate that `deny.toml` does not allow, and none that has a known hole.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{child, workspace};

const VERSION: &str = "0.20.2";
/// It is a large program.
const BUILD: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(600);

/// For the database of advisories, which lies elsewhere.
const FETCH: Duration = Duration::from_secs(120);

/// Checks what needs nothing from elsewhere, then the advisories, where their database can be had; where not, that is said.
/// cargo-deny is built into the cache where it is not in PATH.
pub(crate) fn check() -> anyhow::Result<()> {
    let program = match program()? {
        Some(path) => path,
        None => build()?,
    };
    let deny = |args: &[&str]| {
        let mut deny = Command::new(&program);
        deny.args(args).current_dir(workspace::root());
        deny
    };
    child::show(&mut deny(&["check", "licenses", "bans", "sources"]), LIMIT)?;
    if let Err(error) = child::capture(&mut deny(&["fetch", "db"]), FETCH) {
        println!("skipped: advisories: their database cannot be had: {error:#}");
        return Ok(());
    }
    child::show(&mut deny(&["check", "--disable-fetch", "advisories"]), LIMIT)
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
