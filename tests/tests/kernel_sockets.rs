//! What the kernel tells of sockets: each bind, listen and close exactly once, in every tier, whatever the address is like.
//! `cargo xtask vm` runs this on several kernels.

use probe_tests::{Stage, io_uring};

/// A socket is bound, listens, and is closed while the daemon lives on.
#[track_caller]
fn life(stage: &mut Stage, service: &str) {
    let begin = stage.beginning(service);
    stage.tell(service, "listen");
    stage.expect(service, begin);
    stage.tell(service, "close");
    stage.expect(service, &[begin, &["close"]].concat());
    let fentry = stage.is_fentry(service);
    let pid = stage.actor(service).daemon.pid();
    for line in stage.told(service).iter().filter(|l| l.value["kind"] != "close") {
        // A name that appears in a directory was made by somebody, where the kernel lets fanotify tell.
        let of = ["process", "actor"][usize::from(line.value["process"].is_null())];
        let by = &line.value[of];
        assert!(by["pid"] == pid || by.is_null() && !fentry, "{}", line.raw);
    }
}

#[track_caller]
fn lives(services: &[(&str, &str)]) {
    let mut stage = Stage::new(services);
    for (service, _) in services {
        life(&mut stage, service);
    }
    stage.stop();
}

#[test]
fn socket_files_and_names() {
    let mut stage = Stage::new(&[("name", "abstract"), ("file", "unix"), ("relative", "unix")]);
    life(&mut stage, "name");
    life(&mut stage, "file");

    // The same file again.
    let path = stage.sandbox.path("file.sock").display().to_string();
    stage.say("file", &format!("unlink {path}"));
    stage.tell("file", "listen");
    stage.expect("file", &["bind", "listen", "close", "bind", "listen"]);
    stage.tell("file", "close");
    stage.expect("file", &["bind", "listen", "close", "bind", "listen", "close"]);

    let dir = stage.sandbox.dir().display().to_string();
    stage.say("relative", &format!("chdir {dir}"));
    stage.say("relative", "listen unix:relative.sock");
    stage.expect("relative", &["bind", "listen"]);
    stage.say("relative", "close unix:relative.sock");
    stage.expect("relative", &["bind", "listen", "close"]);
    stage.stop();
}

#[test]
fn hard_links() {
    let mut stage = Stage::new(&[("linked", "unix"), ("link", "unix")]);
    let path = |stage: &Stage, name: &str| stage.sandbox.path(name).display().to_string();

    // A second name of a declared socket file changes nothing.
    stage.tell("linked", "listen");
    let (declared, other) = (path(&stage, "linked.sock"), path(&stage, "other.sock"));
    stage.say("linked", &format!("link {declared} {other}"));
    stage.expect("linked", &["bind", "listen"]);
    stage.tell("linked", "close");
    stage.expect("linked", &["bind", "listen", "close"]);

    // A declared name that is made for a socket which listens elsewhere: that is its bind, and it listens there at once.
    let (declared, bound) = (path(&stage, "link.sock"), path(&stage, "bound.sock"));
    stage.say("link", &format!("listen unix:{bound}"));
    stage.expect("link", &[]);
    stage.say("link", &format!("link {bound} {declared}"));
    stage
        .watch
        .expect_event("listen", "link", "at the link", |_| true);
    stage.expect("link", &["bind", "listen"]);
    stage.say("link", &format!("close unix:{bound}"));
    stage.expect("link", &["bind", "listen", "close"]);
    stage.stop();
}

#[test]
fn tcp() {
    lives(&[
        ("ipv4", "tcp:127.0.0.1"),
        ("ipv6", "tcp:[::1]"),
        ("both", "tcp:[::]"),
    ]);
}

#[test]
fn udp() {
    lives(&[
        ("ipv4", "udp:127.0.0.1"),
        ("ipv6", "udp:[::1]"),
        ("both", "udp:[::]"),
    ]);
}

#[test]
fn a_port_that_is_shared_and_one_of_both_families() {
    let mut stage = Stage::new(&[("shared", "tcp:127.0.0.1"), ("wider", "tcp:127.0.0.1")]);
    let (mut first, mut second) = (stage.sharing("shared"), stage.sharing("shared"));
    let one = stage.beginning("shared");
    let both = [one, one].concat();
    let address = stage.actor("shared").address.clone();
    for daemon in [&mut first, &mut second] {
        daemon.tell(&format!("listen {address}"));
    }
    stage.expect("shared", &both);
    first.tell(&format!("close {address}"));
    stage.expect("shared", &[&both[..], &["close"]].concat());
    second.tell(&format!("close {address}"));
    stage.expect("shared", &[&both[..], &["close", "close"]].concat());

    // What listens at all addresses serves the declared one.
    let address = stage.actor("wider").address.replace("127.0.0.1", "[::]");
    stage.say("wider", &format!("listen {address}"));
    stage.expect("wider", one);
    stage.say("wider", &format!("close {address}"));
    stage.expect("wider", &[one, &["close"]].concat());
    stage.stop();
}

#[test]
fn a_shutdown_ends_a_listener_once() {
    let mut stage = Stage::new(&[("file", "unix"), ("port", "tcp:127.0.0.1")]);
    stage.tell("file", "listen");
    stage.expect("file", &["bind", "listen"]);
    stage.tell("file", "shutdown");
    if stage.is_fentry("file") {
        stage.expect("file", &["bind", "listen", "close"]);
    } else {
        let said = stage.watching("file").raw;
        assert!(said.contains("shutdown() of a UNIX listener"), "{said}");
    }
    stage.tell("file", "close");
    stage.expect("file", &["bind", "listen", "close"]);

    let begin = stage.beginning("port");
    stage.tell("port", "listen");
    stage.tell("port", "shutdown");
    stage.expect("port", &[begin, &["close"]].concat());
    stage.tell("port", "close");
    stage.expect("port", &[begin, &["close"]].concat());
    stage.stop();
}

/// What one tier cannot see, it says that it cannot.
#[test]
fn refused_binds() {
    let services = [
        ("file", "unix", "binds of UNIX sockets that fail"),
        ("name", "abstract", "binds of UNIX sockets that fail"),
        ("tcp4", "tcp:127.0.0.1", "binds of IPv4 sockets that fail"),
        ("tcp6", "tcp:[::1]", "binds of IPv6 sockets that fail"),
        ("udp4", "udp:127.0.0.1", "binds of IPv4 sockets that fail"),
        ("udp6", "udp:[::1]", "binds of IPv6 sockets that fail"),
    ];
    let mut stage = Stage::new(&services.map(|(name, kind, _)| (name, kind)));
    for (service, _, blind) in services {
        let begin = stage.beginning(service);
        stage.tell(service, "listen");
        stage.expect(service, begin);
        let mut second = stage.another(service);
        let why = second.fails(&format!("listen {}", stage.actor(service).address));
        assert!(why.contains("EADDRINUSE"), "{why}");
        let said = stage.watching(service).raw;
        if stage.is_fentry(service) {
            stage.expect(service, &[begin, &["bind EADDRINUSE"]].concat());
            let refused = stage.watch.expect("bind-refused", service);
            refused
                .by(second.pid())
                .says("EADDRINUSE")
                .says(stage.actor(service).daemon.pid());
            assert_eq!(refused.severity, "warning");
            second.kill("KILL");
            stage.watch.expect_resolved("bind-refused", service);
            assert!(!said.contains(blind), "{said}");
        } else {
            stage.expect(service, begin);
            assert!(said.contains(blind), "{said}");
            second.kill("KILL");
        }
        second.wait_gone();
    }
    stage.stop();
}

/// From Linux 6.11.
#[test]
fn sockets_by_io_uring() {
    if let Err(why) = io_uring() {
        // The matrix knows on which of its kernels there is no excuse.
        assert!(std::env::var_os("PROBE_TEST_IO_URING").is_none(), "{why}");
        eprintln!("skipped: no bind through io_uring here: {why}");
        return;
    }
    let services = [
        ("file", "unix"),
        ("name", "abstract"),
        ("ipv4", "tcp:127.0.0.1"),
        ("ipv6", "tcp:[::1]"),
    ];
    let mut stage = Stage::new(&services);
    for (service, _) in services {
        stage.say(service, "io_uring");
        life(&mut stage, service);
    }
    stage.stop();
}
