//! `probe silence`: maintenance, from its beginning to its end.

use std::process::Command;

use probe_tests::{Daemon, Output, Probed, Sandbox, probe, probe_binary, run, schema::assert_fits, until};
use serde_json::Value;

/// A daemon whose service does not run, which is a finding.
fn probed(sandbox: &Sandbox) -> Probed {
    let exe = Daemon::install(sandbox, "annad");
    let probed = Probed::with(
        sandbox,
        "group = \"nogroup\"",
        &Daemon::service("annad", &exe, "expected = true"),
    );
    until("the finding shows", || {
        probed.service("annad")["verdict"] == "finding"
    });
    probed
}

#[track_caller]
fn silences(probed: &Probed) -> Vec<Value> {
    let all = probed.ask_json(&["silence", "--list"]);
    assert_fits("silences", &all);
    all["silences"].as_array().expect("silences").clone()
}

#[track_caller]
fn succeeds(probed: &Probed, args: &[&str]) -> String {
    let output = probed.ask(args);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    output.stdout
}

#[test]
fn it_survives_a_restart_until_it_is_ended() {
    let sandbox = Sandbox::new();
    let mut probed = probed(&sandbox);
    assert_eq!(
        succeeds(&probed, &["silence", "--list"]),
        "no service is silenced\n"
    );

    let text = succeeds(
        &probed,
        &["silence", "annad", "--for", "2h", "--reason", "moving \u{1b}[1m"],
    );
    assert!(
        text.starts_with("annad is silenced for 1 h 59 min (id "),
        "{text}"
    );
    assert!(text.ends_with(") by uid 0: moving \\x1b[1m\n"), "{text}");
    // The finding shows as ever.
    let service = probed.service("annad");
    assert_eq!(service["findings"][0]["kind"], "not-running", "{service}");
    assert_eq!(service["silenced"]["reason"], "moving \u{1b}[1m", "{service}");
    let whole = probed.ask_json(&["status"]);
    assert_fits("status", &whole);
    let human = succeeds(&probed, &["status"]);
    assert!(human.contains("annad CRITICAL not-running, "), "{human}");
    assert!(human.contains("annad is silenced for 1 h 59 min (id "), "{human}");

    let before = silences(&probed);
    let table = succeeds(&probed, &["silence", "--list"]);
    assert!(table.starts_with("ID"), "{table}");
    assert!(
        table
            .lines()
            .nth(1)
            .is_some_and(|l| l.ends_with("moving \\x1b[1m")),
        "{table}"
    );
    probed.kill();
    probed.begin();
    assert_eq!(silences(&probed), before);

    let id = before[0]["id"].to_string();
    let ended = probed.ask_json(&["silence", "--end", &id]);
    assert_fits("silence", &ended);
    assert_eq!(
        (&ended["id"], &ended["service"]),
        (&before[0]["id"], &"annad".into())
    );
    assert_eq!(silences(&probed), [Value::Null; 0]);
    let again = probed.ask(&["silence", "--end", &id]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(
        again.stderr.contains(&format!("there is no silence {id}")),
        "{again:?}"
    );
}

#[test]
fn it_ends_by_itself() {
    let sandbox = Sandbox::new();
    let probed = probed(&sandbox);
    let silence = probed.ask_json(&["silence", "annad", "--for", "300ms", "--reason", "x"]);
    assert_fits("silence", &silence);
    until("it is over", || silences(&probed).is_empty());
    assert_eq!(probed.service("annad")["silenced"], Value::Null);
}

#[test]
fn what_the_daemon_refuses_it_says_why() {
    let sandbox = Sandbox::new();
    let probed = probed(&sandbox);
    let refused = |output: Output, why: &str| {
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    };
    let ask = |args: &[&str]| probed.ask(&[&["silence"], args].concat());
    refused(
        ask(&["anad", "--for", "1h", "--reason", "x"]),
        "did you mean \"annad\"?",
    );
    refused(ask(&["annad", "--for", "400d", "--reason", "x"]), "365 days");
    refused(ask(&["annad", "--for", "1h", "--reason", " "]), "reason");

    // Its group may look, and not act.
    let program = sandbox.install(&probe_binary(), "probe");
    let member = |args: &[&str]| {
        run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .arg("silence")
            .args(args)
            .arg("--socket")
            .arg(probed.socket()))
    };
    assert_eq!(member(&["--list"]).code, Some(0));
    refused(
        member(&["annad", "--for", "1h", "--reason", "x"]),
        "only root may act",
    );
    assert_eq!(silences(&probed), [Value::Null; 0]);
}

#[test]
fn what_does_not_belong_together_is_a_usage_error() {
    for args in [
        &[][..],
        &["annad"],
        &["annad", "--for", "1h"],
        &["annad", "--reason", "x"],
        &["--list", "--end", "7"],
        &["annad", "--list"],
        &["--list", "--for", "1h"],
        &["annad", "--for", "soon", "--reason", "x"],
    ] {
        let output = run(probe(&["silence"]).args(args));
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{args:?}: {output:?}");
    }
}
