//! A running `faulty serve`: told what to do, and answering when it is done.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use rustix::io::FdFlags;

use crate::{
    clock::patience,
    network::Network,
    process::{self, Proc},
    sandbox::Sandbox,
};

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Starter {
    command: Command,
    /// It runs as the child of an `unshare` in a pid namespace of its own.
    own_pids: bool,
}

impl Starter {
    pub fn unix(mut self, path: &Path) -> Self {
        self.command.arg("--unix").arg(path);
        self
    }

    /// Listens on a port of the loopback interface; 0: the kernel chooses.
    pub fn tcp(mut self, port: u16) -> Self {
        self.command.arg("--tcp").arg(format!("127.0.0.1:{port}"));
        self
    }

    pub fn udp(mut self, port: u16) -> Self {
        self.command.arg("--udp").arg(format!("127.0.0.1:{port}"));
        self
    }

    pub fn pid_file(mut self, path: &Path) -> Self {
        self.command.arg("--pid-file").arg(path);
        self
    }

    /// `SIGNAL=REACTION`, see `faulty serve --help`.
    pub fn on(mut self, what: &str) -> Self {
        self.command.arg("--on").arg(what);
        self
    }

    /// Any other option.
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// Starts it with a listener that is open already, as a service manager does.
    pub fn inherit(mut self, address: &str, listener: OwnedFd) -> Self {
        self.command
            .arg("--inherit")
            .arg(format!("{address}={}", listener.as_raw_fd()));
        // SAFETY: fcntl(2) is async-signal-safe and touches no memory.
        unsafe {
            self.command
                .pre_exec(move || Ok(rustix::io::fcntl_setfd(&listener, FdFlags::empty())?));
        }
        self
    }

    pub fn uid(mut self, uid: u32) -> Self {
        self.command.uid(uid);
        self
    }

    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    pub fn start(mut self) -> Daemon {
        let mut child = Proc::spawn(self.command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = child.child().stdin.take().expect("piped");
        let lines = read_lines(child.child().stdout.take().expect("piped"));
        let mut daemon = Daemon {
            first: child,
            main: None,
            own_pids: self.own_pids,
            input,
            lines,
            addresses: Vec::new(),
            caught: Vec::new(),
        };
        let ready = daemon.answer("start");
        daemon.became(&ready);
        daemon
    }
}

/// A running daemon of ours. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    /// The process that was started; not the daemon itself once that went into the background.
    first: Proc,
    main: Option<Proc>,
    own_pids: bool,
    input: ChildStdin,
    lines: Receiver<String>,
    addresses: Vec<String>,
    /// Caught signals that nobody asked about yet.
    caught: Vec<String>,
}

impl Daemon {
    /// A daemon whose executable is `exe`, a copy of `faulty`.
    pub fn at(exe: &Path) -> Starter {
        let mut command = Command::new(exe);
        command.arg("serve");
        Starter {
            command,
            own_pids: false,
        }
    }

    /// The same, in new namespaces: `options` are those of unshare(1).
    pub fn unshared(exe: &Path, options: &[&str]) -> Starter {
        let own_pids = options.contains(&"--pid");
        let mut command = Command::new("unshare");
        command.args(options);
        if own_pids {
            command.args(["--fork", "--kill-child"]);
        }
        command.arg(exe).arg("serve");
        Starter { command, own_pids }
    }

    /// The same, where `hidden` is a directory of its own that nobody else sees.
    pub fn with_private(exe: &Path, hidden: &Path) -> Starter {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs tmpfs \"$0\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(hidden);
        command.arg(exe).arg("serve");
        Starter {
            command,
            own_pids: false,
        }
    }

    /// The same in a network of its own.
    pub fn in_network(network: &Network, exe: &Path) -> Starter {
        let mut command = network.command();
        command.arg(exe).arg("serve");
        Starter {
            command,
            own_pids: false,
        }
    }

    /// A `[[service]]` table for daemons of that executable, with short times; `more` are further lines.
    pub fn service(name: &str, exe: &Path, more: &str) -> String {
        format!(
            "\n[[service]]\nname = {name:?}\nexe = {exe:?}\nready_within = \"700ms\"\nrelisten_within = \"300ms\"\n\
             overlap = \"700ms\"\n{more}\n"
        )
    }

    /// Copies `faulty` into the sandbox.
    pub fn install(sandbox: &Sandbox, name: &str) -> PathBuf {
        sandbox.install(&crate::faulty_binary(), name)
    }

    pub fn process(&self) -> &Proc {
        self.main.as_ref().unwrap_or(&self.first)
    }

    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// The process that was started; its end is not the daemon's when it went into the background.
    pub fn first(&mut self) -> &mut Proc {
        &mut self.first
    }

    /// The port that it listens on, of its first TCP or UDP address.
    pub fn port(&self) -> u16 {
        let inet = self
            .addresses
            .iter()
            .find_map(|a| a.strip_prefix("tcp:").or(a.strip_prefix("udp:")));
        inet.and_then(|a| a.parse::<SocketAddr>().ok())
            .expect("it listens on a port")
            .port()
    }

    /// Tells it to do something and waits until it is done. Returns what it answered.
    #[track_caller]
    pub fn tell(&mut self, line: &str) -> String {
        self.send(line);
        let answer = self.answer(line);
        if answer.starts_with("ready ") {
            self.became(&answer);
        }
        answer
    }

    /// Tells it to do something that must fail. Returns why it did.
    #[track_caller]
    pub fn fails(&mut self, line: &str) -> String {
        self.send(line);
        let answer = self.line(line);
        match answer.strip_prefix("error ") {
            Some(why) => why.to_owned(),
            None => panic!("{line:?} was to fail, and was answered by {answer:?}"),
        }
    }

    /// Tells it to do something that it will not live to answer.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap_or_else(|e| panic!("cannot tell the daemon {line:?}: {e}"));
    }

    /// Lets a child go on as the daemon, and waits for the end of the process that it was.
    #[track_caller]
    pub fn hand_over(&mut self) {
        let answer = self.tell("hand-over");
        let pid = answer
            .parse()
            .unwrap_or_else(|_| panic!("hand-over was answered by {answer:?}"));
        let old = self.main.replace(Proc::adopt("faulty", pid));
        old.as_ref().unwrap_or(&self.first).wait_gone();
    }

    /// Waits until it has caught a signal.
    #[track_caller]
    pub fn caught(&mut self, signal: &str) {
        loop {
            if let Some(i) = self.caught.iter().position(|s| s == signal) {
                self.caught.remove(i);
                return;
            }
            let line = self.line(&format!("the signal {signal}"));
            match line.strip_prefix("signal ") {
                Some(name) => self.caught.push(name.to_owned()),
                None => panic!("expected the signal {signal}, the daemon said {line:?}"),
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_gone(&self) {
        self.process().wait_gone();
    }

    /// Kills it as a person would; returns the pid of the `kill` process.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> u32 {
        process::kill(signal, self.pid())
    }

    #[track_caller]
    fn answer(&mut self, to: &str) -> String {
        loop {
            let line = self.line(to);
            if let Some(name) = line.strip_prefix("signal ") {
                self.caught.push(name.to_owned());
            } else if let Some(answer) = line.strip_prefix("ok") {
                return answer.trim_start().to_owned();
            } else if line.starts_with("ready ") {
                return line;
            } else {
                panic!("{to:?} was answered by {line:?}");
            }
        }
    }

    #[track_caller]
    fn line(&mut self, awaited: &str) -> String {
        match self.lines.recv_timeout(patience()) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("the daemon did not answer {awaited:?} within {:?}", patience())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) if self.first.is_alive() => {
                panic!("the daemon closed its output instead of answering {awaited:?}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                panic!(
                    "the daemon ended ({}) instead of answering {awaited:?}",
                    process::describe(self.first.wait())
                )
            }
        }
    }

    fn became(&mut self, ready: &str) {
        let mut words = ready.split(' ').skip(1);
        let pid = words.next().and_then(|w| w.strip_prefix("pid=")?.parse().ok());
        let mut pid: u32 = pid.unwrap_or_else(|| panic!("no pid in {ready:?}"));
        if self.own_pids {
            // What it says is its number in there; here it is the only child of `unshare`.
            pid = process::children(self.first.pid())[0];
        }
        self.addresses = words.map(str::to_owned).collect();
        if pid != self.pid() {
            self.main = Some(Proc::adopt("faulty", pid));
        }
    }
}

fn read_lines(from: ChildStdout) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}
