//! A signal whose default action ended the daemon, and who sent it.

use std::path::Path;

use probe_tests::{Daemon, Sandbox, Watch, kill, run};

#[test]
fn the_sender_of_usr1_is_named_although_it_was_gone_before_probe_looked() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).start();
    let config = Daemon::service(
        "annad",
        &exe,
        &format!("listen = [\"tcp:127.0.0.1:{}\"]", daemon.port()),
    );
    let watch = Watch::start(&sandbox, &config);

    let sender = watch.while_paused(|| {
        let sender = daemon.kill("USR1");
        daemon.wait_gone();
        assert!(
            !Path::new(&format!("/proc/{sender}")).exists(),
            "the sender has exited"
        );
        sender
    });

    let finding = watch.expect("unhandled-signal", "annad");
    finding.by(sender).says("USR1").says(daemon.pid());
    assert_eq!(finding.actor().exe.as_deref(), Some("/usr/bin/kill"));
    assert_eq!(finding.actor().uid, Some(0));
    let event = watch.expect_event("signal", "annad", "USR1", |e| e.value["signal"] == "USR1");
    assert_eq!(event.value["actor"]["pid"], sender);
    assert_eq!(event.value["time_source"], "kernel");
    watch.stop();
}

#[test]
fn the_sender_s_user_is_named() {
    const NOBODY: u32 = 65534;
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).uid(NOBODY).start();
    let config = Daemon::service(
        "annad",
        &exe,
        &format!("listen = [\"tcp:127.0.0.1:{}\"]", daemon.port()),
    );
    let watch = Watch::start(&sandbox, &config);

    let by_nobody = run(std::process::Command::new("setpriv")
        .args([
            "--reuid",
            &NOBODY.to_string(),
            "--clear-groups",
            "/usr/bin/kill",
            "-USR1",
        ])
        .arg(daemon.pid().to_string()));
    assert_eq!(by_nobody.code, Some(0), "{}", by_nobody.stderr);

    let finding = watch.expect("unhandled-signal", "annad");
    assert_eq!(finding.actor().uid, Some(NOBODY));
    watch.stop();
}

#[test]
fn a_stop_signal_that_was_declared_as_handled_and_kills_is_unhandled() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).start();
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\"]\nsignals = {{ handled = [\"TERM\"] }}",
        daemon.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let sender = daemon.kill("TERM");

    watch.expect("unhandled-signal", "annad").by(sender).says("TERM");
    watch.stop();
}

#[test]
fn caught_signals_and_a_stop_that_is_raised_again_give_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe)
        .tcp(0)
        .on("USR1=catch")
        .on("TERM=reraise")
        .start();
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\"]\nsignals = {{ handled = [\"TERM\"] }}",
        daemon.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    daemon.kill("USR1");
    daemon.caught("USR1");
    kill("TERM", daemon.pid());
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_stop_by_its_default_action_gives_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).start();
    let config = Daemon::service(
        "annad",
        &exe,
        &format!("listen = [\"tcp:127.0.0.1:{}\"]", daemon.port()),
    );
    let watch = Watch::start(&sandbox, &config);

    daemon.kill("TERM");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}
