//! `probe exec` and `probe run`: limits, restarts, one instance, and what outlives a `probe run` that was killed.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod adoption;
mod exec;
mod limits;
mod supervision;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use probe_tests::{Daemon, Proc, Sandbox, probe, until};
use probe_user::run::store::{Row, Runs};

/// Where a run keeps what it knows, and a configuration that says so.
struct Site {
    sandbox: Sandbox,
    config: PathBuf,
}

impl Site {
    /// `services`: their tables.
    fn new(services: impl FnOnce(&Sandbox) -> String) -> Self {
        let sandbox = Sandbox::new();
        let text = format!(
            "[probe]\nstate_dir = {:?}\nsocket = {:?}\n{}",
            sandbox.path("state"),
            sandbox.path("probe.sock"),
            services(&sandbox)
        );
        let config = sandbox.write("run.toml", &text);
        Self { sandbox, config }
    }

    /// With nothing declared.
    fn bare() -> Self {
        Self::new(|_| String::new())
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = probe(&["run", "--config"]);
        command.arg(&self.config).args(options);
        command
    }

    /// `probe run OPTIONS job -- sh -c SCRIPT`; the script finds the sandbox in `$1`.
    fn script(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.run(options);
        command
            .args(["job", "--", "sh", "-c", script, "sh"])
            .arg(self.sandbox.dir());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    #[track_caller]
    fn row(&self) -> Row {
        Runs::open(&self.sandbox.path("state"))
            .unwrap()
            .get("job")
            .unwrap()
            .unwrap()
    }

    fn log(&self, earlier: &str) -> String {
        let path = self.sandbox.path(&format!("state/logs/job.log{earlier}"));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox.path(name)).unwrap_or_default()
    }

    /// A program that is nobody else's, so that its processes can be counted.
    fn sleeper(&self) -> PathBuf {
        self.sandbox.install(Path::new("/usr/bin/sleep"), "sleeper")
    }

    /// Its standard input stays open as long as the test: `faulty` ends with it.
    fn daemon(&self, options: &[&str], exe: &Path, arguments: &[&str]) -> (Proc, Input) {
        let mut command = self.run(options);
        command.args(["job", "--"]).arg(exe).arg("serve").args(arguments);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut run = Proc::spawn(&mut command);
        let input = Input(run.child().stdin.take().unwrap());
        (run, input)
    }

    fn install_daemon(&self) -> PathBuf {
        Daemon::install(&self.sandbox, "annad")
    }
}

/// The writing end of what a daemon reads.
struct Input(#[expect(dead_code, reason = "only held open")] std::process::ChildStdin);

/// Living processes that run this program.
fn living(exe: &Path) -> Vec<u32> {
    let is = fs::metadata(exe).unwrap();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let theirs = fs::metadata(format!("/proc/{pid}/exe"));
            theirs.is_ok_and(|m| (m.dev(), m.ino()) == (is.dev(), is.ino()))
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Waits until so many processes run this program.
#[track_caller]
fn until_living(exe: &Path, count: usize) {
    until(&format!("{count} processes run {}", exe.display()), || {
        living(exe).len() == count
    });
}

#[track_caller]
fn none_lives(exe: &Path) {
    assert_eq!(living(exe), Vec::<u32>::new(), "processes of {}", exe.display());
}

/// Kills without asking, as a crash would.
fn crash(mut run: Proc) {
    run.signal(rustix::process::Signal::KILL);
    run.wait();
}

fn stderr(child: &mut Child) -> String {
    std::io::read_to_string(child.stderr.take().unwrap()).unwrap()
}
