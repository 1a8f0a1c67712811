//! Debian packages, installed without letting their scripts start daemons.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::unistd::geteuid;

use crate::child;

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// invoke-rc.d and deb-systemd-invoke ask this program; exit code 101 means "do not start".
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# Made by `cargo xtask`, which removes it: the packages it installs start no daemons.\nexit 101\n";

/// Those of `packages` that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    child::capture(&mut query, Duration::from_secs(30)).is_ok_and(|status| status == "installed")
}

/// The command that a person would type.
pub(crate) fn command(packages: &[&str]) -> String {
    format!("apt-get install {}", packages.join(" "))
}

/// Installs `packages`; does nothing where all of them are installed.
///
/// # Errors
/// Names the command where we aren't root or the machine has no apt.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    match missing(packages) {
        packages if packages.is_empty() => Ok(()),
        packages => latest(&packages),
    }
}

/// Installs the newest `packages` that there are, also over older ones.
///
/// # Errors
/// Names the command where we aren't root or the machine has no apt.
pub(crate) fn latest(packages: &[&str]) -> anyhow::Result<()> {
    if !geteuid().is_root() {
        bail!(
            "packages are missing and only root can install them: {}",
            command(packages)
        );
    }
    update();
    let _policy = Policy::set()?;
    // A package that conflicts with one that is wanted here (another rustc) is not thrown out unasked.
    get(&["install", "--no-install-recommends", "--no-remove"], packages)
}

/// Downloads a package into a directory, and says where it is.
///
/// # Errors
/// Where there is no such package, or no way to it.
pub(crate) fn download(package: &str, to: &Path) -> anyhow::Result<PathBuf> {
    update();
    let mut command = Command::new("apt-get");
    // As root: the directory need not be one that apt's own user may write to.
    command
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(to);
    child::show(&mut command, LIMIT)?;
    let entries = fs::read_dir(to).with_context(|| format!("list {}", to.display()))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get left no package in {}", to.display()))
}

/// Reads the package lists, once a run: an image has none, or outdated ones that name packages which are gone or too old.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = get(&["update"], &[]) {
            // One broken repository of many; the packages may come from another.
            eprintln!("warning: {error:#}");
        }
    });
}

fn get(verb: &[&str], packages: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args([
            "-y",
            "-q",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Use-Pty=0",
        ])
        .args(verb)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    child::show(&mut command, LIMIT)
}

/// While this lives, package scripts start no daemons. A policy that the machine already has is left alone.
struct Policy {
    path: PathBuf,
    ours: bool,
}

impl Policy {
    fn set() -> anyhow::Result<Self> {
        Self::set_at(PathBuf::from(POLICY))
    }

    fn set_at(path: PathBuf) -> anyhow::Result<Self> {
        // `create_new` follows no link and never overwrites.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&path);
        let ours = match file {
            Ok(mut file) => {
                let policy = Self {
                    path: path.clone(),
                    ours: true,
                };
                file.write_all(POLICY_TEXT.as_bytes())
                    .with_context(|| format!("write {}", path.display()))?;
                return Ok(policy);
            }
            // Our own one is left from a run that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::read_to_string(&path).is_ok_and(|text| text == POLICY_TEXT)
            }
            Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
        };
        Ok(Self { path, ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(&self.path)
        {
            eprintln!("warning: remove {} by hand: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_policy_is_removed_and_a_foreign_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy-rc.d");
        let policy = Policy::set_at(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), POLICY_TEXT);
        let denied = Command::new("sh").arg(&path).status().unwrap();
        assert_eq!(denied.code(), Some(101));
        drop(policy);
        assert!(!path.exists());

        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(Policy::set_at(path.clone()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");

        fs::write(&path, POLICY_TEXT).unwrap();
        drop(Policy::set_at(path.clone()).unwrap());
        assert!(!path.exists(), "one left from a killed run is ours");
    }

    #[test]
    fn missing_names_only_what_is_not_installed() {
        assert_eq!(
            missing(&["dpkg", "no-such-package-here"]),
            ["no-such-package-here"]
        );
    }
}
