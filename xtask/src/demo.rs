//! `cargo xtask demo`: `probe watch` beside a small daemon that fails in several ways, in under 30 seconds.

mod daemon;
mod script;
mod watcher;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use nix::unistd::geteuid;

use self::{script::STEPS, watcher::Watcher};
use crate::{child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {}

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The daemon that is watched, and where it lives; short enough for the address of a socket.
const SERVICE: &str = "demo";

pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    ensure!(
        geteuid().is_root(),
        "`probe watch` loads eBPF programs and needs root: sudo env PATH=$PATH cargo xtask demo"
    );
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--package",
        "probe-user",
        "--package",
        "probe-tests",
        "--bins",
    ]);
    child::show(&mut cargo, BUILD_LIMIT)?;
    let binaries = workspace::target_dir()?.join("debug");

    let directory = tempfile::Builder::new()
        .prefix("probe-demo-")
        .tempdir()
        .context("make a directory")?;
    let stage = Stage {
        faulty: binaries.join("faulty"),
        directory: directory.path(),
    };
    let config = directory.path().join("probe.toml");
    fs::write(&config, stage.config()?).with_context(|| format!("write {}", config.display()))?;

    caption("probe watch begins; the daemon does not run yet");
    let mut watcher = Watcher::start(&binaries.join("probe"), &config)?;
    let mut company = script::Company::default();
    let mut unseen = Vec::new();
    for step in STEPS {
        ensure!(!child::interrupted(), "interrupted");
        caption(step.caption);
        (step.act)(&stage, &mut company)?;
        unseen.extend(
            watcher
                .expect(step.findings)?
                .into_iter()
                .map(|kind| format!("{kind} ({})", step.caption)),
        );
    }
    caption("the end: the daemon and probe are stopped");
    // probe goes first: the end of the demo is not a crash to be reported.
    watcher.stop()?;
    ensure!(unseen.is_empty(), "probe did not report: {}", unseen.join("; "));
    Ok(())
}

/// Where the play is given.
struct Stage<'a> {
    faulty: std::path::PathBuf,
    directory: &'a Path,
}

impl Stage<'_> {
    fn socket(&self) -> std::path::PathBuf {
        self.directory.join("demo.sock")
    }

    fn pid_file(&self) -> std::path::PathBuf {
        self.directory.join("demo.pid")
    }

    /// What an administrator would declare of the daemon; the waits are short, because this is a demonstration.
    fn config(&self) -> anyhow::Result<String> {
        let text = |path: std::path::PathBuf| toml::Value::from(path.to_string_lossy().into_owned());
        let mut service = toml::Table::new();
        service.insert("name".into(), SERVICE.into());
        service.insert("exe".into(), text(self.faulty.clone()));
        service.insert("pid_file".into(), text(self.pid_file()));
        service.insert(
            "listen".into(),
            vec![format!("unix:{}", self.socket().display())].into(),
        );
        service.insert("expected".into(), false.into());
        service.insert("ready_within".into(), "1s".into());
        service.insert("overlap".into(), "1s".into());
        let mut config = toml::Table::new();
        config.insert("service".into(), vec![toml::Value::Table(service)].into());
        toml::to_string(&config).context("write the configuration")
    }
}

fn caption(text: &str) {
    child::print(&format!("\n== {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_declares_the_daemon() {
        let stage = Stage {
            faulty: "/build/faulty".into(),
            directory: Path::new("/tmp/d"),
        };
        let config: toml::Table = stage.config().unwrap().parse().unwrap();
        let service = &config["service"][0];
        assert_eq!(service["listen"][0].as_str(), Some("unix:/tmp/d/demo.sock"));
        assert_eq!(service["exe"].as_str(), Some("/build/faulty"));
    }
}
