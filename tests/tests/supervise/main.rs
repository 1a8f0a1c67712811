//! `probe run` is killed and started again, and its children misbehave. `run` is about its ordinary ways.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ending;
mod keeping;
mod killed;
mod ready;
mod unprivileged;

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use probe_tests::{Daemon, Proc, Sandbox, probe};
use probe_user::run::store::{Row, Runs};
use rustix::process::Signal;

/// How long a line is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A declared service `annad`, its state directory, and a pipe from which whoever runs as it takes orders.
struct Site {
    sandbox: Sandbox,
    exe: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    /// Open for both ways: it outlives every process that reads from it.
    orders: File,
}

impl Site {
    /// `more`: further lines of its table.
    fn new(more: &str) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, "annad");
        let socket = sandbox.path("annad.sock");
        let text = format!(
            "[probe]\nstate_dir = {:?}\nsocket = {:?}\n[[service]]\nname = \"annad\"\n\
             exe = {exe:?}\n{more}\n",
            sandbox.path("state"),
            sandbox.path("probe.sock"),
        );
        let config = sandbox.write("run.toml", &text);
        let pipe = sandbox.path("orders");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let orders = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        Self {
            sandbox,
            exe,
            socket,
            config,
            orders,
        }
    }

    /// With its socket declared.
    fn listening(more: &str) -> Self {
        let site = Self::new(more);
        let line = format!("listen = [\"unix:{}\"]\n", site.socket.display());
        let text = fs::read_to_string(&site.config).unwrap();
        fs::write(&site.config, text + &line).unwrap();
        site
    }

    /// `probe run OPTIONS annad -- annad serve DAEMON`
    fn run(&self, options: &[&str], daemon: &[&str]) -> Running {
        let mut command = self.command(options);
        command
            .args(["annad", "--"])
            .arg(&self.exe)
            .arg("serve")
            .args(daemon);
        self.start(command)
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = probe(&["run", "--config"]);
        command.arg(&self.config).args(options);
        command
    }

    fn start(&self, mut command: Command) -> Running {
        command.stdin(self.orders.try_clone().unwrap());
        Running::start(command)
    }

    /// Whoever runs as the service does this next.
    fn order(&self, line: &str) {
        writeln!(&self.orders, "{line}").unwrap();
    }

    fn state(&self) -> PathBuf {
        self.sandbox.path("state")
    }

    /// The output of its newest life, or of an earlier one.
    fn log(&self, earlier: u32) -> String {
        let number = if earlier == 0 {
            String::new()
        } else {
            format!(".{earlier}")
        };
        let path = self.state().join(format!("logs/annad.log{number}"));
        fs::read_to_string(path).unwrap_or_default()
    }

    #[track_caller]
    fn logs(&self, words: &str) {
        probe_tests::until(&format!("{words:?} is in its log"), || {
            self.log(0).contains(words)
        });
    }

    /// What is in the database.
    fn row(&self) -> Row {
        row(&self.state(), "annad")
    }
}

fn row(state: &Path, service: &str) -> Row {
    Runs::open(state).unwrap().get(service).unwrap().unwrap()
}

/// A `probe run`.
struct Running {
    proc: Proc,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// What it said of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Child {
    pid: u32,
    identity: String,
    restart: u64,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut proc = Proc::spawn(command.stderr(Stdio::piped()));
        let (send, lines) = mpsc::channel();
        let err = proc.child().stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            proc,
            lines,
            said: Vec::new(),
        }
    }

    /// Waits for a line with these words; those before it are passed over.
    #[track_caller]
    fn says(&mut self, words: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(e) => panic!("{words:?} was not said ({e}): {:#?}", self.said),
            }
        }
    }

    /// Waits for the child that it has now, started or taken over.
    #[track_caller]
    fn child(&mut self) -> Child {
        let line = self.says(", run ");
        let words: Vec<&str> = line.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
        let after = |name: &str| {
            let at = words.iter().position(|w| *w == name).unwrap();
            words[at + 1].to_owned()
        };
        Child {
            pid: after("process").parse().unwrap(),
            // `probe: annad: started process 1, run X, restart 0`
            identity: after("run"),
            restart: after("restart").parse().unwrap(),
        }
    }

    fn signal(&self, signal: Signal) {
        self.proc.signal(signal);
    }

    /// As a crash, or the OOM killer, ends it.
    #[track_caller]
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.proc.wait();
    }

    /// Waits for its end.
    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let status = self.proc.wait();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        status.code()
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        let ended = self.code();
        assert_eq!(ended, Some(code), "{:#?}", self.said);
    }

    fn has_said(&self, words: &str) -> bool {
        self.said.iter().any(|l| l.contains(words))
    }
}
