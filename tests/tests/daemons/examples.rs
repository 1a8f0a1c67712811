//! The starter configurations, as they are.

use std::{fs, path::PathBuf};

use probe_tests::{probe, run};

use crate::site::example;

pub(crate) fn all() -> Vec<PathBuf> {
    let directory = example("any").with_file_name("");
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths
}

#[test]
fn each_is_accepted() {
    for path in all() {
        let output = run(probe(&["config", "check", "--config"]).arg(&path));
        assert_eq!(
            (output.code, output.stderr.as_str()),
            (Some(0), ""),
            "{}: {}",
            path.display(),
            output.stdout
        );
    }
}
