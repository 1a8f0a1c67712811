//! From its start to its end, under a service manager (a stand-in for PID 1: its two sockets).

use std::{fs, thread, time::Duration};

use probe_tests::{Daemon, Managed, Probed, Sandbox, http, probe, run, until};
use rustix::process::Signal;

use crate::scene::Service;

#[test]
fn who_asks_before_it_is_ready_is_answered_then() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let managed = Managed {
        activated: true,
        ..Managed::default()
    };
    let mut probed = Probed::declared(&sandbox, "", &service.toml(""), &managed);
    let socket = probed.socket().to_owned();
    // The manager's listener takes the connection: nobody is refused while probe starts.
    let early = thread::spawn(move || http::over_unix(&socket, "GET", "/readyz", ""));
    probed.begin();
    let answer = early.join().expect("no panic").expect("an answer");
    assert_eq!(answer.code, 200, "{answer:?}");
    let daemon = service.ready(&probed);
    let status = probed.ask(&["status"]);
    assert!(
        status.stdout.contains(&format!("annad ({})", daemon.pid())),
        "{status:?}"
    );
    probed.stop();
    assert!(
        probed.socket().exists(),
        "the manager's socket is not probe's to remove"
    );
    // The next one gets the same listener.
    probed.begin();
    assert_eq!(probed.service("annad")["main"]["pid"], daemon.pid());
}

#[test]
fn a_host_where_nothing_runs_yet_is_watched_from_its_first_declaration_on() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let managed = Managed {
        alone: true,
        ..Managed::default()
    };
    let mut probed = Probed::declared(&sandbox, "", "", &managed);
    probed.begin();
    probed.expect_log("nothing is declared");
    assert_eq!(probed.status()["services"].as_array().map(Vec::len), Some(0));
    probed.declare(&service.toml(""));
    probed.expect_log("added annad");
    assert_eq!(probed.service("annad")["generation"], 0);
    probed.stop();
}

#[test]
fn the_watchdog_is_told_only_while_the_engine_makes_progress() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let managed = Managed {
        watchdog: Some(Duration::from_millis(600)),
        ..Managed::default()
    };
    let mut probed = Probed::declared(&sandbox, "realtime = false", &service.toml(""), &managed);
    probed.begin();
    probed.expect_notified("WATCHDOG=1");

    let refused = "the watchdog is not told that probe lives";
    let times = |probed: &Probed| probed.log().matches(refused).count();
    let stopped = StoppedThread::new(probed.pid(), "probe-engine");
    probed.expect_log(refused);
    probed.notified();
    let before = times(&probed);
    until("it is not told three times more", || times(&probed) >= before + 3);
    assert_eq!(
        probed.notified(),
        Vec::<String>::new(),
        "the rest of probe lives on, the engine does not"
    );
    assert_eq!(probed.http("GET", "/healthz").code, 503);
    drop(stopped);
    probed.expect_notified("WATCHDOG=1");
    assert_eq!(probed.http("GET", "/healthz").code, 200);
}

/// One thread of another process, stopped for as long as this lives.
struct StoppedThread(i32);

impl StoppedThread {
    fn new(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let is_it = |tid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let tid = tasks
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .find(is_it)
            .expect("a thread of that name");
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of ours.
        let seized = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, tid, null, null) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, tid, null, null) == 0
        };
        assert!(seized, "ptrace {tid}: {}", std::io::Error::last_os_error());
        until("the thread is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('t'))
        });
        Self(tid)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: a stopped tracee must have been waited for; the status is written to a variable of ours. PTRACE_DETACH
        // reads and writes no memory.
        unsafe {
            let mut status = 0;
            libc::waitpid(self.0, &raw mut status, libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, self.0, null, null);
        }
    }
}

#[test]
fn a_reload_is_all_or_nothing() {
    let sandbox = Sandbox::new();
    let (one, two) = (Service::new(&sandbox, "one"), Service::new(&sandbox, "two"));
    let probed = Probed::start(&sandbox, &one.toml(""));
    let daemon = one.ready(&probed);
    let names = || {
        let status = probed.status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services
            .iter()
            .filter_map(|s| s["service"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };

    probed.declare("[[service]]\nname = \"one\"\nlisten = [\"nowhere:1\"]\n");
    probed.expect_log("the configuration stays as it was");
    let status = probed.status();
    let why = status["probe"]["reload_error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(why.contains("listen") && why.contains("nowhere"), "{why}");
    assert_eq!(names(), ["one"]);
    assert_eq!(probed.service("one")["main"]["pid"], daemon.pid());

    // The same with SIGHUP, which the service manager is told of.
    probed.notified();
    probed.signal(Signal::HUP);
    let told = probed.expect_notified("RELOADING=1");
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    probed.expect_notified("READY=1");
    assert_eq!(names(), ["one"]);

    probed.declare(&format!("{}{}", one.toml(""), two.toml("")));
    until("the new service shows", || names() == ["one", "two"]);
    assert_eq!(probed.service("one")["main"]["pid"], daemon.pid(), "it goes on");
    assert_eq!(probed.service("one")["generation"], 1);
    let status = probed.status();
    assert_eq!(status["probe"]["reload_error"], serde_json::Value::Null);
    two.ready(&probed);
}

#[test]
fn it_tells_its_state_and_stops_in_under_a_second() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let mut probed = Probed::start(&sandbox, &service.toml(""));
    service.ready(&probed);
    probed.signal(Signal::USR1);
    for part in [
        "state: version ",
        "state: stream ",
        "state: history is written",
        "state: service annad: main process ",
    ] {
        probed.expect_log(part);
    }
    probed.stop();
    let log = probed.log();
    for n in 1..=5 {
        assert!(log.contains(&format!("stop step {n}/5: ")), "{log}");
    }
    assert!(!log.contains("going on without it"), "{log}");
    let took = log
        .rsplit_once("stopped after ")
        .map(|(_, rest)| rest.trim().to_owned());
    let took = took.unwrap_or_else(|| panic!("it does not say how long it took\n{log}"));
    assert!(took.ends_with("ms") || took.ends_with("µs"), "it took {took}");
    println!("stopped after {took}");
}

#[test]
fn a_second_one_refuses_and_names_the_first() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, "expected = false"));
    let second = run(probe(&["daemon", "--config"]).arg(probed.config()));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&probed.pid().to_string()), "{second:?}");
    assert_eq!(probed.http("GET", "/healthz").code, 200);
}
