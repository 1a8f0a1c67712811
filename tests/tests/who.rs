//! `probe who`: without a daemon, right where `lsof` and `fuser` are wrong, and honest for who may not see everything.

use std::{path::Path, process::Command};

use probe_tests::{Daemon, Output, Probed, Sandbox, probe, probe_binary, run, schema::assert_fits};
use serde_json::Value;

/// Exit codes.
const LIVE: i32 = 0;
const NOT_REACHED: i32 = 3;
const FREE: i32 = 4;
const UNKNOWN: i32 = 5;

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[track_caller]
fn who(address: &str, code: i32, state: &str) -> Value {
    let output = run(&mut probe(&["who", "--json", address]));
    assert_eq!(output.code, Some(code), "{output:?}");
    let answer = json(&output);
    assert_eq!(answer["state"], state, "{output:?}");
    assert_eq!((&answer["v"], &answer["type"]), (&1.into(), &"who".into()));
    answer
}

/// The pids of each socket's holders, and whether the path leads to it.
fn sockets(answer: &Value) -> Vec<(Vec<u64>, bool)> {
    let sockets = answer["sockets"].as_array().expect("sockets");
    let pids = |s: &Value| {
        assert_eq!(s["holders_complete"], true, "{s}");
        let holders = s["holders"].as_array().expect("holders");
        holders.iter().filter_map(|h| h["pid"].as_u64()).collect()
    };
    sockets
        .iter()
        .map(|s| (pids(s), s["reachable"] == true))
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn the_trap_in_which_lsof_and_fuser_name_the_wrong_process() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let first = Daemon::at(&exe).unix(&path).start();
    let answer = who(text(&path), LIVE, "live");
    assert_eq!(sockets(&answer), [(vec![first.pid().into()], true)]);
    let holder = &answer["sockets"][0]["holders"][0];
    assert_eq!(holder["exe"], text(&exe));
    assert_eq!(holder["uid"], 0);
    assert_eq!(holder["fds"].as_array().map(Vec::len), Some(1), "{holder}");
    assert_eq!(answer["sockets"][0]["file"], answer["path"]["file"]);

    let second = Daemon::at(&exe).unix(&path).arg("--take-over").start();
    second.kill("KILL");
    second.wait_gone();

    for tool in [&["/usr/bin/lsof", "-t"][..], &["/usr/bin/fuser"]] {
        let output = run(Command::new(tool[0]).args(&tool[1..]).arg(&path));
        assert!(
            output.stdout.contains(&first.pid().to_string()),
            "{} says that the first process uses the path: {output:?}",
            tool[0]
        );
    }
    let answer = who(text(&path), NOT_REACHED, "stale");
    assert_eq!(sockets(&answer), [(vec![first.pid().into()], false)]);
    assert_ne!(answer["sockets"][0]["file"], answer["path"]["file"]);

    std::fs::remove_file(&path).expect("remove the socket file");
    let answer = who(text(&path), NOT_REACHED, "orphaned");
    assert_eq!(sockets(&answer), [(vec![first.pid().into()], false)]);
    first.kill("KILL");
    first.wait_gone();
    who(text(&path), FREE, "free");
}

/// As supervisord does: it binds a temporary name and links the file to the real one. `lsof` finds nobody under that.
#[test]
fn a_socket_whose_name_came_by_a_hard_link() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "supervisord");
    let (temporary, path) = (sandbox.path("s.4711"), sandbox.path("s"));
    let mut daemon = Daemon::at(&exe).unix(&temporary).start();
    daemon.tell(&format!("link {} {}", text(&temporary), text(&path)));
    daemon.tell(&format!("unlink {}", text(&temporary)));

    let lsof = run(Command::new("/usr/bin/lsof").arg("-t").arg(&path));
    assert_eq!(lsof.stdout, "", "lsof finds nobody");
    let answer = who(text(&path), LIVE, "live");
    assert_eq!(sockets(&answer), [(vec![daemon.pid().into()], true)]);
}

#[test]
fn ports_and_sockets_that_do_not_listen() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe).tcp(0).udp(0).start();
    let port = daemon.port();
    let answer = who(&format!("127.0.0.1:{port}"), LIVE, "live");
    assert_eq!(sockets(&answer), [(vec![daemon.pid().into()], true)]);
    assert_eq!(answer["sockets"][0]["queue"], 0);
    assert!(answer["sockets"][0]["limit"].as_u64() > Some(0), "{answer}");

    daemon.tell(&format!("bind unix:{}", text(&path)));
    let answer = who(text(&path), NOT_REACHED, "bound");
    assert_eq!(sockets(&answer), [(vec![daemon.pid().into()], true)]);
    daemon.tell(&format!("listen unix:{}", text(&path)));
    who(text(&path), LIVE, "live");
    daemon.tell(&format!("shutdown unix:{}", text(&path)));
    who(text(&path), NOT_REACHED, "shut_down");
}

#[test]
fn all_who_inherited_a_listener_hold_it() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe).unix(&sandbox.path("s")).start();
    let children = daemon.tell("fork 2");
    let mut pids: Vec<u64> = children.split(' ').map(|p| p.parse().expect("a pid")).collect();
    pids.insert(0, daemon.pid().into());
    let answer = who(text(&sandbox.path("s")), LIVE, "live");
    let (mut found, reachable) = sockets(&answer).remove(0);
    found.sort_unstable();
    pids.sort_unstable();
    assert_eq!((found, reachable), (pids, true));
}

#[test]
fn nobody_is_told_what_he_may_not_see() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let probe = sandbox.install(&probe_binary(), "probe");
    let ask = || {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command = Command::new("setpriv");
        run(command
            .args(nobody)
            .arg(&probe)
            .args(["who", "--json", text(&path)]))
    };

    // Sockets are no secret, and who holds them is.
    let output = ask();
    assert_eq!(output.code, Some(LIVE), "{output:?}");
    let answer = json(&output);
    let socket = &answer["sockets"][0];
    assert_eq!(
        (&socket["holders"], &socket["holders_complete"]),
        (&Value::Array(vec![]), &false.into())
    );
    assert!(
        answer["cannot_see"][0]
            .as_str()
            .is_some_and(|w| w.contains("as root")),
        "{answer}"
    );

    // It may be bound in a network namespace that only root can look into.
    daemon.kill("KILL");
    daemon.wait_gone();
    let output = ask();
    assert_eq!(output.code, Some(UNKNOWN), "{output:?}");
    assert_eq!(json(&output)["state"], "unknown");
}

#[test]
fn what_is_no_address_is_a_usage_error() {
    for address in ["localhost:80", "annad.sock", "sctp:80"] {
        let output = run(&mut probe(&["who", address]));
        assert_eq!(output.code, Some(2), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

/// Whoever may ask the daemon sees what only root sees by itself.
#[test]
fn the_daemon_answers_those_who_may_ask_it() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let mut probed = Probed::with(
        &sandbox,
        "group = \"nogroup\"",
        &Daemon::service("annad", &exe, "expected = false"),
    );
    let program = sandbox.install(&probe_binary(), "probe");
    let ask = |probed: &Probed| {
        let output = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["who", "--json", text(&path), "--socket"])
            .arg(probed.socket()));
        (output.code, json(&output))
    };

    let (code, answer) = ask(&probed);
    assert_eq!((code, &answer["state"]), (Some(LIVE), &"live".into()), "{answer}");
    assert_eq!(sockets(&answer), [(vec![daemon.pid().into()], true)]);
    assert_eq!(answer["sockets"][0]["holders"][0]["exe"], text(&exe), "{answer}");
    assert_fits("who", &answer);

    // By itself it says what it could not see.
    probed.stop();
    let (_, answer) = ask(&probed);
    assert_ne!(answer["cannot_see"], serde_json::json!([]), "{answer}");
    assert_fits("who", &answer);
}
