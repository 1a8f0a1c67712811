//! How a test shows that a finding does **not** come, without sleeping: a process that never listens gets its
//! `not-listening`, by probe's own clock, later than every other threshold in the configuration. What was to come has come
//! before.

use std::{path::PathBuf, time::Duration};

use crate::{clock::patience, daemon::Daemon, sandbox::Sandbox};

pub(crate) const SERVICE: &str = "sentinel";

/// Longer than every other threshold that a test configures.
fn ready_within() -> &'static str {
    if is_slow() { "8s" } else { "2s" }
}

/// The longest `ready_within` of daemons that do get ready.
pub fn others_within() -> &'static str {
    if is_slow() { "7s" } else { "1500ms" }
}

/// On an emulated machine a healthy daemon may take seconds to start.
fn is_slow() -> bool {
    patience() > Duration::from_secs(60)
}

#[derive(Debug)]
pub(crate) struct Sentinel {
    exe: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    within: String,
}

impl Sentinel {
    /// `within`: longer than the other thresholds of the configuration, where they are longer than those of most tests.
    pub(crate) fn new(sandbox: &Sandbox, within: Option<&str>) -> Self {
        Self {
            within: within.unwrap_or(ready_within()).to_owned(),
            exe: Daemon::install(sandbox, "sentinel"),
            pid_file: sandbox.path("sentinel.pid"),
            socket: sandbox.path("sentinel.sock"),
        }
    }

    /// Its `[[service]]` table.
    pub(crate) fn toml(&self) -> String {
        let Self {
            exe,
            pid_file,
            socket,
            within,
        } = self;
        format!(
            "\n[[service]]\nname = {SERVICE:?}\nexe = {exe:?}\npid_file = {pid_file:?}\nlisten = [\"unix:{}\"]\nexpected = false\n\
             ready_within = {within:?}\n",
            socket.display(),
        )
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::at(&self.exe)
            .pid_file(&self.pid_file)
            .on("TERM=clean")
            .start()
    }
}
