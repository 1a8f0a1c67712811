//! `probe wait`: returns when it is so, not later, and never for the wrong process.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use probe_tests::{Daemon, Deadline, Probed, Proc, Sandbox, free_port, schema::assert_fits, until};
use serde_json::Value;

/// A wait that goes on beside the test.
struct Waiting {
    proc: Proc,
    stderr: Receiver<String>,
}

impl Waiting {
    /// Returns once it has looked for the first time, and listens.
    #[track_caller]
    fn begin(probed: &Probed, args: &[&str]) -> Self {
        let mut command = probed.command(&[&["wait", "-v"], args].concat());
        let mut proc = Proc::spawn(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let stderr = proc.child().stderr.take().expect("piped");
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines
                .take_while(|line| send.send(line.clone()).is_ok())
                .for_each(drop);
        });
        let waiting = Self {
            proc,
            stderr: receive,
        };
        waiting.says(" yet: ");
        waiting
    }

    /// Waits for a line on its standard error.
    #[track_caller]
    fn says(&self, text: &str) {
        let deadline = Deadline::after(Duration::from_secs(10));
        let mut said = Vec::new();
        loop {
            match self.stderr.recv_timeout(deadline.left().unwrap_or_default()) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => said.push(line),
                Err(e) => panic!("it does not say {text:?}, {e}: {said:?}"),
            }
        }
    }

    #[track_caller]
    fn goes_on(&self) {
        assert!(self.proc.is_alive(), "it waits no more");
    }

    /// What it printed. It must succeed.
    #[track_caller]
    fn succeeds(mut self) -> String {
        let status = self.proc.wait();
        let mut text = String::new();
        let mut stdout = self.proc.child().stdout.take().expect("piped");
        stdout.read_to_string(&mut text).expect("UTF-8");
        assert_eq!(
            status.code(),
            Some(0),
            "{text}{:?}",
            self.stderr.iter().collect::<Vec<_>>()
        );
        text
    }
}

#[test]
fn ready_and_stopped() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));

    // It is stopped already.
    let answer = probed.ask_json(&["wait", "annad", "--stopped"]);
    assert_fits("wait", &answer);
    assert_eq!(answer["outcome"], "reached");

    let ready = Waiting::begin(&probed, &["annad", "--ready", "--timeout", "1m"]);
    ready.goes_on();
    let daemon = Daemon::at(&exe).unix(&path).start();
    let output = ready.succeeds();
    assert!(
        output.starts_with(&format!("annad is ready: annad ({}), generation 1", daemon.pid())),
        "{output:?}"
    );

    let stopped = Waiting::begin(&probed, &["annad", "--stopped", "--timeout", "1m", "--json"]);
    stopped.goes_on();
    daemon.kill("TERM");
    let answer: Value = serde_json::from_str(&stopped.succeeds()).expect("JSON");
    assert_fits("wait", &answer);
    assert_eq!(
        (&answer["outcome"], &answer["main"]),
        (&"reached".into(), &().into())
    );
}

#[test]
fn a_time_that_is_over() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, "expected = false"));
    let output = probed.ask(&["wait", "annad", "--ready", "--timeout", "300ms"]);
    assert_eq!(output.code, Some(124), "{output:?}");
    assert_eq!(
        output.stderr, "probe: annad is not ready yet: no process of it runs\n",
        "{output:?}"
    );
    let json = probed.ask(&["wait", "annad", "--ready", "--timeout", "300ms", "--json"]);
    assert_eq!(json.code, Some(124), "{json:?}");
    let answer = serde_json::from_str(&json.stdout).expect("JSON");
    assert_fits("wait", &answer);
    assert_eq!(answer["outcome"], "timed_out");
}

#[test]
fn an_old_process_that_is_draining_is_never_ready() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (pid_file, port) = (sandbox.path("annad.pid"), free_port());
    let more = format!("listen = [\"tcp:127.0.0.1:{port}\"]\npid_file = {pid_file:?}\nstop_within = \"60s\"");
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));
    let mut old = Daemon::at(&exe)
        .arg("--reuse-port")
        .tcp(port)
        .pid_file(&pid_file)
        .on("TERM=catch")
        .start();
    let answer = probed.ask_json(&["wait", "annad", "--ready", "--timeout", "10s"]);
    assert_eq!(
        (&answer["generation"], &answer["main"]["pid"]),
        (&1.into(), &old.pid().into())
    );

    // It is asked to stop, drains, and still answers everybody who connects.
    old.kill("TERM");
    old.caught("TERM");
    until("the stop shows", || {
        !probed.service("annad")["stopping"].is_null()
    });
    let any = Waiting::begin(&probed, &["annad", "--ready", "--timeout", "1m"]);
    let next = Waiting::begin(
        &probed,
        &["annad", "--ready", "--after-generation", "1", "--timeout", "1m"],
    );
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("the old one answers");

    // The next one runs, is the main process, and does not listen yet: only the old one serves the port.
    let mut new = Daemon::at(&exe).arg("--reuse-port").pid_file(&pid_file).start();
    until("the new one is the main process", || {
        probed.service("annad")["main"]["pid"] == new.pid()
    });
    let service = probed.service("annad");
    assert_eq!(
        (&service["generation"], &service["ready"]),
        (&2.into(), &false.into()),
        "{service}"
    );
    assert_eq!(service["listeners"][0]["holder"]["pid"], old.pid(), "{service}");
    any.goes_on();
    next.goes_on();

    new.tell(&format!("listen tcp:127.0.0.1:{port}"));
    for waiting in [any, next] {
        let output = waiting.succeeds();
        assert!(
            output.starts_with(&format!("annad is ready: annad ({}), generation 2", new.pid())),
            "{output:?}"
        );
    }
    assert!(old.process().is_alive());
}

/// Here probe's own healing gives up; `systemd_start_limit` has systemd do so.
#[test]
fn a_service_that_was_given_up_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, gate) = (sandbox.path("annad.sock"), sandbox.path("gate"));
    let heal = format!(
        "listen = [\"unix:{}\"]\nheal = {{ restart = [\"/bin/sh\", \"-c\", \"read gate < $0; exit 1\", {gate:?}], \
         backoff = \"10ms..20ms\", give_up_after = 1 }}",
        path.display()
    );
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &heal));
    let daemon = Daemon::at(&exe).unix(&path).start();
    probed.ask_json(&["wait", "annad", "--ready", "--timeout", "10s"]);
    daemon.kill("KILL");
    daemon.wait_gone();

    // The attempt goes on for as long as the gate is shut.
    let mut waiting = Waiting::begin(&probed, &["annad", "--ready", "--timeout", "1h"]);
    waiting.goes_on();
    std::fs::write(&gate, "go on\n").expect("whoever restarts it reads");
    assert_eq!(waiting.proc.wait().code(), Some(1));
    waiting.says("probe: annad will not be ready: whoever restarts it gave up: ");

    // Whoever comes later need not wait either.
    let output = probed.ask(&["wait", "annad", "--ready", "--timeout", "1h"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("probe gave up after 1 attempts"),
        "{output:?}"
    );
    probed.ask_json(&["wait", "annad", "--stopped"]);
}

#[test]
fn a_daemon_that_is_restarted_meanwhile_is_waited_for() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let mut probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));
    let ready = Waiting::begin(&probed, &["annad", "--ready", "--timeout", "1m"]);
    probed.kill();
    ready.says("waiting for the daemon");
    // It happens while nobody looks.
    let daemon = Daemon::at(&exe).unix(&path).start();
    ready.goes_on();
    probed.begin();
    let output = ready.succeeds();
    assert!(output.contains(&format!("({})", daemon.pid())), "{output:?}");
}
