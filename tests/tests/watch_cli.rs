//! `probe watch` without a configuration file.

use std::path::PathBuf;

use probe_tests::{Daemon, Finding, Sandbox, Watch, probe, run};

/// A daemon with a socket file, a TCP port, a UDP port and a PID file.
struct Scene {
    sandbox: Sandbox,
    daemon: Daemon,
    exe: PathBuf,
    path: PathBuf,
    pid_file: PathBuf,
}

fn scene() -> Scene {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let daemon = Daemon::at(&exe).unix(&path).tcp(0).pid_file(&pid_file).start();
    Scene {
        sandbox,
        daemon,
        exe,
        path,
        pid_file,
    }
}

fn about(pid: u32) -> impl Fn(&Finding) -> bool {
    move |f| f.summary.contains(&pid.to_string())
}

#[test]
fn unix() {
    let Scene {
        sandbox,
        daemon,
        path,
        ..
    } = scene();
    let watch = Watch::with(&sandbox, &["--unix", &path.display().to_string()]);
    watch.expect_line("watching", "the path", |l| {
        l.value["listen"][0] == format!("unix:{}", path.display())
    });

    let killer = daemon.kill("KILL");

    watch
        .expect_any("stale-socket", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn tcp() {
    let Scene { sandbox, daemon, .. } = scene();
    let watch = Watch::with(&sandbox, &["--tcp", &format!("127.0.0.1:{}", daemon.port())]);

    let killer = daemon.kill("KILL");

    watch
        .expect_any("crashed", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn tcp_by_port_alone() {
    let Scene { sandbox, daemon, .. } = scene();
    let watch = Watch::with(&sandbox, &["--tcp", &daemon.port().to_string()]);

    let killer = daemon.kill("USR1");

    watch
        .expect_any("unhandled-signal", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn udp() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).udp(0).start();
    let watch = Watch::with(&sandbox, &["--udp", &format!("127.0.0.1:{}", daemon.port())]);

    let killer = daemon.kill("KILL");

    watch
        .expect_any("crashed", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn pid() {
    let Scene { sandbox, daemon, .. } = scene();
    let watch = Watch::with(&sandbox, &["--pid", &daemon.pid().to_string()]);
    watch.expect_line("watching", "the process", |l| {
        l.value["main"]["pid"] == daemon.pid()
    });

    let killer = daemon.kill("KILL");

    watch
        .expect_any("crashed", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn pid_file() {
    let Scene {
        sandbox,
        daemon,
        pid_file,
        ..
    } = scene();
    let watch = Watch::with(&sandbox, &["--pid-file", &pid_file.display().to_string()]);

    let killer = daemon.kill("KILL");

    watch
        .expect_any("stale-pid-file", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn exe() {
    let Scene {
        sandbox, daemon, exe, ..
    } = scene();
    let watch = Watch::with(&sandbox, &["--exe", &exe.display().to_string()]);

    let killer = daemon.kill("USR1");

    watch
        .expect_any("unhandled-signal", "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn discover() {
    let Scene { sandbox, daemon, .. } = scene();
    let watch = Watch::with(&sandbox, &["--discover"]);
    let address = format!("\"tcp:127.0.0.1:{}\"", daemon.port());
    let watching = watch.expect_line("watching", &address, |l| l.raw.contains(&address));
    let service = watching.value["service"].as_str().expect("a name").to_owned();

    let killer = daemon.kill("KILL");

    watch
        .expect_where("crashed", &service, "by the killer", about(daemon.pid()))
        .by(killer);
    watch.stop();
}

#[test]
fn for_a_while() {
    let Scene {
        sandbox,
        daemon,
        path,
        ..
    } = scene();

    let watch = Watch::with(
        &sandbox,
        &["--for", "300ms", "--unix", &path.display().to_string()],
    );

    watch.ends_by_itself();
    drop(daemon);
}

#[test]
fn only_findings() {
    let Scene {
        sandbox,
        daemon,
        path,
        ..
    } = scene();
    let watch = Watch::with(
        &sandbox,
        &[
            "--only",
            "watching,finding",
            "--unix",
            &path.display().to_string(),
        ],
    );

    daemon.kill("KILL");
    watch.expect_any("stale-socket", "at all", about(daemon.pid()));

    assert!(
        watch.lines().iter().all(|l| l.kind() != "event"),
        "events were not asked for"
    );
    watch.stop();
}

#[test]
fn only_events() {
    let Scene {
        sandbox,
        daemon,
        path,
        ..
    } = scene();
    let watch = Watch::with(
        &sandbox,
        &["--only", "watching,event", "--unix", &path.display().to_string()],
    );

    daemon.kill("KILL");
    watch.expect_line("event", "the exit", |l| {
        l.value["kind"] == "exit" && l.value["process"]["pid"] == daemon.pid()
    });

    watch.stop_filtered(|_| false);
}

#[test]
fn findings_of_one_kind() {
    let Scene {
        sandbox,
        daemon,
        path,
        ..
    } = scene();
    let watch = Watch::with(
        &sandbox,
        &["--kind", "stale-socket", "--unix", &path.display().to_string()],
    );

    daemon.kill("KILL");
    watch.expect_any("stale-socket", "at all", about(daemon.pid()));

    watch.stop_filtered(|f| f.kind == "stale-socket");
}

#[test]
fn for_a_person_it_prints_a_line_that_says_what_is_watched() {
    let Scene { path, daemon, .. } = scene();

    let output = run(probe(&["watch", "--for", "100ms", "--unix"]).arg(&path));

    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(
        output.stdout.contains(&path.display().to_string()),
        "{}",
        output.stdout
    );
    assert!(
        !output.stdout.contains('\u{1b}'),
        "no colours where it is no terminal: {}",
        output.stdout
    );
    drop(daemon);
}

#[test]
fn doctor_names_every_hook_and_its_tier() {
    let output = run(&mut probe(&["doctor"]));

    assert_eq!(output.code, Some(0), "{}", output.stderr);
    for hook in [
        "signal_generate",
        "sched_process_exec",
        "sched_process_fork",
        "sched_process_exit",
        "mark_victim",
    ] {
        assert!(
            output.stdout.contains(hook),
            "{hook} is missing: {}",
            output.stdout
        );
    }
    assert!(output.stdout.contains("tracepoint"), "{}", output.stdout);
}
