//! Miri, which executes code step by step and sees what no test does: undefined behaviour. It runs the tests of what makes events
//! of the kernel's records.

use std::{process::Command, time::Duration};

use crate::{child, workspace};

/// Which of the library's tests.
const TESTS: &str = "kernel::decode::";

/// Why it can't run.
pub(crate) fn missing() -> Option<String> {
    let mut miri = Command::new("cargo");
    miri.args(["+nightly", "miri", "--version"]);
    let found = child::capture(&mut miri, Duration::from_secs(60));
    found.is_err().then(|| {
        "a nightly compiler with Miri is missing: rustup toolchain install nightly --component miri,rust-src".to_owned()
    })
}

pub(crate) fn command() -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "+nightly",
            "miri",
            "test",
            "--package",
            "probe-user",
            "--lib",
            TESTS,
        ])
        .current_dir(workspace::root())
        // The clock's offset is asked for.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    cargo
}
