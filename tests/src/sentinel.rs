//! How a test shows that a finding does **not** come, without sleeping: a process that never listens gets its
//! `not-listening`, by probe's own clock, later than every other threshold in the configuration. What was to come has come
//! before.

use std::path::PathBuf;

use crate::{daemon::Daemon, sandbox::Sandbox};

pub(crate) const SERVICE: &str = "sentinel";

/// Longer than every other threshold that a test configures.
const READY_WITHIN: &str = "2s";

#[derive(Debug)]
pub(crate) struct Sentinel {
    exe: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
}

impl Sentinel {
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        Self {
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
        } = self;
        format!(
            "\n[[service]]\nname = {SERVICE:?}\nexe = {exe:?}\npid_file = {pid_file:?}\nlisten = [\"unix:{}\"]\nexpected = false\n\
             ready_within = {READY_WITHIN:?}\n",
            socket.display()
        )
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::at(&self.exe)
            .pid_file(&self.pid_file)
            .on("TERM=clean")
            .start()
    }
}
