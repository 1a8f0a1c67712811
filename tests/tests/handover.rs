//! Daemons that go on as another process: recognised, told, and no finding.

use std::{
    fs,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
};

use probe_tests::{Daemon, Nginx, Sandbox, Scene, Watch, until};

/// Waits for the event that tells who goes on for whom.
fn expect_handover(watch: &Watch, service: &str, from: u32, to: u32) {
    watch.expect_event("handover", service, &format!("from {from} to {to}"), |e| {
        e.value["process"]["pid"] == to && e.value["from"] == from
    });
}

#[test]
fn nginx_upgrades_its_binary() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let old = nginx.start();
    let watch = Watch::start(&sandbox, &nginx.service("overlap = \"1500ms\""));

    replace(&nginx.exe, Path::new("/usr/sbin/nginx"));
    let old_pid = old.pid();
    let new = nginx.upgrade(old);

    expect_handover(&watch, "nginx", old_pid, new.pid());
    watch.expect_nothing();
    watch.forget();

    // The new master counts: its end is found.
    let new_pid = new.pid();
    new.stop("KILL");
    watch.expect("crashed", "nginx").says(new_pid);
    watch.stop();
    drop(new);
}

/// As a package manager does it: another inode under the old name.
fn replace(exe: &Path, with: &Path) {
    let new = exe.with_extension("new");
    fs::copy(with, &new).expect("copy");
    fs::rename(&new, exe).expect("rename");
}

#[test]
fn an_upgrade_that_replaces_the_executable() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::new();
    let port = daemon.port();

    replace(&exe, &probe_tests::faulty_binary());
    let running = fs::read_link(format!("/proc/{}/exe", daemon.pid())).expect("it runs");
    assert!(
        running.to_string_lossy().ends_with(" (deleted)"),
        "the old file is gone: {running:?}"
    );
    watch.expect_nothing();
    daemon.kill("TERM");
    daemon.wait_gone();
    let next = Daemon::at(&exe).tcp(port).start();

    watch.expect_nothing();
    watch.forget();
    let killer = next.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(next.pid());
    watch.stop();
}

#[test]
fn probe_begins_after_the_executable_was_replaced() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).start();
    replace(&exe, &probe_tests::faulty_binary());
    let more = format!("listen = [\"tcp:127.0.0.1:{}\"]", daemon.port());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    watch.expect_nothing();
    watch.forget();
    let killer = daemon.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(daemon.pid());
    watch.stop();
}

#[test]
fn siblings_that_share_a_port_relieve_each_other() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s.arg("--reuse-port"), "");
    let port = daemon.port();

    let mut life = daemon;
    for _ in 0..3 {
        let successor = Daemon::at(&exe).arg("--reuse-port").tcp(port).start();
        life.kill("TERM");
        life.wait_gone();
        life = successor;
    }

    watch.expect_nothing();
    watch.forget();
    let killer = life.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(life.pid());
    watch.stop();
}

#[test]
fn a_listener_that_is_inherited_over_exec() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let pid = daemon.pid();
    daemon.tell("exec");
    assert_eq!(daemon.pid(), pid, "exec keeps the pid");

    watch.expect_nothing();
    watch.forget();
    let killer = daemon.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(pid);
    watch.stop();
}

#[test]
fn a_tcp_listener_that_is_passed_to_a_sibling() {
    let Scene {
        watch,
        mut daemon,
        exe,
        sandbox,
    } = Scene::new();
    let address = format!("tcp:127.0.0.1:{}", daemon.port());

    let sibling = pass(&sandbox, &exe, &mut daemon, &address);
    daemon.tell("exit 0");

    expect_handover(&watch, "annad", daemon.pid(), sibling.pid());
    watch.expect_nothing();
    watch.forget();
    let killer = sibling.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(sibling.pid());
    watch.stop();
}

#[test]
fn a_unix_listener_that_is_passed_to_a_sibling() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe).unix(&path).start();
    let address = format!("unix:{}", path.display());
    let more = format!("listen = [{address:?}]");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let sibling = pass(&sandbox, &exe, &mut daemon, &address);
    daemon.tell("exit 0");

    expect_handover(&watch, "annad", daemon.pid(), sibling.pid());
    watch.expect_nothing();
    watch.forget();
    let killer = sibling.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(sibling.pid());
    watch
        .expect("stale-socket", "annad")
        .by(killer)
        .says(sibling.pid());
    watch.stop();
}

/// Starts a sibling of a daemon and passes it a listener with SCM_RIGHTS.
fn pass(sandbox: &Sandbox, exe: &Path, daemon: &mut Daemon, address: &str) -> Daemon {
    let post = sandbox.path("handover.sock");
    let mut sibling = Daemon::at(exe).start();
    sibling.tell(&format!("receive-at {}", post.display()));
    daemon.tell(&format!("give {address} {}", post.display()));
    sibling.tell(&format!("receive {address}"));
    sibling
}

#[test]
fn a_parent_that_holds_the_tcp_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("tcp:{}", listener.local_addr().expect("bound"));
    activated(&Sandbox::new(), &address, &listener.into());
}

#[test]
fn a_parent_that_holds_the_unix_listener() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("annad.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    activated(&sandbox, &format!("unix:{}", path.display()), &listener.into());
}

/// Socket activation: this process holds the listener all the time, and starts the daemon on it again and again.
fn activated(sandbox: &Sandbox, address: &str, listener: &OwnedFd) {
    let exe = Daemon::install(sandbox, "annad");
    let start = || {
        let copy = listener.try_clone().expect("second descriptor");
        Daemon::at(&exe).inherit(address, copy).start()
    };
    let mut life = start();
    let more = format!("listen = [{address:?}]");
    let watch = Watch::start(sandbox, &Daemon::service("annad", &exe, &more));

    for _ in 0..2 {
        life.kill("TERM");
        life.wait_gone();
        until("it is gone", || !life.process().is_alive());
        watch.expect_nothing();
        life = start();
    }
    watch.expect_nothing();
    watch.forget();

    // A crash is one, although the listener stays open. It is neither stale, nor taken.
    let killer = life.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(life.pid());
    watch.expect_exactly(&[("crashed", "annad"), ("not-running", "annad")]);
    watch.stop();
}
