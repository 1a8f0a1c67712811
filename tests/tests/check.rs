//! `probe check`: a monitoring plugin that needs no daemon.

use std::{fs, process::Command};

use probe_tests::{Daemon, Output, Sandbox, probe, probe_binary, run};

#[track_caller]
fn check(sandbox: &Sandbox, config: &str, args: &[&str], code: i32) -> Output {
    let file = sandbox.write("probe.toml", config);
    let output = run(probe(&["check", "--config"]).arg(file).args(args));
    assert_eq!(output.code, Some(code), "{output:?}");
    assert_eq!(output.stderr, "");
    let (said, performance) = output
        .stdout
        .lines()
        .next()
        .and_then(|l| l.split_once(" | "))
        .unwrap_or_else(|| panic!("no performance data: {output:?}"));
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
    assert!(said.starts_with(&format!("PROBE {word} - ")), "{output:?}");
    assert!(performance.starts_with("ok="), "{output:?}");
    output
}

#[test]
fn a_daemon_from_its_start_to_its_crash() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let more = format!("listen = [\"unix:{}\"]\npid_file = {pid_file:?}", path.display());
    let config = Daemon::service("annad", &exe, &more);

    let output = check(&sandbox, &config, &[], 2);
    assert!(output.stdout.contains("annad: not-running: "), "{output:?}");

    let daemon = Daemon::at(&exe).unix(&path).pid_file(&pid_file).start();
    let output = check(&sandbox, &config, &["annad"], 0);
    assert!(
        output.stdout.contains(&format!("annad runs ({})", daemon.pid())),
        "{output:?}"
    );
    assert!(output.stdout.contains("queue'=0;;;0;"), "{output:?}");

    daemon.kill("STOP");
    check(&sandbox, &config, &[], 1);
    daemon.kill("CONT");
    check(&sandbox, &config, &[], 0);

    fs::rename(&path, sandbox.path("aside")).expect("rename");
    let output = check(&sandbox, &config, &[], 2);
    assert!(output.stdout.contains("orphaned-listener"), "{output:?}");
    fs::rename(sandbox.path("aside"), &path).expect("rename back");

    daemon.kill("KILL");
    daemon.wait_gone();
    let output = check(&sandbox, &config, &[], 2);
    for kind in ["stale-socket", "not-running", "stale-pid-file"] {
        assert!(output.stdout.contains(kind), "{kind}: {output:?}");
    }
    let json = run(probe(&["check", "--json", "--config"]).arg(sandbox.path("probe.toml")));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.code, &report["status"]), (Some(2), &"critical".into()));
    assert_eq!(
        report["services"][0]["findings"].as_array().map(Vec::len),
        Some(3)
    );
}

#[test]
fn all_that_is_wrong_is_told() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let (first, second) = (
        Daemon::at(&exe).tcp(0).start(),
        Daemon::at(&exe).arg("--reuse-port").tcp(0).start(),
    );
    // They have lived side by side for longer than `overlap`, which is as long as `ready_within`.
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\", \"tcp:127.0.0.1:{}\", \"unix:{}\"]",
        first.port(),
        second.port(),
        path.display()
    );
    let config = Daemon::service("annad", &exe, &more);
    probe_tests::until("both are over their overlap", || {
        let file = sandbox.write("probe.toml", &config);
        let output = run(probe(&["check", "--config"]).arg(file));
        output.stdout.contains("duplicate-instance")
    });
    let output = check(&sandbox, &config, &[], 2);
    for kind in ["duplicate-instance", "not-listening"] {
        assert!(output.stdout.contains(kind), "{kind}: {output:?}");
    }
}

#[test]
fn what_it_cannot_see_is_unknown() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let config = Daemon::service("annad", &exe, "");
    let file = sandbox.write("probe.toml", &config);
    let probe = sandbox.install(&probe_binary(), "probe");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    let output = run(command
        .args(nobody)
        .arg(&probe)
        .args(["check", "--config"])
        .arg(file));
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stdout.starts_with("PROBE UNKNOWN - "), "{output:?}");
}

#[test]
fn mistakes_are_unknown_too() {
    let sandbox = Sandbox::new();
    let output = run(&mut probe(&["check", "--no-such-option"]));
    assert_eq!(output.code, Some(3), "{output:?}");

    let file = sandbox.write("probe.toml", "[[service]]\nname = \"a\"\nlisten = [\"tcp:x\"]\n");
    let output = run(probe(&["check", "--config"]).arg(file));
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stdout.starts_with("PROBE UNKNOWN - "), "{output:?}");

    let file = sandbox.write(
        "probe.toml",
        "[[service]]\nname = \"annad\"\nlisten = [\"tcp:1\"]\n",
    );
    let output = run(probe(&["check", "anad", "--config"]).arg(file));
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stdout.contains("did you mean \"annad\""), "{output:?}");
}
