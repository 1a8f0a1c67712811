//! The programs that run in a machine: probe, our faulty daemon and the tests, built and without debugging information.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{child, workspace};

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Which machine they are built for.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// As cargo calls it; `None`: this machine.
    pub(super) triple: Option<&'static str>,
    pub(super) strip: Option<&'static str>,
    /// Further variables for cargo.
    pub(super) variables: Vec<(String, String)>,
    /// Further arguments for cargo.
    pub(super) arguments: Vec<String>,
    /// Where its libraries are.
    pub(super) sysroot: Option<PathBuf>,
    pub(super) busybox: Option<PathBuf>,
    /// Which unit tests run in it.
    pub(super) units: Vec<Unit>,
}

/// Unit tests of a package that also mean something in the machine.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) package: &'static str,
    /// Its library.
    pub(super) name: &'static str,
    pub(super) filter: &'static str,
    /// Empty until it is built.
    pub(super) path: PathBuf,
}

#[derive(Debug)]
pub(super) struct Programs {
    pub(super) probe: PathBuf,
    pub(super) faulty: PathBuf,
    /// Name and executable.
    pub(super) tests: Vec<(String, PathBuf)>,
    pub(super) units: Vec<Unit>,
    /// Keeps the copies.
    _directory: tempfile::TempDir,
}

/// Builds everything.
pub(super) fn build(tests: &[String], target: &Target) -> anyhow::Result<Programs> {
    child::show(
        target
            .cargo("build")
            .args(["--package", "probe-user", "--bin", "probe"]),
        LIMIT,
    )?;
    let mut cargo = target.cargo("test");
    cargo.args([
        "--no-run",
        "--package",
        "probe-tests",
        "--bins",
        "--message-format=json",
    ]);
    for test in tests {
        cargo.args(["--test", test]);
    }
    if !target.units.is_empty() {
        cargo.arg("--lib");
    }
    for unit in &target.units {
        cargo.args(["--package", unit.package]);
    }
    println!("$ {}", child::describe(&cargo));
    let messages = child::capture(&mut cargo, LIMIT)?;
    let built = match target.triple {
        Some(triple) => workspace::target_dir()?.join(triple).join("debug"),
        None => workspace::target_dir()?.join("debug"),
    };
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let strip = |from: &Path, name: &str| -> anyhow::Result<PathBuf> {
        let to = directory.path().join(name);
        let mut strip = Command::new(target.strip.unwrap_or("strip"));
        child::capture(strip.arg("-o").arg(&to).arg(from), LIMIT)?;
        Ok(to)
    };
    Ok(Programs {
        probe: strip(&built.join("probe"), "probe")?,
        faulty: strip(&built.join("faulty"), "faulty")?,
        tests: tests
            .iter()
            .map(|name| Ok((name.clone(), strip(&executable(&messages, name, "test")?, name)?)))
            .collect::<anyhow::Result<_>>()?,
        units: target
            .units
            .iter()
            .map(|unit| {
                let path = strip(&executable(&messages, unit.name, "lib")?, unit.name)?;
                Ok(Unit { path, ..unit.clone() })
            })
            .collect::<anyhow::Result<_>>()?,
        _directory: directory,
    })
}

impl Target {
    fn cargo(&self, verb: &str) -> Command {
        let mut cargo = workspace::cargo();
        cargo.arg(verb).args(&self.arguments);
        if let Some(triple) = self.triple {
            cargo.args(["--target", triple]);
        }
        cargo.envs(self.variables.iter().map(|(k, v)| (k, v)));
        cargo
    }
}

/// From cargo's messages: the executable of a test.
fn executable(messages: &str, name: &str, kind: &str) -> anyhow::Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["target"]["name"] == name && m["target"]["kind"][0] == kind)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no {kind} {name}"))
}
