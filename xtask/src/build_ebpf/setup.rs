//! Installs what an eBPF build needs: the distribution's compiler with its sources, its LLVM, and bpf-linker.

use std::{env, path::Path, process::Command, time::Duration};

use anyhow::Context;

use super::{
    record::Versions,
    toolchain::{self, RustcVersion, Toolchain},
    tools::{self, BPF_LINKER},
};
use crate::{apt, child};

/// The compiler, its cargo, and the sources of its standard library.
pub(crate) const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

const LINKER_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What bpf-linker is built from. The compiler decides which LLVM it must be: the two exchange bitcode.
pub(crate) fn llvm_packages(version: &RustcVersion) -> Vec<String> {
    let llvm = version.llvm_major();
    let mut packages = vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    packages.extend(["zlib1g-dev", "libzstd-dev", "g++"].map(str::to_owned));
    packages
}

/// Installs what is missing.
///
/// Prefers the compiler that the committed object was built with: only it can show that the object is right.
pub(crate) fn install(root: &Path, wanted: Option<&Versions>) -> anyhow::Result<()> {
    let minimum = tools::minimum(root)?;
    let fits = |toolchain: &Toolchain| wanted.is_none_or(|wanted| wanted.rustc == toolchain.version.text);
    let (mut toolchains, _) = toolchain::find(minimum);
    if !toolchains.iter().any(fits) {
        // One that is installed may be too old.
        let installed = apt::latest(&COMPILER);
        let reasons;
        (toolchains, reasons) = toolchain::find(minimum);
        if toolchains.is_empty() {
            installed?;
            anyhow::bail!("no compiler can build eBPF programs: {}", reasons.join("; "));
        }
    }
    let chosen = toolchains.iter().position(fits).unwrap_or(0);
    let toolchain = toolchains.swap_remove(chosen);
    let version = &toolchain.version;
    let linker_is_there = tools::linker(version)?.is_some();
    if !linker_is_there || !tools::llvm_prefix(version).join("bin/llvm-objcopy").exists() {
        let packages = llvm_packages(version);
        apt::install(&packages.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if !linker_is_there {
        child::show(&mut install_linker(&toolchain)?, LINKER_LIMIT)
            .with_context(|| format!("install bpf-linker {BPF_LINKER}"))?;
    }
    Ok(())
}

/// Builds bpf-linker into the project's own cache directory.
pub(crate) fn install_linker(toolchain: &Toolchain) -> anyhow::Result<Command> {
    let version = &toolchain.version;
    let mut cargo = toolchain.cargo();
    cargo
        .args([
            "install",
            "--locked",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--no-default-features",
            "--features",
        ])
        .arg(format!("llvm-{}", version.llvm_major()))
        .arg("--root")
        .arg(tools::linker_cache(version)?)
        .env_remove("RUSTC_BOOTSTRAP")
        .env("LLVM_PREFIX", tools::llvm_prefix(version))
        // The workspace's own cargo settings are no business of another project's build.
        .current_dir(env::temp_dir());
    Ok(cargo)
}
