//! A running `probe daemon`, and the commands that ask it.

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    ask::{self, Output},
    clock::{Deadline, patience},
    process::{self, Proc},
    sandbox::Sandbox,
    watch::tier,
};

/// `probe daemon`, ready. It is killed when this is dropped.
#[derive(Debug)]
pub struct Probed {
    proc: Option<Proc>,
    config: PathBuf,
    socket: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
    /// Where it says that it is ready, as to a service manager.
    notify: UnixDatagram,
    notify_path: PathBuf,
    _sandbox: Sandbox,
}

impl Probed {
    /// A daemon that watches what `config` declares. Returns once it says that it is ready.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, config: &str) -> Self {
        Self::with(sandbox, "", config)
    }

    /// The same, with further lines of the `[probe]` table.
    #[track_caller]
    pub fn with(sandbox: &Sandbox, probe: &str, config: &str) -> Self {
        let (socket, state_dir) = (sandbox.path("probe.sock"), sandbox.path("state"));
        let text = format!("[probe]\nsocket = {socket:?}\nstate_dir = {state_dir:?}\n{probe}\n{config}");
        let notify_path = sandbox.path("notify");
        let mut daemon = Self {
            proc: None,
            config: sandbox.write("daemon.toml", &text),
            socket,
            state_dir,
            log: sandbox.path("daemon.log"),
            notify: UnixDatagram::bind(&notify_path).expect("socket of the service manager"),
            notify_path,
            _sandbox: sandbox.clone(),
        };
        daemon.begin();
        daemon
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    #[track_caller]
    pub fn begin(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the daemon's log");
        let proc = Proc::spawn(
            ask::probe(&["daemon", "--config"])
                .arg(&self.config)
                .args(tier())
                .env("NOTIFY_SOCKET", &self.notify_path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        );
        self.proc = Some(proc);
        self.expect_notified("READY=1");
    }

    #[track_caller]
    fn expect_notified(&self, what: &str) {
        let deadline = Deadline::after(patience());
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.left();
            self.notify.set_read_timeout(left).expect("a time limit");
            match self.notify.recv(&mut buffer) {
                Ok(n) if left.is_some() => {
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    if text.lines().any(|l| l == what) {
                        return;
                    }
                }
                _ => panic!(
                    "the daemon did not say {what} within {:?}\n{}",
                    patience(),
                    self.log()
                ),
            }
        }
    }

    fn proc(&self) -> &Proc {
        self.proc.as_ref().expect("it runs")
    }

    pub fn pid(&self) -> u32 {
        self.proc().pid()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut proc = self.proc.take().expect("it runs");
        proc.signal(Signal::KILL);
        proc.wait();
    }

    /// Ends it with SIGTERM.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut proc = self.proc.take().expect("it runs");
        proc.signal(Signal::TERM);
        let status = proc.wait();
        assert!(
            status.success(),
            "the daemon ended with {}\n{}",
            process::describe(status),
            self.log()
        );
    }

    /// Does something while it is stopped (SIGSTOP).
    #[track_caller]
    pub fn while_paused<T>(&self, f: impl FnOnce() -> T) -> T {
        self.proc().signal(Signal::STOP);
        crate::until("the daemon is stopped", || {
            process::state(self.pid()) == Some('T')
        });
        let result = f();
        self.proc().signal(Signal::CONT);
        result
    }

    /// A command that asks it: `status`, `wait`, `silence`, `history`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = ask::probe(args);
        command.arg("--config").arg(&self.config);
        command
    }

    /// Runs such a command to its end.
    pub fn ask(&self, args: &[&str]) -> Output {
        ask::run(&mut self.command(args))
    }

    /// The same; it must succeed, and print one JSON object.
    #[track_caller]
    pub fn ask_json(&self, args: &[&str]) -> serde_json::Value {
        let output = ask::run(self.command(args).arg("--json"));
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}\n{}", self.log());
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
    }

    /// One service, as `probe status` tells it.
    #[track_caller]
    pub fn service(&self, name: &str) -> serde_json::Value {
        self.ask_json(&["status", name])["services"][0].take()
    }
}
