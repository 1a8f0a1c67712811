use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::mpsc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, gettid},
};

use super::*;
use crate::{
    event::{AddressState, Holder, Process, Socket, SocketId},
    sources::testing::{Child, TempDir, alone, until},
};

/// A service at one socket file, with times that a test can wait for.
fn at(path: &Path) -> Service {
    let mut s = Service::named("d");
    s.listen = vec![Address::Unix(path.into())];
    s.relisten_within = Duration::from_millis(50);
    s.accept_within = Duration::from_millis(100);
    s.ready_within = Duration::ZERO;
    s
}

fn ask(service: Service) -> ServiceReport {
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let mut observer = Observer::new(Some(crate::who::tables())).unwrap();
    let mut report = check(config, &mut observer);
    assert_eq!(report.services.len(), 1);
    report.services.remove(0)
}

fn kinds(report: &ServiceReport) -> Vec<Kind> {
    report.findings.iter().map(|f| f.kind).collect()
}

#[test]
fn a_daemon_in_order() {
    let _alone = alone();
    let dir = TempDir::new("check-ok");
    let path = dir.path().join("s");
    let child = Child::holding(|| UnixListener::bind(&path).unwrap());
    let report = ask(at(&path));
    assert_eq!(
        (report.status, kinds(&report)),
        (Status::Ok, vec![]),
        "{report:#?}"
    );
    assert_eq!(report.main.unwrap().pid, child.pid());
    assert_eq!(report.queues.len(), 1);
}

#[test]
fn a_dead_socket_and_nobody_who_runs() {
    let _alone = alone();
    let dir = TempDir::new("check-stale");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let report = ask(at(&path));
    assert_eq!(report.status, Status::Critical);
    assert_eq!(
        kinds(&report),
        [Kind::StaleSocket, Kind::NotRunning],
        "{report:#?}"
    );
}

#[test]
fn a_listener_that_lost_its_path() {
    let _alone = alone();
    let dir = TempDir::new("check-orphan");
    let path = dir.path().join("s");
    let child = Child::holding(|| UnixListener::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let report = ask(at(&path));
    assert_eq!(kinds(&report), [Kind::OrphanedListener], "{report:#?}");
    assert!(report.findings[0].summary.contains(&child.pid().to_string()));
}

/// Whether a thread of this process sleeps for a given time, as the kernel says.
fn is_asleep(thread: Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_clock_nanosleep.to_string())
}

#[test]
fn a_path_that_is_back_at_the_second_look_gives_no_alarm() {
    let _alone = alone();
    let dir = TempDir::new("check-back");
    let (path, aside) = (dir.path().join("s"), dir.path().join("aside"));
    let _child = Child::holding(|| UnixListener::bind(&path).unwrap());
    std::fs::rename(&path, &aside).unwrap();
    let mut service = at(&path);
    assert_eq!(kinds(&ask(service.clone())), [Kind::OrphanedListener]);

    service.relisten_within = Duration::from_secs(4);
    let mut observer = Observer::new(Some(crate::who::tables())).unwrap();
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let (tell, told) = mpsc::channel();
    let checking = thread::scope(|scope| {
        let checking = scope.spawn(|| {
            tell.send(gettid()).unwrap();
            check(config, &mut observer)
        });
        let looker = told.recv().unwrap();
        until("it waits for its second look", || {
            assert!(!checking.is_finished(), "it looked once only");
            is_asleep(looker)
        });
        std::fs::rename(&aside, &path).unwrap();
        checking.join().unwrap()
    });
    assert_eq!(checking.status, Status::Ok, "{checking:#?}");
}

#[test]
fn nobody_accepts() {
    let _alone = alone();
    let dir = TempDir::new("check-stall");
    let path = dir.path().join("s");
    let child = Child::holding(|| UnixListener::bind(&path).unwrap());
    let _client = UnixStream::connect(&path).unwrap();
    let report = ask(at(&path));
    assert_eq!(kinds(&report), [Kind::AcceptStall], "{report:#?}");
    drop(child);
}

#[test]
fn a_stopped_daemon() {
    let _alone = alone();
    let dir = TempDir::new("check-stopped");
    let path = dir.path().join("s");
    let child = Child::holding(|| UnixListener::bind(&path).unwrap());
    let pid = Pid::from_raw(child.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let id = crate::sources::process::identity(child.pid()).unwrap();
    until("it is stopped", || {
        process_state::look(id).run == RunState::Stopped
    });
    let report = ask(at(&path));
    assert_eq!(
        (report.status, kinds(&report)),
        (Status::Warning, vec![Kind::Stopped])
    );
}

fn heartbeat(file: &Path) -> crate::config::Heartbeat {
    serde_json::from_value(serde_json::json!({ "file": file, "stale_after": "30s" })).unwrap()
}

#[test]
fn heartbeats_are_read_once() {
    let _alone = alone();
    let dir = TempDir::new("check-beat");
    let (path, beat) = (dir.path().join("s"), dir.path().join("beat"));
    let _child = Child::holding(|| UnixListener::bind(&path).unwrap());
    let mut service = at(&path);
    service.heartbeat = Some(heartbeat(&beat));
    std::fs::write(&beat, "").unwrap();
    let report = ask(service.clone());
    assert_eq!(report.status, Status::Ok, "{report:#?}");
    assert!(report.heartbeat_age_ns.unwrap() < 30_000_000_000);
    // Nobody answers at that address: one slow answer is no finding.
    let asked = serde_json::json!({ "connect": format!("unix:{}", path.display()), "expect": "x", "timeout": "50ms" });
    service.heartbeat = Some(serde_json::from_value(asked).unwrap());
    service.accept_within = Duration::from_secs(60);
    let report = ask(service);
    assert_eq!(
        (report.status, kinds(&report)),
        (Status::Unknown, vec![]),
        "{report:#?}"
    );
}

fn process(pid: u32, start_ticks: u64) -> Process {
    let id = ProcId { pid, start_ticks };
    Process {
        id,
        start: id.start(),
        parent: None,
        comm: "d".into(),
        uid: Some(0),
        exe: Some("/usr/bin/d".into()),
        exe_deleted: false,
        exe_id: None,
        argv: Vec::new(),
        unit: None,
    }
}

fn socket(id: u64, holder: &Process) -> Socket {
    Socket {
        id: SocketId(id),
        inode: id,
        state: SocketState::Listening,
        file: None,
        ip: None,
        queue: 0,
        backlog: 5,
        head: Some(1),
        holders: vec![Holder {
            process: holder.id,
            fd: 3,
        }],
        holders_known: true,
    }
}

/// A second instance that has just begun may be the first one's successor.
#[test]
fn two_instances_are_too_many_only_after_the_overlap() {
    let mut service = Service::named("d");
    service.exe = Some("/usr/bin/d".into());
    service.listen = vec!["tcp:80".parse().unwrap()];
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let now = Nanos(1_000_000_000_000);
    // 100 ticks a second; the overlap is 30 s.
    for (young, expected) in [(99_000, 0), (90_000, 1)] {
        let processes = vec![process(10, 1_000), process(20, young)];
        let sockets = vec![socket(1, &processes[0]), socket(2, &processes[1])];
        let snapshot = Snapshot {
            began: now,
            reason: SnapshotReason::Start,
            addresses: vec![AddressState {
                address: "tcp:80".parse().unwrap(),
                of: None,
                netns: None,
                path: None,
                changed: None,
                sockets,
                processes: processes.clone(),
                error: None,
            }],
            processes,
            pid_files: Vec::new(),
        };
        let before = past::begin(&config, now);
        let mut engine = Engine::new(config.clone(), &BTreeMap::new());
        feed(
            &mut engine,
            What::Snapshot(past::snapshot(&snapshot, before)),
            before,
        );
        feed(&mut engine, What::Snapshot(snapshot), now);
        feed(&mut engine, What::Timer, now);
        let findings = &engine.views()[0].findings;
        assert_eq!(findings.len(), expected, "{findings:#?}");
        assert!(findings.iter().all(|f| f.kind == Kind::DuplicateInstance));
    }
}

fn reported(service: &str, status: Status, problem: Option<(Kind, &str)>) -> ServiceReport {
    ServiceReport {
        service: service.into(),
        status,
        main: None,
        findings: problem
            .map(|(kind, summary)| Problem {
                kind,
                severity: kind.severity(),
                subject: "s".into(),
                summary: summary.into(),
            })
            .into_iter()
            .collect(),
        queues: Vec::new(),
        heartbeat_age_ns: None,
        stale_after_ns: None,
        cannot_see: Vec::new(),
    }
}

#[test]
fn the_first_line_is_what_a_monitoring_system_reads() {
    let mut fine = reported("b'=|", Status::Ok, None);
    fine.queues.push(Queue {
        address: "tcp:80".parse().unwrap(),
        queue: 3,
        limit: 128,
    });
    fine.heartbeat_age_ns = Some(3_200_000_000);
    fine.stale_after_ns = Some(30_000_000_000);
    let bad = reported(
        "a",
        Status::Critical,
        Some((Kind::StaleSocket, "no process | holds\n/run/a")),
    );
    let text = plugin(&report(vec![fine, bad]));
    assert_eq!(
        text,
        "PROBE CRITICAL - a: stale-socket: no process / holds\\n/run/a | ok=1;;;0;2 warning=0;;;0;2 critical=1;;;0;2 unknown=0;;;0;2 \
         'b__/ tcp:80 queue'=3;;;0;128 'b__/ heartbeat age'=3.200s;;30.000;0\n\
         [CRITICAL] a stale-socket: no process / holds\\n/run/a\n"
    );
}

#[test]
fn what_is_wrong_counts_for_more_than_what_is_unknown() {
    let of = |all: &[Status]| report(all.iter().map(|s| reported("a", *s, None)).collect()).status;
    use Status::{Critical, Ok, Unknown, Warning};
    assert_eq!(of(&[]), Ok);
    assert_eq!(of(&[Ok, Unknown]), Unknown);
    assert_eq!(of(&[Unknown, Warning, Ok]), Warning);
    assert_eq!(of(&[Warning, Critical, Unknown]), Critical);
    assert_eq!([Ok, Warning, Critical, Unknown].map(Status::code), [0, 1, 2, 3]);
}
