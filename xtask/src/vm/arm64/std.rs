//! Rust's standard library for 64-bit ARM: rustup's, or Debian's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    super::{
        kernel::{self, Arch},
        mirror,
    },
    TRIPLE, unpacked,
};
use crate::{apt, child, workspace};

const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Debian's newest compiler for the same release, its cargo, and the package with the library.
const COMPILER: [&str; 2] = ["rustc-web", "cargo-web"];
const LIBRARY: &str = "libstd-rust-web-dev";

/// Variables for cargo with which it finds the library.
///
/// # Errors
/// If neither the toolchain in use has it or can get it, nor Debian.
pub(super) fn find() -> anyhow::Result<Vec<(String, String)>> {
    if has_library(&rustc()) {
        return Ok(Vec::new());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TRIPLE])
        .current_dir(workspace::root());
    match child::show(&mut rustup, LIMIT) {
        Ok(()) if has_library(&rustc()) => Ok(Vec::new()),
        outcome => {
            if let Err(error) = outcome {
                eprintln!("warning: Debian's compiler is used: {error:#}");
            }
            debian()
        }
    }
}

fn rustc() -> PathBuf {
    env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from)
}

fn has_library(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    command
        .args(["--print", "target-libdir", "--target", TRIPLE])
        .current_dir(workspace::root());
    child::capture(&mut command, Duration::from_secs(60)).is_ok_and(|d| has_std(Path::new(d.trim())))
}

fn has_std(directory: &Path) -> bool {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .any(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
}

fn debian() -> anyhow::Result<Vec<(String, String)>> {
    apt::install(&COMPILER)?;
    let rustc = Path::new("/usr/bin/rustc");
    let version = child::capture(Command::new(rustc).arg("--version"), Duration::from_secs(60))?;
    let suite = mirror::own_suite()?;
    let home = kernel::home(&suite, Arch::Arm64)?;
    // Another compiler can't read it.
    let number = version.split_whitespace().nth(1).unwrap_or("unknown");
    let kept = home.join(format!("rust-std-{number}"));
    if !has_std(&kept) {
        let files = unpacked(&suite, &home, LIBRARY)?;
        let library = ["usr/lib/rustlib", "usr/lib/rust-web/lib/rustlib"]
            .map(|p| files.path().join(p).join(TRIPLE).join("lib"));
        let Some(library) = library.iter().find(|p| has_std(p)) else {
            bail!("the package {LIBRARY} has no standard library for {TRIPLE}");
        };
        fs::rename(library, &kept).context("keep the standard library")?;
    }
    Ok(vec![
        ("RUSTC".to_owned(), rustc.display().to_string()),
        (
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS".to_owned(),
            format!("-L {}", kept.display()),
        ),
    ])
}
