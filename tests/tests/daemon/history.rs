//! What outlives the daemon.

use std::fs;

use probe_tests::{Daemon, Probed, Sandbox, table::row, until};

use crate::scene::Service;

/// Waits until the history has a signal that is sent now: everything before it is kept then, too.
#[track_caller]
fn settle(probed: &Probed, daemon: &mut Daemon) {
    let known = |probed: &Probed| {
        let output = probed.ask(&["history", "--kind", "signal", "--json"]);
        output.stdout.matches("\"signal\":\"HUP\"").count()
    };
    // What changes a generation and what is said of it come to the writer on two ways.
    for _ in 0..2 {
        let before = known(probed);
        daemon.kill("HUP");
        daemon.caught("HUP");
        until("the history has the signal", || known(probed) > before);
    }
}

#[test]
fn generations_survive_a_kill_9_of_probe() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let mut probed = Probed::start(&sandbox, &service.toml(""));
    let first = service.ready(&probed);
    service.kill(&first);
    let mut second = service.ready(&probed);
    let known = probed.service("annad");
    assert_eq!((&known["generation"], &known["restarts"]), (&2.into(), &1.into()));
    settle(&probed, &mut second);

    // The same process: the generation goes on.
    probed.kill();
    probed.begin();
    let known = probed.service("annad");
    assert_eq!(
        (&known["generation"], &known["restarts"]),
        (&2.into(), &1.into()),
        "{}",
        probed.log()
    );
    assert_eq!(known["main"]["pid"], second.pid());

    // Another one meanwhile: one more.
    probed.kill();
    service.kill(&second);
    let third = service.start();
    probed.begin();
    let known = probed.service("annad");
    assert_eq!(
        (&known["generation"], &known["restarts"]),
        (&3.into(), &2.into()),
        "{}",
        probed.log()
    );
    assert_eq!(known["main"]["pid"], third.pid());

    // And what was said before is still told.
    let told = probed.ask(&[
        "history",
        "--since",
        "10m",
        "--service",
        "annad",
        "--kind",
        "crashed",
        "--json",
    ]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("\"state\":\"opened\""), "{told:?}");
}

#[test]
fn a_damaged_history_is_set_aside_and_named() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let mut probed = Probed::start(&sandbox, &service.toml(""));
    probed.stop();
    let database = probed.state_dir().join("probe.db");
    fs::write(
        &database,
        b"this is no database, but it is long enough to be looked at".repeat(100),
    )
    .expect("written");
    probed.begin();
    let status = probed.ask(&["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stdout.contains("the history was damaged"), "{status:?}");
    let aside = fs::read_dir(probed.state_dir()).expect("the state directory");
    let aside: Vec<_> = aside.flatten().map(|e| e.file_name()).collect();
    assert!(
        aside
            .iter()
            .any(|n| status.stdout.contains(&*n.to_string_lossy()) && n != "probe.db"),
        "{aside:?}: {status:?}"
    );
    // It is written again.
    let daemon = service.ready(&probed);
    until("the new history has lines", || {
        let told = probed.ask(&["history", "--kind", "ready", "--json"]);
        told.stdout.contains(&format!("\"pid\":{}", daemon.pid()))
    });
    row(
        "faults",
        &[
            "history corrupt",
            "the history was damaged, and where it was set aside",
            "a new one is written",
        ],
    );
}

#[test]
fn a_state_directory_that_cannot_be_is_named_and_stops_nothing() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file = sandbox.write("file", "");
    let probed = Probed::with(
        &sandbox,
        &format!("state_dir = \"{}/state\"", file.display()),
        &service.toml(""),
    );
    service.ready(&probed);
    let status = probed.status();
    assert_eq!(status["probe"]["history"]["state"], "failing", "{status}");
    let said = probed.ask(&["status"]);
    assert!(
        said.stdout.contains("the history is not written: ") && said.stdout.contains("state"),
        "{said:?}"
    );
    let metrics = probed.http("GET", "/metrics").body;
    assert!(
        metrics.contains("probe_history_ok{} 0") || metrics.contains("probe_history_ok 0"),
        "{metrics}"
    );
}
