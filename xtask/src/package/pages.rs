//! What the program says of itself: manual pages and completions, for the package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{child, workspace};

const LIMIT: Duration = Duration::from_secs(60);
/// Where each shell looks for the file of that name.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "probe"), ("zsh", "_probe"), ("fish", "probe.fish")];

/// Where the package's description looks for them: not below a target directory that was chosen otherwise.
fn directory() -> PathBuf {
    workspace::root().join("target/package")
}

/// Has the program write them.
pub(super) fn write(probe: &Path) -> anyhow::Result<()> {
    let (pages, scripts) = (directory().join("man"), directory().join("completions"));
    for made in [&pages, &scripts] {
        // A page of a command that is no more would be packaged too.
        if made.exists() {
            fs::remove_dir_all(made).with_context(|| format!("remove {}", made.display()))?;
        }
        fs::create_dir_all(made).with_context(|| format!("create {}", made.display()))?;
    }
    child::capture(Command::new(probe).arg("man").arg(&pages), LIMIT)?;
    let configuration = child::capture(
        Command::new(probe).args(["config", "schema", "--format", "man"]),
        LIMIT,
    )?;
    fs::write(pages.join("probe.toml.5"), configuration).context("write probe.toml.5")?;
    for (shell, name) in COMPLETIONS {
        let script = child::capture(Command::new(probe).args(["completions", shell]), LIMIT)?;
        fs::write(scripts.join(name), script).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}
