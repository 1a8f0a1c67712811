//! The scene of many tests: one daemon of ours with nothing but a TCP port, watched.

use std::path::PathBuf;

use crate::{
    daemon::{Daemon, Starter},
    sandbox::Sandbox,
    watch::Watch,
};

/// A running daemon that is declared as the service [`Scene::SERVICE`], and the watch.
#[derive(Debug)]
pub struct Scene {
    pub watch: Watch,
    pub daemon: Daemon,
    pub exe: PathBuf,
    pub sandbox: Sandbox,
}

impl Scene {
    pub const SERVICE: &str = "annad";

    /// The daemon runs before probe looks.
    #[expect(clippy::new_without_default, reason = "it has effects and may fail")]
    pub fn new() -> Self {
        Self::with(|starter| starter, "")
    }

    /// The same; `prepare` adds to how the daemon is started, `more` are further lines of its `[[service]]` table.
    pub fn with(prepare: impl FnOnce(Starter) -> Starter, more: &str) -> Self {
        Self::with_in(Sandbox::new(), prepare, more)
    }

    /// The same in a directory whose paths the table names.
    pub fn with_in(sandbox: Sandbox, prepare: impl FnOnce(Starter) -> Starter, more: &str) -> Self {
        let exe = Daemon::install(&sandbox, Self::SERVICE);
        let daemon = prepare(Daemon::at(&exe)).tcp(0).start();
        let more = format!("listen = [\"tcp:127.0.0.1:{}\"]\n{more}", daemon.port());
        let watch = Watch::start(&sandbox, &Daemon::service(Self::SERVICE, &exe, &more));
        Self {
            watch,
            daemon,
            exe,
            sandbox,
        }
    }
}
