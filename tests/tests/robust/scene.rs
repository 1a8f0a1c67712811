//! One service at a socket, and a daemon of probe's that pins on a bpffs of its own.

use std::path::PathBuf;

use probe_tests::{Bpffs, Daemon, Probed, Sandbox, until};
use serde_json::Value;

pub(crate) struct Scene {
    // In the order of their ends: probe, what it watches, what it pins.
    pub(crate) probed: Probed,
    pub(crate) daemon: Daemon,
    pub(crate) bpffs: Bpffs,
    pub(crate) exe: PathBuf,
    pub(crate) sandbox: Sandbox,
}

pub(crate) const NAME: &str = "annad";

impl Scene {
    /// `probe`: further lines of the `[probe]` table.
    #[track_caller]
    pub(crate) fn new(probe: &str) -> Self {
        let sandbox = Sandbox::new();
        let bpffs = Bpffs::mount(&sandbox);
        let exe = Daemon::install(&sandbox, NAME);
        let path = sandbox.path("annad.sock");
        let daemon = Daemon::at(&exe)
            .unix(&path)
            .on("USR1=catch")
            .on("USR2=catch")
            .start();
        let service = Daemon::service(NAME, &exe, &format!("listen = [\"unix:{}\"]\n", path.display()));
        let probed = Probed::with(&sandbox, &format!("{}{probe}", bpffs.toml()), &service);
        let scene = Self {
            probed,
            daemon,
            bpffs,
            exe,
            sandbox,
        };
        scene.until_main(scene.daemon.pid());
        scene.settle();
        scene
    }

    /// Waits until everything that was said and counted until now is written down, so that a kill of probe's daemon is only
    /// that. A generation and what is said of it come to the writer on two ways.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let known = || {
            let signals = self.history(&["--kind", "signal"]);
            signals.iter().filter(|l| l["signal"] == "USR1").count()
        };
        for _ in 0..2 {
            let before = known();
            self.daemon.kill("USR1");
            until("the history has the signal", || known() > before);
        }
    }

    /// Waits until this is the main process, and ready, and written down.
    #[track_caller]
    pub(crate) fn until_main(&self, pid: u32) {
        until("it is the main process, and ready", || {
            let s = self.probed.service(NAME);
            s["main"]["pid"] == pid && s["ready"] == true
        });
    }

    /// Open findings of the service, by kind.
    #[track_caller]
    pub(crate) fn open(&self) -> Vec<String> {
        let service = self.probed.service(NAME);
        let findings = service["findings"].as_array().cloned().unwrap_or_default();
        findings
            .iter()
            .filter_map(|f| Some(f["kind"].as_str()?.to_owned()))
            .collect()
    }

    /// Waits for a finding of this kind.
    #[track_caller]
    pub(crate) fn expect(&self, kind: &str) -> Value {
        self.probed.finding(NAME, kind)
    }

    /// How many of a source's events this daemon has told as lost.
    #[track_caller]
    pub(crate) fn lost(&self, source: &str) -> u64 {
        self.probed.status()["probe"]["lost"][source]
            .as_u64()
            .unwrap_or(0)
    }

    /// What the last daemon of probe's said of what the one before had left.
    #[track_caller]
    pub(crate) fn takeover(&self) -> Value {
        let epoch = self.probed.status()["epoch"].clone();
        let mut found = None;
        until(
            &format!("the takeover is written down\n{}", self.probed.log()),
            || {
                let lines = self.history(&["--kind", "action"]);
                found = lines
                    .into_iter()
                    .find(|l| l["action"] == "takeover" && l["epoch"] == epoch);
                found.is_some()
            },
        );
        found.unwrap_or_default()
    }

    /// Lines of the history, the oldest first.
    #[track_caller]
    pub(crate) fn history(&self, more: &[&str]) -> Vec<Value> {
        let args = [&["history", "--json"], more].concat();
        let output = self.probed.ask(&args);
        assert_eq!(output.code, Some(0), "{output:?}");
        output
            .stdout
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect()
    }
}
