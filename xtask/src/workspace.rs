//! Where things are in the workspace.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::child;

/// The top directory of the workspace.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable, so a checkout that was moved after the build is found too.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// The cargo that runs this command, in the top directory of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds with the default target directory's settings.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let text = child::capture(
        cargo().args(["metadata", "--no-deps", "--format-version", "1"]),
        Duration::from_secs(60),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("parse cargo metadata")?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

/// Where downloads and tools are kept between runs, outside of the repository.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    // An empty variable counts as unset.
    let directory = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    directory("PROBE_CACHE")
        .or_else(|| Some(directory("XDG_CACHE_HOME")?.join("probe")))
        .or_else(|| Some(directory("HOME")?.join(".cache/probe")))
        .context("none of PROBE_CACHE, XDG_CACHE_HOME and HOME says where downloads are kept")
}
