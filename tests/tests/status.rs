//! `probe status`: what the daemon knows, for people and for programs.

use probe_tests::{Daemon, Probed, Sandbox, schema::assert_fits, until};

#[test]
fn a_daemon_from_its_start_to_its_crash() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let service = probed.service("annad");
    assert_eq!(service["verdict"], "ok");
    assert_eq!(
        (&service["main"], &service["generation"]),
        (&().into(), &0.into())
    );

    let daemon = Daemon::at(&exe).unix(&path).start();
    probed.ask_json(&["wait", "annad", "--ready", "--timeout", "10s"]);
    let whole = probed.ask_json(&["status"]);
    assert_fits("status", &whole);
    let service = &whole["services"][0];
    assert_eq!(service["main"]["pid"], daemon.pid());
    assert_eq!(
        (&service["generation"], &service["restarts"]),
        (&1.into(), &0.into())
    );
    assert_eq!(service["listeners"][0]["state"], "listening");
    assert_eq!(service["listeners"][0]["holder"]["pid"], daemon.pid());

    let output = probed.ask(&["status"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("SERVICE  VERDICT  MAIN"), "{output:?}");
    let fields: Vec<&str> = lines[1].split_whitespace().collect();
    let main = format!("({})", daemon.pid());
    assert_eq!(fields[..4], ["annad", "ok", "annad", &main], "{output:?}");
    assert!(
        lines[1].contains(&format!("unix:{} 0/", path.display())),
        "{output:?}"
    );
    assert!(
        !output.stdout.contains('\x1b'),
        "no colours in a file: {output:?}"
    );
    // Columns begin where their headings do.
    for column in ["MAIN", "GENERATION", "RESTARTS", "LISTENERS"] {
        let at = lines[0].find(column).expect("a heading");
        assert_eq!(&lines[1][at - 1..at], " ", "{column}: {output:?}");
        assert_ne!(&lines[1][at..=at], " ", "{column}: {output:?}");
    }

    daemon.kill("KILL");
    until("the crash shows", || {
        probed.service("annad")["findings"]
            .as_array()
            .is_some_and(|f| f.len() == 2)
    });
    let output = probed.ask(&["status", "annad"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("crashed,stale-socket"), "{output:?}");
    assert!(output.stdout.contains("annad CRITICAL crashed, "), "{output:?}");
    assert!(
        output.stdout.contains(" was killed by KILL from kill ("),
        "{output:?}"
    );
    assert!(
        output.stdout.contains(&format!("unix:{} stale", path.display())),
        "{output:?}"
    );
    assert_fits("status", &probed.ask_json(&["status"]));
}

#[test]
fn a_name_that_no_service_has() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, "expected = false"));
    for args in [&["status", "anad"][..], &["wait", "anad", "--ready"]] {
        let output = probed.ask(args);
        assert_eq!(output.code, Some(1), "{args:?}: {output:?}");
        let expected = "probe: no service is named \"anad\"; did you mean \"annad\"?\n";
        assert_eq!(output.stderr, expected, "{args:?}");
        assert_eq!(output.stdout, "", "{args:?}");
    }
}
