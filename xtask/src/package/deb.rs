//! The Debian package, as `[package.metadata.deb]` in probe-user/Cargo.toml describes it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{apt, child, workspace};

const CARGO_DEB: &str = "3.8.0";
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Finds out which packages the program's libraries are in.
const PACKAGES: [&str; 2] = ["dpkg-dev", "xz-utils"];

/// Packages what was built with that profile. `revision` is what follows the program's own version.
pub(super) fn build(revision: &str, profile: &str) -> anyhow::Result<PathBuf> {
    apt::install(&PACKAGES)?;
    let program = cargo_deb()?;
    // cargo-deb removes packages of other revisions that lie where it writes.
    let directory = workspace::target_dir()?.join("debian").join(revision);
    let mut command = Command::new(&program);
    command
        .args(["--package", "probe-user", "--no-build", "--profile", profile])
        .args(["--deb-revision", revision, "--output"])
        .arg(&directory)
        .current_dir(workspace::root());
    if profile == "dev" {
        // Nobody downloads it.
        command.arg("--fast");
    }
    let output = child::capture(&mut command, LIMIT).context("package the program")?;
    // It prints the path alone.
    let path = output.lines().last().unwrap_or_default();
    Ok(workspace::root().join(path))
}

/// cargo-deb in the project's own cache directory; built there where it is not yet.
fn cargo_deb() -> anyhow::Result<PathBuf> {
    let root = workspace::cache()?.join(format!("cargo-deb-{CARGO_DEB}"));
    let program = root.join("bin/cargo-deb");
    if !program.exists() {
        child::show(&mut install(&root), LIMIT).with_context(|| format!("install cargo-deb {CARGO_DEB}"))?;
    }
    Ok(program)
}

fn install(root: &Path) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "--locked", "cargo-deb", "--version", CARGO_DEB])
        // xz does the work; built for speed it would take longer than it ever runs.
        .args(["--no-default-features", "--debug", "--root"])
        .arg(root)
        // The workspace's own cargo settings are no business of another project's build.
        .current_dir(env::temp_dir());
    cargo
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn debian_s_changelog_names_this_version() {
        let path = workspace::root().join("packaging/debian/changelog");
        let changelog = fs::read_to_string(&path).unwrap();
        let wanted = concat!("probe (", env!("CARGO_PKG_VERSION"), "-1) ");
        assert!(changelog.starts_with(wanted), "{wanted}: {changelog}");
    }
}
