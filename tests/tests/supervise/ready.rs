//! Readiness: by the declared addresses, or as the child says itself.

use std::os::unix::net::UnixDatagram;

use probe_tests::Daemon;
use rustix::process::Signal;

use crate::{PATIENCE, Site};

/// The service manager, as far as sd_notify(3) knows one.
fn manager(site: &Site) -> (UnixDatagram, std::path::PathBuf) {
    let path = site.sandbox.path("manager");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

#[track_caller]
fn hears(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).expect("a word to the service manager");
    String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
}

#[test]
fn one_that_does_not_become_ready_is_started_again() {
    let site =
        Site::listening("ready_within = \"300ms\"\nheal = { backoff = \"10ms..10ms\", give_up_after = 2 }");

    let mut supervisor = site.run(&["--restart", "on-failure"], &[]);
    let (first, second) = (supervisor.child(), supervisor.child());

    assert_ne!(first.pid, second.pid);
    assert!(
        supervisor.has_said("not ready within 300ms"),
        "{:?}",
        supervisor.said
    );
    supervisor.ends_with(125);
}

/// What somebody else serves makes nobody ready, and keeps it from starting.
#[test]
fn an_address_that_somebody_else_holds_keeps_it_from_starting() {
    let site = Site::listening("");
    let other = Daemon::install(&site.sandbox, "other");
    let mut stranger = Daemon::at(&other).unix(&site.socket).start();

    let mut supervisor = site.run(&[], &[]);

    supervisor.ends_with(125);
    let holds = format!("process {}", stranger.pid());
    assert!(supervisor.has_said(&holds), "{:?}", supervisor.said);
    assert!(!supervisor.has_said("started process"), "{:?}", supervisor.said);
    stranger.tell("ping");
}

#[test]
fn the_words_of_a_child_are_passed_on() {
    let site = Site::new("");
    let (manager, path) = manager(&site);
    let mut command = site.command(&["--notify", "annad", "--"]);
    command
        .arg(&site.exe)
        .args(["serve", "--on", "TERM=clean", "--beat", "notify="]);
    command.env("NOTIFY_SOCKET", &path);
    let mut supervisor = site.start(command);
    let child = supervisor.child();

    assert_eq!(hears(&manager), "WATCHDOG=1");

    // The same child is heard by the next one of us.
    site.order("mute");
    site.logs("ok");
    supervisor.kill();
    let mut command = site.command(&["--notify", "annad", "--"]);
    command
        .arg(&site.exe)
        .args(["serve", "--on", "TERM=clean", "--beat", "notify="]);
    command.env("NOTIFY_SOCKET", &path);
    let mut next = site.start(command);
    assert_eq!(next.child().pid, child.pid);
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 64]).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    site.order("unmute");
    assert_eq!(hears(&manager), "WATCHDOG=1");
    next.signal(Signal::TERM);
    next.code();
}
