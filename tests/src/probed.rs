//! A running `probe daemon`, and the commands that ask it.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{
            net::{UnixDatagram, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    ask::{self, Output},
    clock::{Deadline, is_emulated, patience, until},
    http::{self, Answer},
    process::{self, Proc},
    sandbox::Sandbox,
    watch::tier,
};

/// What a service manager does beyond starting it.
#[derive(Debug, Default)]
pub struct Managed {
    /// It listens itself, and hands the listener over.
    pub activated: bool,
    /// `WatchdogSec=`.
    pub watchdog: Option<Duration>,
    /// In a network of its own and with an empty `/run`, where nothing is to be discovered.
    pub alone: bool,
}

/// `probe daemon`, ready. It is killed when this is dropped.
#[derive(Debug)]
pub struct Probed {
    proc: Option<Proc>,
    config: PathBuf,
    /// Its `[probe]` table.
    head: String,
    socket: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
    /// Where it says that it is ready, as to a service manager.
    notify: UnixDatagram,
    notify_path: PathBuf,
    watchdog: Option<Duration>,
    alone: bool,
    listener: Option<UnixListener>,
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
        let mut daemon = Self::declared(sandbox, probe, config, &Managed::default());
        daemon.begin();
        daemon
    }

    /// As a service manager starts it; not yet begun.
    #[track_caller]
    pub fn declared(sandbox: &Sandbox, probe: &str, config: &str, managed: &Managed) -> Self {
        let (socket, state_dir) = (sandbox.path("probe.sock"), sandbox.path("state"));
        let state = match probe.contains("state_dir") {
            true => String::new(),
            false => format!("state_dir = {state_dir:?}\n"),
        };
        let head = format!("[probe]\nsocket = {socket:?}\n{state}{probe}\n");
        let notify_path = sandbox.path("notify");
        let listener = managed
            .activated
            .then(|| UnixListener::bind(&socket).expect("socket of the API"));
        Self {
            proc: None,
            config: sandbox.write("daemon.toml", &format!("{head}{config}")),
            head,
            socket,
            state_dir,
            log: sandbox.path("daemon.log"),
            notify: UnixDatagram::bind(&notify_path).expect("socket of the service manager"),
            notify_path,
            watchdog: managed.watchdog,
            alone: managed.alone,
            listener,
            _sandbox: sandbox.clone(),
        }
    }

    /// Declares something else; the `[probe]` table stays. The daemon notices by itself.
    #[track_caller]
    pub fn declare(&self, config: &str) {
        let new = self.config.with_extension("new");
        fs::write(&new, format!("{}{config}", self.head)).expect("the configuration");
        fs::rename(new, &self.config).expect("the configuration");
    }

    /// Changes the `[probe]` table, for the next start.
    #[track_caller]
    pub fn rewrite(&mut self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).expect("the configuration");
        assert!(text.contains(from), "{text}");
        self.head = self.head.replace(from, to);
        fs::write(&self.config, text.replace(from, to)).expect("the configuration");
    }

    /// `probe daemon --uninstall`.
    pub fn uninstall(&self) -> Output {
        ask::run(ask::probe(&["daemon", "--uninstall", "--config"]).arg(&self.config))
    }

    /// Its metrics.
    #[track_caller]
    pub fn metrics(&self) -> String {
        self.http("GET", "/metrics").body
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    #[track_caller]
    pub fn begin(&mut self) {
        // What an earlier one has said says nothing of this one.
        drop(self.notified());
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the daemon's log");
        let mut command = self.program();
        command
            .env("NOTIFY_SOCKET", &self.notify_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(interval) = self.watchdog {
            command.env("WATCHDOG_USEC", interval.as_micros().to_string());
        }
        self.proc = Some(Proc::spawn(&mut command));
        self.expect_notified("READY=1");
    }

    fn program(&self) -> Command {
        let probe = ask::probe(&["daemon", "--config"]);
        let Some(listener) = &self.listener else {
            let mut command = match self.alone {
                true => alone(&probe),
                false => probe,
            };
            command.arg(&self.config).args(tier());
            return command;
        };
        // Only the process itself knows its pid before it runs.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"])
            .arg(probe.get_program())
            .args(probe.get_args())
            .arg(&self.config)
            .args(tier());
        let fd = listener.as_raw_fd();
        // SAFETY: dup2(2) and fcntl(2) are async-signal-safe and touch no memory.
        unsafe {
            command.pre_exec(move || {
                // dup2 leaves a descriptor alone that is there already, and that one would be closed.
                let given = match fd {
                    3 => libc::fcntl(3, libc::F_SETFD, 0) == 0,
                    _ => libc::dup2(fd, 3) == 3,
                };
                given.then_some(()).ok_or_else(std::io::Error::last_os_error)
            });
        }
        command
    }

    /// What it has told the service manager by now and nobody has read, without waiting.
    pub fn notified(&self) -> Vec<String> {
        self.notify.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 4096];
        let mut told = Vec::new();
        while let Ok(n) = self.notify.recv(&mut buffer) {
            told.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
        self.notify.set_nonblocking(false).expect("a socket");
        told
    }

    /// Waits until it tells this to the service manager. Returns the whole message.
    #[track_caller]
    pub fn expect_notified(&self, what: &str) -> String {
        let deadline = Deadline::after(patience());
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.left();
            self.notify.set_read_timeout(left).expect("a time limit");
            match self.notify.recv(&mut buffer) {
                Ok(n) if left.is_some() => {
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    if text.lines().any(|l| l == what) {
                        return text;
                    }
                }
                // A wait with a limit is interrupted by more than signals, as when the whole machine is held.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted && left.is_some() => {}
                outcome => panic!(
                    "the daemon did not say {what} within {:?}: {outcome:?}\n{}",
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

    pub fn signal(&self, signal: Signal) {
        self.proc().signal(signal);
    }

    /// Asks its API.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str) -> Answer {
        let end = Deadline::after(patience());
        loop {
            let answer = http::over_unix(&self.socket, method, path, "");
            let answer = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()));
            // "Ask again later": under emulation a snapshot alone can take the seconds that an answer may.
            if answer.code != 503 || !is_emulated() || end.left().is_none() {
                return answer;
            }
        }
    }

    /// Waits until it has logged something.
    #[track_caller]
    pub fn expect_log(&self, what: &str) {
        until(&format!("the daemon logs {what:?}"), || self.log().contains(what));
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

    /// Waits until it has ended by itself, with this code.
    #[track_caller]
    pub fn ended_with(&mut self, code: i32) {
        let status = self.proc.take().expect("it runs").wait();
        assert_eq!(
            status.code(),
            Some(code),
            "the daemon ended with {}\n{}",
            process::describe(status),
            self.log()
        );
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
        until("the daemon is stopped", || {
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

    /// Everything, as its API tells it; `probe status` prints the same, and wants to read the configuration first.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let answer = self.http("GET", "/v1/services");
        assert_eq!(answer.code, 200, "{answer:?}\n{}", self.log());
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
    }

    /// One service of [`Self::status`].
    #[track_caller]
    pub fn service(&self, name: &str) -> serde_json::Value {
        let answer = self.http("GET", &format!("/v1/services/{name}"));
        assert_eq!(answer.code, 200, "{answer:?}\n{}", self.log());
        let mut answer: serde_json::Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        answer["service"].take()
    }

    /// Waits until a finding of this kind is open for a service, and gives it.
    #[track_caller]
    pub fn finding(&self, service: &str, kind: &str) -> serde_json::Value {
        let mut found = serde_json::Value::Null;
        until(&format!("{kind} is open\n{}", self.log()), || {
            let findings = self.service(service)["findings"].take();
            let findings = findings.as_array().cloned().unwrap_or_default();
            found = findings
                .into_iter()
                .find(|f| f["kind"] == kind)
                .unwrap_or_default();
            !found.is_null()
        });
        found
    }
}

/// Each program becomes the next one, so that the pid is the daemon's.
fn alone(probe: &Command) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "/bin/sh", "-c"])
        .args(["mount -t tmpfs none /run && exec \"$@\"", "sh"])
        .arg(probe.get_program())
        .args(probe.get_args());
    command
}
