//! What is done to a service, what must be found then, and how it is mended.

use std::{fs, path::PathBuf, process::Command};

use probe_tests::{Daemon, Proc, Sandbox};

/// A service that fails now and then.
pub(crate) struct Victim {
    pub(crate) name: String,
    exe: PathBuf,
    path: PathBuf,
    pid_file: PathBuf,
    pub(crate) daemon: Daemon,
}

impl Victim {
    pub(crate) fn start(sandbox: &Sandbox, name: &str) -> Self {
        let exe = Daemon::install(sandbox, name);
        let path = sandbox.path(&format!("{name}.sock"));
        let pid_file = sandbox.path(&format!("{name}.pid"));
        let daemon = start(&exe, &path, &pid_file);
        Self {
            name: name.to_owned(),
            exe,
            path,
            pid_file,
            daemon,
        }
    }

    pub(crate) fn toml(&self) -> String {
        // The machine may be busy: what takes longer than these is found, and rightly so.
        format!(
            "\n[[service]]\nname = {:?}\nexe = {:?}\nlisten = [\"unix:{}\"]\npid_file = {:?}\n\
             ready_within = \"10s\"\nrelisten_within = \"2s\"\ncrash_loop = {{ restarts = 100000, window = \"60s\" }}\n",
            self.name,
            self.exe,
            self.path.display(),
            self.pid_file
        )
    }

    pub(crate) fn start_again(&mut self) {
        _ = fs::remove_file(&self.path);
        self.daemon = start(&self.exe, &self.path, &self.pid_file);
    }

    /// Kills it. What must be found names this.
    pub(crate) fn kill(&mut self) -> u32 {
        let killer = self.daemon.kill("KILL");
        self.daemon.wait_gone();
        killer
    }
}

fn start(exe: &std::path::Path, path: &std::path::Path, pid_file: &std::path::Path) -> Daemon {
    Daemon::at(exe)
        .unix(path)
        .pid_file(pid_file)
        .on("TERM=clean")
        .start()
}

/// Kinds that must be open, each with who is named.
pub(crate) type Expected = Vec<(&'static str, Option<u32>)>;

pub(crate) struct Act {
    pub(crate) what: &'static str,
    pub(crate) cause: fn(&mut Victim) -> Expected,
    pub(crate) mend: fn(&mut Victim),
}

/// What a crash leaves.
pub(crate) fn crash(actor: u32) -> Expected {
    ["crashed", "not-running", "stale-pid-file", "stale-socket"]
        .map(|kind| (kind, Some(actor)))
        .to_vec()
}

pub(crate) const ACTS: [Act; 7] = [
    Act {
        what: "kill -9",
        cause: |v| crash(v.kill()),
        mend: Victim::start_again,
    },
    Act {
        what: "its socket is removed",
        cause: |v| {
            let mut rm = Proc::spawn(Command::new("rm").arg(&v.path));
            assert!(rm.wait().success());
            vec![("orphaned-listener", Some(rm.pid()))]
        },
        mend: |v| {
            let address = format!("unix:{}", v.path.display());
            v.daemon.tell(&format!("close {address}"));
            v.daemon.tell(&format!("listen {address}"));
        },
    },
    Act {
        what: "it is stopped (STOP)",
        cause: |v| vec![("stopped", Some(v.daemon.kill("STOP")))],
        mend: |v| _ = v.daemon.kill("CONT"),
    },
    Act {
        what: "it stops as asked (TERM)",
        cause: |v| {
            v.daemon.kill("TERM");
            v.daemon.wait_gone();
            Vec::new()
        },
        mend: Victim::start_again,
    },
    Act {
        what: "a signal that it does not handle",
        cause: |v| {
            let killer = v.daemon.kill("USR2");
            v.daemon.wait_gone();
            let mut expected = crash(killer);
            expected.push(("unhandled-signal", Some(killer)));
            expected
        },
        mend: Victim::start_again,
    },
    Act {
        what: "its PID file names a stranger",
        cause: |v| {
            v.daemon.tell("pid-file 1");
            vec![("stale-pid-file", None)]
        },
        mend: |v| {
            v.daemon.tell("pid-file");
        },
    },
    Act {
        what: "it executes itself anew",
        cause: |v| {
            v.daemon.tell("exec");
            Vec::new()
        },
        mend: |_| {},
    },
];
