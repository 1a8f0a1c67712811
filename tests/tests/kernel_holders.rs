//! A socket ends with its last holder, and not before: what the kernel tells when listeners are inherited, passed on, kept
//! and dropped. `cargo xtask vm` runs this on several kernels.

use probe_tests::{KernelScene as Scene, kill};

const BEGIN: [&str; 2] = ["bind", "listen"];
const WHOLE: [&str; 3] = ["bind", "listen", "close"];

fn listening() -> Scene {
    let mut scene = Scene::unix();
    scene.tell("listen");
    // In the tracepoint tier a listener is known by a look, which an end can come before.
    scene.expect(&BEGIN);
    scene
}

#[test]
fn kill_9() {
    let mut scene = listening();
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.watch.expect("stale-socket", Scene::SERVICE);
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn kill_9_of_one_that_listens_on_tcp() {
    let mut scene = Scene::inet("tcp", "127.0.0.1");
    let begin = scene.beginning();
    scene.tell("listen");
    scene.expect(begin);
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.expect(&[begin, &["close"]].concat());
    scene.watch.stop();
}

#[test]
fn an_inherited_listener_ends_with_its_last_holder() {
    let mut scene = listening();
    let child: u32 = scene.daemon.tell("fork").parse().expect("a pid");
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.expect(&BEGIN);
    kill("KILL", child);
    scene.watch.expect("stale-socket", Scene::SERVICE);
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn an_exec_that_keeps_the_listener() {
    let mut scene = listening();
    scene.daemon.tell("exec");
    scene.expect(&BEGIN);
    scene.tell("close");
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn an_exec_that_closes_the_listener() {
    let mut scene = listening();
    scene.daemon.tell("exec-anew");
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn an_exec_in_a_child_that_closes_its_copy() {
    let mut scene = listening();
    // The copy of the child goes at its exec; the listener stays.
    scene.daemon.tell("fork-exec");
    scene.expect(&BEGIN);
    scene.tell("close");
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn a_listener_that_is_passed_on() {
    let mut scene = listening();
    let mut heir = scene.another();
    let (gifts, address) = (scene.sandbox.path("gifts"), scene.address.clone());
    heir.tell(&format!("receive-at {}", gifts.display()));
    scene.daemon.tell(&format!("give {address} {}", gifts.display()));
    scene.tell("close");
    // Nobody but the message holds it.
    scene.expect(&BEGIN);
    heir.tell(&format!("receive {address}"));
    scene.expect(&BEGIN);
    heir.tell(&format!("close {address}"));
    scene.expect(&WHOLE);
    scene.watch.stop();
}

#[test]
fn a_passed_listener_that_nobody_takes() {
    let mut scene = listening();
    let heir = {
        let mut heir = scene.another();
        let (gifts, address) = (scene.sandbox.path("gifts"), scene.address.clone());
        heir.tell(&format!("receive-at {}", gifts.display()));
        scene.daemon.tell(&format!("give {address} {}", gifts.display()));
        heir
    };
    scene.tell("close");
    scene.expect(&BEGIN);
    // With the receiving socket goes the message in its queue, and with that the listener.
    heir.kill("KILL");
    heir.wait_gone();
    scene
        .watch
        .expect_event("close", Scene::SERVICE, "of the message's", |_| true);
    scene.expect(&WHOLE);
    scene.watch.stop();
}
