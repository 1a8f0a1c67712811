//! A socket ends with its last holder, and not before: what the kernel tells when listeners are inherited, passed on, kept
//! and dropped. `cargo xtask vm` runs this on several kernels.

use probe_tests::{Stage, kill};

const BEGIN: [&str; 2] = ["bind", "listen"];
const WHOLE: [&str; 3] = ["bind", "listen", "close"];

/// In the tracepoint tier a listener of UNIX is known by a look, which an end can come before.
fn listen(stage: &mut Stage, service: &str) {
    let begin = stage.beginning(service);
    stage.tell(service, "listen");
    stage.expect(service, begin);
}

#[test]
fn kill_9() {
    let mut stage = Stage::new(&[("file", "unix"), ("port", "tcp:127.0.0.1")]);
    for service in ["file", "port"] {
        listen(&mut stage, service);
        stage.kill(service);
        let begin = stage.beginning(service);
        stage
            .watch
            .expect_event("close", service, "of its listener", |_| true);
        stage.expect(service, &[begin, &["close"]].concat());
    }
    stage.watch.expect("stale-socket", "file");
    stage.stop();
}

#[test]
fn an_inherited_listener_ends_with_its_last_holder() {
    let mut stage = Stage::new(&[("file", "unix")]);
    listen(&mut stage, "file");
    let child: u32 = stage.say("file", "fork").parse().expect("a pid");
    stage.kill("file");
    stage.expect("file", &BEGIN);
    kill("KILL", child);
    stage.watch.expect("stale-socket", "file");
    stage.expect("file", &WHOLE);
    stage.stop();
}

#[test]
fn exec() {
    let mut stage = Stage::new(&[("keeps", "unix"), ("closes", "unix"), ("child", "unix")]);
    for service in ["keeps", "closes", "child"] {
        listen(&mut stage, service);
    }
    stage.say("keeps", "exec");
    stage.expect("keeps", &BEGIN);
    stage.tell("keeps", "close");
    stage.expect("keeps", &WHOLE);

    // Without FD_CLOEXEC taken off.
    stage.say("closes", "exec-anew");
    stage.watch.expect_event("close", "closes", "by exec", |_| true);
    stage.expect("closes", &WHOLE);

    // The copy of a child goes at its exec; the listener stays.
    stage.say("child", "fork-exec");
    stage.expect("child", &BEGIN);
    stage.tell("child", "close");
    stage.expect("child", &WHOLE);
    stage.stop();
}

#[test]
fn a_listener_that_is_passed_on() {
    let mut stage = Stage::new(&[("taken", "unix"), ("lost", "unix")]);
    let gifts = stage.sandbox.path("gifts").display().to_string();
    listen(&mut stage, "taken");
    let mut heir = stage.another("taken");
    heir.tell(&format!("receive-at {gifts}"));
    let address = stage.actor("taken").address.clone();
    stage.say("taken", &format!("give {address} {gifts}"));
    stage.tell("taken", "close");
    // Nobody but the message holds it.
    stage.expect("taken", &BEGIN);
    heir.tell(&format!("receive {address}"));
    stage.expect("taken", &BEGIN);
    heir.tell(&format!("close {address}"));
    stage.expect("taken", &WHOLE);

    // With the receiving socket goes the message in its queue, and with that the listener.
    listen(&mut stage, "lost");
    let address = stage.actor("lost").address.clone();
    stage.say("lost", &format!("give {address} {gifts}"));
    stage.tell("lost", "close");
    stage.expect("lost", &BEGIN);
    heir.kill("KILL");
    heir.wait_gone();
    stage
        .watch
        .expect_event("close", "lost", "of the message's", |_| true);
    stage.expect("lost", &WHOLE);
    stage.stop();
}
