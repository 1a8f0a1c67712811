//! A compiler, an LLVM and a bpf-linker that fit together.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::{
    record::Versions,
    setup,
    toolchain::{self, RustcVersion, Toolchain},
};
use crate::{apt, child, workspace};

pub(crate) const BPF_LINKER: &str = "0.13.0";
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) toolchain: Toolchain,
    /// The directory of `bpf-linker`.
    pub(crate) linker_directory: PathBuf,
    pub(crate) objcopy: PathBuf,
    pub(crate) versions: Versions,
}

/// What is not there, and the commands that bring it.
#[derive(Debug)]
pub(crate) struct Missing {
    reasons: Vec<String>,
    commands: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the eBPF toolchain is incomplete:")?;
        for reason in &self.reasons {
            writeln!(f, "  - {reason}")?;
        }
        writeln!(
            f,
            "`cargo xtask build-ebpf --setup` as root installs what is missing; by hand:"
        )?;
        for command in &self.commands {
            writeln!(f, "  {command}")?;
        }
        Ok(())
    }
}

impl Tools {
    /// Tools whose versions are `wanted` if there are such, else the first ones that fit together.
    pub(crate) fn find(root: &Path, wanted: Option<&Versions>) -> anyhow::Result<Result<Self, Missing>> {
        let (toolchains, mut reasons) = toolchain::find(minimum(root)?);
        let mut commands = Vec::new();
        if toolchains.is_empty() {
            commands.push(apt::command(&setup::COMPILER));
        }
        let mut found = Vec::new();
        for toolchain in toolchains {
            match Self::complete(toolchain)? {
                Ok(tools) => found.push(tools),
                Err(missing) => {
                    reasons.extend(missing.reasons);
                    commands.extend(missing.commands);
                }
            }
        }
        let exact = found
            .iter()
            .position(|tools| Some(&tools.versions) == wanted)
            .unwrap_or(0);
        Ok(if found.is_empty() {
            commands.dedup();
            Err(Missing { reasons, commands })
        } else {
            Ok(found.swap_remove(exact))
        })
    }

    fn complete(toolchain: Toolchain) -> anyhow::Result<Result<Self, Missing>> {
        let version = &toolchain.version;
        let objcopy = llvm_bin(version).join("llvm-objcopy");
        let linker = linker(version)?;
        let llvm = llvm_version(version);
        Ok(match (linker, llvm) {
            (Some(linker_directory), Some(llvm)) if objcopy.exists() => {
                let versions = Versions {
                    rustc: version.text.clone(),
                    rustc_llvm: version.llvm.clone(),
                    llvm,
                    bpf_linker: BPF_LINKER.to_owned(),
                };
                Ok(Self {
                    toolchain,
                    linker_directory,
                    objcopy,
                    versions,
                })
            }
            (linker, llvm) => {
                let mut missing = Missing {
                    reasons: Vec::new(),
                    commands: Vec::new(),
                };
                let llvm_packages = setup::llvm_packages(version);
                let llvm_packages: Vec<_> = llvm_packages.iter().map(String::as_str).collect();
                if llvm.is_none() || !objcopy.exists() {
                    missing.reasons.push(format!(
                        "{} wants LLVM {}, which is not in {}",
                        toolchain.origin,
                        version.llvm_major(),
                        llvm_prefix(version).display()
                    ));
                    missing.commands.push(apt::command(&llvm_packages));
                }
                if linker.is_none() {
                    missing.reasons.push(format!(
                        "bpf-linker {BPF_LINKER} for LLVM {} is neither in {} nor in PATH",
                        version.llvm_major(),
                        linker_cache(version)?.display()
                    ));
                    missing.commands.push(format!(
                        "LLVM_PREFIX={} {}",
                        llvm_prefix(version).display(),
                        child::describe(&setup::install_linker(&toolchain)?)
                    ));
                }
                Err(missing)
            }
        })
    }
}

/// The oldest compiler that builds the workspace: its `rust-version`.
pub(crate) fn minimum(root: &Path) -> anyhow::Result<(u32, u32)> {
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?
        .parse()
        .context("parse Cargo.toml")?;
    manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package")?.get("rust-version")?.as_str())
        .and_then(toolchain::major_minor)
        .context("Cargo.toml has no workspace.package.rust-version")
}

/// Where Debian puts one version of LLVM.
pub(crate) fn llvm_prefix(version: &RustcVersion) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{}", version.llvm_major()))
}

fn llvm_bin(version: &RustcVersion) -> PathBuf {
    llvm_prefix(version).join("bin")
}

fn llvm_version(version: &RustcVersion) -> Option<String> {
    // "Debian LLVM version 22.1.8"
    let mut objcopy = Command::new(llvm_bin(version).join("llvm-objcopy"));
    let text = child::capture(objcopy.arg("--version"), LIMIT).ok()?;
    parse_llvm_version(&text)
}

fn parse_llvm_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("LLVM version ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// The project's own bpf-linker for this compiler's LLVM.
pub(crate) fn linker_cache(version: &RustcVersion) -> anyhow::Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("bpf-linker-{BPF_LINKER}-llvm-{}", version.llvm_major())))
}

/// The directory of a bpf-linker of the right version: the project's own, else the first in PATH.
pub(crate) fn linker(version: &RustcVersion) -> anyhow::Result<Option<PathBuf>> {
    let own = linker_cache(version)?.join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(std::iter::once(own)
        .chain(env::split_paths(&path))
        .find(|directory| {
            let linker = directory.join("bpf-linker");
            linker.exists()
                && child::capture(Command::new(linker).arg("--version"), LIMIT)
                    .is_ok_and(|text| parse_linker_version(&text) == Some(BPF_LINKER))
        }))
}

fn parse_linker_version(text: &str) -> Option<&str> {
    text.strip_prefix("bpf-linker ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_llvm_tools() {
        let text =
            "llvm-objcopy, compatible with GNU objcopy\nDebian LLVM version 22.1.8\n  Optimized build.\n";
        assert_eq!(parse_llvm_version(text).as_deref(), Some("22.1.8"));
        assert_eq!(
            parse_llvm_version("GNU objcopy (GNU Binutils for Debian) 2.40"),
            None
        );
        assert_eq!(parse_linker_version("bpf-linker 0.13.0\n"), Some("0.13.0"));
        assert_eq!(parse_linker_version("ld 2.40"), None);
    }
}
