//! `probe wait`: returns when it is so, not later, and never for the wrong process.

use std::process::{Command, Stdio};

use probe_tests::{Daemon, Output, Probed, Sandbox, free_port, schema::assert_fits, until};

/// A wait that goes on beside the test.
struct Waiting(Option<std::thread::JoinHandle<Output>>);

impl Waiting {
    /// Returns once the daemon is listened to.
    #[track_caller]
    fn begin(probed: &Probed, args: &[&str]) -> Self {
        let readers = || readers(probed);
        let before = readers();
        let mut command = probed.command(&[&["wait"], args].concat());
        let waiting = std::thread::spawn(move || probe_tests::run(&mut command));
        until("somebody waits", || waiting.is_finished() || readers() > before);
        Self(Some(waiting))
    }

    #[track_caller]
    fn goes_on(&self) {
        assert!(
            !self.0.as_ref().expect("not ended").is_finished(),
            "it waits no more"
        );
    }

    #[track_caller]
    fn ends(mut self) -> Output {
        self.0.take().expect("not ended").join().expect("it ended")
    }
}

/// How many connections there are to the daemon's socket.
fn readers(probed: &Probed) -> usize {
    let output = Command::new("ss")
        .args(["-xH", "state", "connected", "src"])
        .arg(probed.socket())
        .stderr(Stdio::null())
        .output()
        .expect("ss");
    String::from_utf8_lossy(&output.stdout).lines().count()
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
    let output = ready.ends();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output
            .stdout
            .starts_with(&format!("annad is ready: annad ({}), generation 1", daemon.pid())),
        "{output:?}"
    );

    let stopped = Waiting::begin(&probed, &["annad", "--stopped", "--timeout", "1m", "--json"]);
    stopped.goes_on();
    daemon.kill("TERM");
    let output = stopped.ends();
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
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
        let output = waiting.ends();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(
            output
                .stdout
                .starts_with(&format!("annad is ready: annad ({}), generation 2", new.pid())),
            "{output:?}"
        );
    }
    assert!(old.process().is_alive());
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
    // It happens while nobody looks.
    let daemon = Daemon::at(&exe).unix(&path).start();
    ready.goes_on();
    probed.begin();
    let output = ready.ends();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stdout.contains(&format!("({})", daemon.pid())),
        "{output:?}"
    );
    assert!(output.stderr.contains("waiting for the daemon"), "{output:?}");
}
