//! Recordings replay to the findings that they were recorded with, byte for byte.
//!
//! `PROBE_KEEP_TRACES=DIR` makes every end-to-end test keep its recording; a good one is moved to `tests/traces`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use probe_tests::{finding_lines, replay};

fn recordings() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", dir.display()))
        .map(|entry| entry.expect("entry").path())
        .filter(|p| {
            p.to_string_lossy().ends_with(".jsonl") && !p.to_string_lossy().ends_with(".expected.jsonl")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is no recording in {}", dir.display());
    paths
}

#[test]
fn every_recording_gives_its_findings() {
    let mut wrong = Vec::new();
    for trace in recordings() {
        let expected = trace.with_extension("expected.jsonl");
        let expected =
            fs::read_to_string(&expected).unwrap_or_else(|e| panic!("{}: {e}", expected.display()));

        let found: String = finding_lines(&replay(&trace))
            .iter()
            .map(|l| format!("{l}\n"))
            .collect();

        if found != expected {
            wrong.push(format!(
                "{}\n--- expected:\n{expected}--- found:\n{found}",
                trace.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
