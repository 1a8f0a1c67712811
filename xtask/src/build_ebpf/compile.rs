//! The build itself: cargo, then llvm-objcopy, then a look at the result.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::{object_file, record, toolchain::Toolchain, tools::Tools};
use crate::child;

const TARGET: &str = "bpfel-unknown-none";
/// Whatever this machine is: the object's hooks and structures are the same on every little-endian one.
const TARGET_ARCH: &str = "x86_64";
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Builds the object: stripped of DWARF, with BTF and line information.
pub(crate) fn compile(root: &Path, tools: &Tools) -> anyhow::Result<Vec<u8>> {
    // Away from the other builds: another compiler would throw theirs away.
    let target_directory = root.join("target/bpf");
    let remaps = remaps(root, &tools.toolchain)?;
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{TARGET_ARCH}\""),
        "-Cdebuginfo=2".to_owned(),
        // Without it bpf-linker writes no BTF.
        "-Clink-arg=--btf".to_owned(),
    ];
    flags.extend(
        remaps
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())),
    );

    let mut cargo = tools.toolchain.cargo();
    let path = env::var_os("PATH").unwrap_or_default();
    // bpf-linker comes from PATH rather than by `-C linker`: no machine path gets near the object.
    let path = [
        tools.linker_directory.clone(),
        tools.toolchain.sysroot.join("bin"),
    ]
    .into_iter()
    .chain(env::split_paths(&path));
    cargo
        .args([
            "build",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
            "--profile",
            "bpf",
        ])
        .args(["--package", "probe-ebpf", "--bin", "probe-ebpf", "--target-dir"])
        .arg(&target_directory)
        .env("PATH", env::join_paths(path)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .current_dir(root);
    child::show(&mut cargo, LIMIT)?;

    let built = target_directory.join(TARGET).join("bpf/probe-ebpf");
    let stripped = target_directory.join(record::OBJECT);
    let mut objcopy = Command::new(&tools.objcopy);
    // Relocations of the type information are for linkers: a quarter of the object that no loader reads.
    objcopy
        .args([
            "--strip-debug",
            "--remove-section=.rel.BTF",
            "--remove-section=.rel.BTF.ext",
        ])
        .arg(&built)
        .arg(&stripped);
    child::capture(&mut objcopy, Duration::from_secs(60))?;
    let object = fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))?;
    // A workspace that really is in the place that stands for it can't be told from a remapped one.
    let hidden = |from: &Path| !remaps.iter().any(|(_, to)| Path::new(to).starts_with(from));
    let places: Vec<_> = remaps
        .iter()
        .map(|(from, _)| from.as_path())
        .filter(|from| hidden(from))
        .collect();
    object_file::verify(&object, &places).with_context(|| stripped.display().to_string())?;
    Ok(object)
}

/// Directories whose names must not get into the object, and what stands for them there.
fn remaps(root: &Path, toolchain: &Toolchain) -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
    let mut cargo = toolchain.cargo();
    cargo
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root);
    let metadata = child::capture(&mut cargo, LIMIT)?;
    // The last one that matches counts: vendored sources lie inside the workspace.
    let mut remaps = vec![(root.to_path_buf(), "/probe")];
    remaps.extend(
        package_directories(&metadata)?
            .into_iter()
            .map(|directory| (directory, "/registry")),
    );
    let sources = toolchain.sources();
    // The directory may be a link: the compiler names sources now by the one, now by the other.
    if let Ok(real) = sources.canonicalize()
        && real != sources
    {
        remaps.push((real, "/rust-src"));
    }
    remaps.push((sources, "/rust-src"));
    Ok(remaps)
}

/// The directories that hold the sources of dependencies: cargo's registry, or vendored ones.
fn package_directories(metadata: &str) -> anyhow::Result<BTreeSet<PathBuf>> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).context("parse cargo metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    Ok(packages
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| Path::new(package["manifest_path"].as_str()?).parent()?.parent())
        .map(Path::to_path_buf)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_have_package_directories() {
        let metadata = r#"{"packages":[
            {"source":null,"manifest_path":"/src/probe/probe-ebpf/Cargo.toml"},
            {"source":"registry","manifest_path":"/home/a/registry/one/aya-1/Cargo.toml"},
            {"source":"registry","manifest_path":"/home/a/registry/one/zerocopy-1/Cargo.toml"}]}"#;
        let directories = package_directories(metadata).unwrap();
        assert_eq!(
            directories.into_iter().collect::<Vec<_>>(),
            [Path::new("/home/a/registry/one")]
        );
    }
}
