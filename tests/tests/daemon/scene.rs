//! A daemon of ours at a socket, declared to a `probe daemon`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use probe_tests::{Daemon, Probed, Sandbox, until};

pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) exe: PathBuf,
    pub(crate) path: PathBuf,
}

impl Service {
    pub(crate) fn new(sandbox: &Sandbox, name: &'static str) -> Self {
        Self {
            name,
            exe: Daemon::install(sandbox, name),
            path: sandbox.path(&format!("{name}.sock")),
        }
    }

    /// Its table, with further lines.
    pub(crate) fn toml(&self, more: &str) -> String {
        let more = format!(
            "listen = [\"unix:{}\"]\nexpected = false\n{more}",
            self.path.display()
        );
        Daemon::service(self.name, &self.exe, &more)
    }

    /// Starts it; as daemons do, it removes what another one has left.
    pub(crate) fn start(&self) -> Daemon {
        _ = fs::remove_file(&self.path);
        Daemon::at(&self.exe)
            .unix(&self.path)
            .on("TERM=clean")
            .on("HUP=catch")
            .start()
    }

    /// Starts it, and waits until probe calls it ready.
    #[track_caller]
    pub(crate) fn ready(&self, probed: &Probed) -> Daemon {
        let daemon = self.start();
        until("it is the main process, and ready", || {
            let s = probed.service(self.name);
            s["main"]["pid"] == daemon.pid() && s["ready"] == true
        });
        daemon
    }

    #[track_caller]
    pub(crate) fn kill(&self, daemon: &Daemon) {
        daemon.kill("KILL");
        daemon.wait_gone();
    }
}

/// A `[[hook]]` that writes `SERVICE STATE KIND` of each notification into a file.
pub(crate) fn noting(name: &str, file: &Path, more: &str) -> String {
    format!(
        "\n[[hook]]\nname = {name:?}\nseverity = \"warning\"\n\
         exec = [\"/bin/sh\", \"-c\", \"echo $1 $2 $3 >> $0\", {file:?}, \"{{service}}\", \"{{state}}\", \"{{kind}}\"]\n{more}\n"
    )
}

/// What such a hook has noted.
pub(crate) fn noted(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How a hook fares.
#[track_caller]
pub(crate) fn hook(probed: &Probed, name: &str) -> serde_json::Value {
    let all = probed.status()["probe"]["hooks"].take();
    let found = all.as_array().into_iter().flatten().find(|h| h["hook"] == name);
    found
        .cloned()
        .unwrap_or_else(|| panic!("no hook {name} in {all}"))
}
