//! A small Debian with systemd, made by debootstrap from the mirror that this machine's apt is configured with, and kept in
//! the cache directory as the beginning of an initial file system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use super::{kernel, mirror};
use crate::{apt, child, workspace};

const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long one is used before it is made anew.
const FRESH: Duration = Duration::from_secs(30 * 24 * 3600);

/// What it has beyond Debian's smallest selection.
const PACKAGES: [&str; 5] = [
    "systemd-sysv",
    "dbus",
    // Service managers of users, and their buses.
    "libpam-systemd",
    "dbus-user-session",
    // The kill and ps that administrators use.
    "procps",
];

/// What nobody reads in a machine without people.
const UNREAD: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/common-licenses",
    "usr/share/bash-completion",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Units that only take time: nobody logs in, nothing is updated, and there is no disk.
const MASKED: [&str; 10] = [
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-pstore.service",
    "remote-fs.target",
    "proc-sys-fs-binfmt_misc.automount",
];

/// The archive of the whole file system, in the format that the kernel unpacks; from the cache where it is fresh.
///
/// The suite is this machine's own, so that programs that were built here find the libraries that they were built with.
///
/// # Errors
/// Without root, or if no mirror has the suite.
pub(super) fn archive() -> anyhow::Result<PathBuf> {
    let suite = mirror::own_suite()?;
    let home = workspace::cache()?.join("vm").join(&suite);
    let kept = home.join(format!("userland-{}.cpio", recipe()));
    if kernel::age(&kept).is_some_and(|age| age < FRESH) {
        return Ok(kept);
    }
    match make(&suite, &home, &kept) {
        Err(error) if kept.is_file() => eprintln!("warning: the cached userland is used: {error:#}"),
        made => made.with_context(|| format!("make a userland of {suite}"))?,
    }
    Ok(kept)
}

/// Changes with what it is made from.
fn recipe() -> String {
    let mut digest = Sha256::new();
    for word in PACKAGES.iter().chain(&UNREAD).chain(&MASKED) {
        digest.update(word);
        digest.update("\n");
    }
    digest.finalize()[..6]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn make(suite: &str, home: &Path, kept: &Path) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "only root can run debootstrap");
    apt::install(&["debootstrap"])?;
    fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
    let work = tempfile::tempdir_in(home).context("make a directory in the cache")?;
    let root = work.path().join("root");
    println!("systemd: making a userland of {suite}");
    bootstrap(&root, &PACKAGES)?;
    tidy(&root)?;
    let new = work.path().join("cpio");
    pack(&root, &new)?;
    remove_others(home);
    fs::rename(&new, kept).context("keep the userland")
}

/// Makes the smallest Debian of this machine's suite that has `packages` too, in the directory `root`.
///
/// # Errors
/// Without root, or if no mirror has the suite.
pub(crate) fn bootstrap(root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let suite = mirror::own_suite()?;
    let mut problem = anyhow::anyhow!("apt is configured with no mirror of this distribution");
    for mirror in mirror::mirrors()? {
        match bootstrap_from(&suite, root, packages, &mirror) {
            Ok(()) => return Ok(()),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn bootstrap_from(suite: &str, root: &Path, packages: &[&str], mirror: &str) -> anyhow::Result<()> {
    // What it mounts below the new root goes away with its name space, also when it is killed.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", packages.join(",")));
    if Path::new(mirror::KEYRING).is_file() {
        command.arg(format!("--keyring={}", mirror::KEYRING));
    }
    child::capture(command.arg(suite).arg(root).arg(mirror), LIMIT)?;
    Ok(())
}

/// Takes out what only makes the archive larger and the boot longer.
fn tidy(root: &Path) -> anyhow::Result<()> {
    for unread in UNREAD {
        let path = root.join(unread);
        if path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for directory in ["partial", "auxfiles"].map(|d| root.join("var/lib/apt/lists").join(d)) {
        fs::create_dir_all(directory)?;
    }
    for unit in MASKED {
        std::os::unix::fs::symlink("/dev/null", root.join("etc/systemd/system").join(unit))
            .with_context(|| format!("mask {unit}"))?;
    }
    // With a number of its own the boot is none of a new machine's, which would have its presets applied.
    fs::write(root.join("etc/machine-id"), "70726f62650000000000000000000000\n")?;
    fs::write(root.join("etc/hostname"), "guest\n")?;
    fs::write(
        root.join("etc/hosts"),
        "127.0.0.1 localhost guest\n::1 localhost\n",
    )?;
    Ok(())
}

fn pack(root: &Path, to: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("busybox");
    command
        .args([
            "sh",
            "-c",
            "busybox find . -xdev | busybox cpio -o -H newc > \"$0\"",
        ])
        .arg(to)
        .current_dir(root);
    child::capture(&mut command, LIMIT)?;
    let size = fs::metadata(to)?.len();
    ensure!(size > 1 << 20, "the archive has only {size} bytes");
    Ok(())
}

/// Those of other recipes.
fn remove_others(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("userland-") {
            // One that can't be removed is only in the way of nothing.
            let _ = fs::remove_file(entry.path());
        }
    }
}
