//! `probe watch` beside a daemon: nothing is told twice, and what could not be told is told as lost.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use probe_tests::{Attached, Daemon, Line, Probed, Sandbox, probe, run, schema::assert_fits};

struct Scene {
    sandbox: Sandbox,
    exe: PathBuf,
    path: PathBuf,
    probed: Probed,
}

impl Scene {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, "annad");
        let path = sandbox.path("annad.sock");
        let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
        let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));
        Self {
            sandbox,
            exe,
            path,
            probed,
        }
    }

    fn start(&self) -> Daemon {
        Daemon::at(&self.exe).unix(&self.path).on("TERM=clean").start()
    }

    /// Starts and stops it once, which says some lines.
    fn life(&self) {
        let daemon = self.start();
        daemon.kill("TERM");
        daemon.wait_gone();
    }
}

fn is(line: &Line, kind: &str, about: u32) -> bool {
    line.kind() == "event" && line.value["kind"] == kind && line.value["process"]["pid"] == about
}

fn cursors(lines: &[Line], epoch: &str) -> Vec<u64> {
    let of = lines.iter().filter(|l| l.value["epoch"] == epoch);
    of.filter_map(|l| l.value["cursor"].as_u64()).collect()
}

fn epoch(line: &Line) -> String {
    line.value["epoch"].as_str().expect("an epoch").to_owned()
}

#[test]
fn what_the_daemon_says() {
    let scene = Scene::new();
    let daemon = scene.start();
    let watch = Attached::to(scene.probed.socket(), &[]);
    let first = watch.expect("what it watches", |l| l.kind() == "watching");
    assert_eq!(first.value["service"], "annad");
    daemon.kill("KILL");
    watch.expect("the crash", |l| l.finding_kind() == Some("crashed"));

    // Whoever comes later is told what is open, and with --since what was.
    let later = Attached::to(scene.probed.socket(), &["--only", "finding"]);
    let open = later.expect("the open finding", |l| l.finding_kind() == Some("crashed"));
    assert_eq!(open.value["state"], "opened");
    let past = Attached::to(scene.probed.socket(), &["--since", "1m", "annad"]);
    past.expect("the exit that was", |l| is(l, "exit", daemon.pid()));
    let signals = Attached::to(
        scene.probed.socket(),
        &["--since", "1m", "--only", "event", "--kind", "signal"],
    );
    signals.expect("the signal that was", |l| is(l, "signal", daemon.pid()));

    for line in watch.stop().iter().chain(&later.stop()).chain(&past.stop()) {
        assert_fits("lines", &line.value);
    }
    assert!(signals.stop().iter().all(|l| l.value["kind"] == "signal"));

    // The same for a person.
    let human = Attached::for_people(scene.probed.socket(), &["--since", "1m"]);
    human.expect("the crash, in words", |l| {
        l.raw.contains(" annad        CRITICAL  crashed: ")
    });
    assert_eq!(human.said(), "");
    let lines = human.stop();
    assert!(
        lines[0].raw.starts_with("watching annad: unix:"),
        "{}",
        lines[0].raw
    );
    assert!(
        lines.iter().all(|l| !l.raw.contains('\x1b')),
        "no colours in a pipe"
    );
}

#[test]
fn a_daemon_that_is_killed_and_started_again() {
    let mut scene = Scene::new();
    let watch = Attached::to(scene.probed.socket(), &[]);
    let daemon = scene.start();
    let seen = watch.expect("ready", |l| is(l, "ready", daemon.pid()));
    let first = epoch(&seen);

    scene.probed.kill();
    daemon.kill("TERM");
    daemon.wait_gone();
    scene.probed.begin();
    let lost = watch.expect("the loss", |l| l.kind() == "lost");
    assert_eq!(
        (&lost.value["source"], &lost.value["count"]),
        (&"epoch".into(), &().into())
    );
    let second = epoch(&lost);
    assert_ne!(first, second);

    // It goes on, from the first line of the new daemon.
    let daemon = scene.start();
    watch.expect("ready again", |l| is(l, "ready", daemon.pid()));
    let said = watch.said();
    assert!(said.contains("waiting for it to come back"), "{said}");
    assert!(said.contains("the daemon is back"), "{said}");
    let lines = watch.stop();
    for epoch in [&first, &second] {
        let cursors = cursors(&lines, epoch);
        let whole = cursors
            .iter()
            .zip(cursors.iter().skip(1))
            .all(|(a, b)| a + 1 == *b);
        assert!(whole, "{epoch}: {cursors:?}");
    }
    assert_eq!(lines.iter().filter(|l| l.kind() == "lost").count(), 1);
    for line in &lines {
        assert_fits("lines", &line.value);
    }
}

#[test]
fn a_connection_that_breaks_again_and_again_leaves_no_gap() {
    let scene = Scene::new();
    let cut = Cut::new(&scene.sandbox, scene.probed.socket());
    let watch = Attached::to(&cut.path, &["--since", "1m"]);
    for _ in 0..8 {
        scene.life();
    }
    let last = scene.start();
    watch.expect("the last one", |l| is(l, "ready", last.pid()));
    let lines = watch.stop();
    let epoch = epoch(lines.last().expect("lines"));
    let told = cursors(&lines, &epoch);
    let newest = told.last().copied().unwrap_or_default();
    assert_eq!(told, (1..=newest).collect::<Vec<_>>(), "each line once, in order");
    let connections = cut.connections.load(Ordering::SeqCst);
    assert!(connections > 4, "{connections} connections");
    println!("{newest} lines over {connections} connections, each once");
}

/// Stands between a client and the daemon, and cuts each stream after some bytes, also in the middle of a line.
struct Cut {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
}

impl Cut {
    fn new(sandbox: &Sandbox, daemon: &Path) -> Self {
        let path = sandbox.path("cut.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        let connections = Arc::new(AtomicUsize::new(0));
        let (daemon, count) = (daemon.to_owned(), Arc::clone(&connections));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = UnixStream::connect(&daemon) else {
                    continue;
                };
                let back = (
                    server.try_clone().expect("a descriptor"),
                    client.try_clone().expect("a descriptor"),
                );
                thread::spawn(move || copy(client, server, usize::MAX));
                // The first answer is no stream.
                let most = if n == 0 { usize::MAX } else { 4000 + 701 * n };
                thread::spawn(move || copy(back.0, back.1, most));
            }
        });
        Self { path, connections }
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, mut most: usize) {
    let mut bytes = [0; 512];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        let n = n.min(most);
        if to.write_all(&bytes[..n]).is_err() || most == n {
            break;
        }
        most -= n;
    }
    for stream in [&from, &to] {
        _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn without_a_daemon_there_is_nothing_to_attach_to() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("probe.sock");
    let output = run(probe(&["watch", "--socket"]).arg(&socket));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("start `probe daemon`"), "{output:?}");
    let output = run(&mut probe(&["watch", "--since", "1m", "--tcp", "1"]));
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("--tcp"), "{output:?}");
}
