//! `cargo xtask bless`: what the traces give now becomes what is expected of them. On purpose only: review the
//! difference before it is committed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only traces whose file names contain this
    filter: Option<String>,
}

const EXPECTED: &str = ".expected.jsonl";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let probe = build_probe()?;
    let filter = args.filter.as_deref().unwrap_or_default();
    let traces = traces(&workspace::root().join("tests/traces"), filter)?;
    ensure!(
        !traces.is_empty(),
        "no trace under tests/traces has \"{filter}\" in its name"
    );
    for trace in traces {
        let expected = expected_of(&trace);
        let found = child::capture(
            Command::new(&probe)
                .args(["replay", "--json", "--only", "finding"])
                .arg(&trace),
            Duration::from_secs(60),
        )?;
        let before = fs::read_to_string(&expected).ok();
        let what = match &before {
            Some(text) if *text == found => "unchanged",
            Some(_) => "CHANGED",
            None => "new",
        };
        if before.as_ref() != Some(&found) {
            fs::write(&expected, &found).with_context(|| format!("write {}", expected.display()))?;
        }
        println!(
            "{what:>9}  {} ({} lines)",
            expected.display(),
            found.lines().count()
        );
    }
    Ok(())
}

/// Builds `probe` and names the binary.
pub(crate) fn build_probe() -> anyhow::Result<PathBuf> {
    child::show(
        workspace::cargo().args(["build", "--package", "probe-user"]),
        Duration::from_secs(30 * 60),
    )?;
    Ok(workspace::target_dir()?.join("debug/probe"))
}

/// The traces themselves, in the order of their names.
fn traces(directory: &Path, filter: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut traces = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".jsonl") && !name.ends_with(EXPECTED) && name.contains(filter) {
            traces.push(path);
        }
    }
    traces.sort();
    Ok(traces)
}

fn expected_of(trace: &Path) -> PathBuf {
    let name = trace.file_stem().unwrap_or_default().to_string_lossy();
    trace.with_file_name(format!("{name}{EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_no_traces() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "a.jsonl", "a.expected.jsonl", "notes.md"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = traces(directory.path(), "").unwrap();
        assert_eq!(
            found,
            [directory.path().join("a.jsonl"), directory.path().join("b.jsonl")]
        );
        assert_eq!(expected_of(&found[0]), directory.path().join("a.expected.jsonl"));
        assert_eq!(traces(directory.path(), "b").unwrap().len(), 1);
    }
}
