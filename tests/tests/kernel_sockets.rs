//! What the kernel tells of sockets: each bind, listen and close exactly once, in every tier, whatever the address is like.
//! `cargo xtask vm` runs this on several kernels.

use probe_tests::{KernelScene as Scene, io_uring};

/// A socket is bound, listens, and is closed while the daemon lives on.
#[track_caller]
fn life(scene: &mut Scene) {
    let begin = scene.beginning();
    scene.tell("listen");
    scene.expect(begin);
    scene.tell("close");
    scene.expect(&[begin, &["close"]].concat());
    for line in scene.told().iter().filter(|l| l.value["kind"] != "close") {
        // A name that appears in a directory was made by somebody, where the kernel lets fanotify tell.
        let by = &line.value[if line.value["process"].is_null() {
            "actor"
        } else {
            "process"
        }];
        let unknown = by.is_null() && !scene.is_fentry();
        assert!(unknown || by["pid"] == scene.daemon.pid(), "{}", line.raw);
    }
}

#[track_caller]
fn whole(mut scene: Scene) {
    life(&mut scene);
    scene.watch.stop();
}

#[test]
fn a_socket_file() {
    whole(Scene::unix());
}

#[test]
fn a_socket_file_twice() {
    let mut scene = Scene::unix();
    life(&mut scene);
    let path = scene.sandbox.path("annad.sock").display().to_string();
    scene.daemon.tell(&format!("unlink {path}"));
    scene.tell("listen");
    scene.expect(&["bind", "listen", "close", "bind", "listen"]);
    scene.tell("close");
    scene.expect(&["bind", "listen", "close", "bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn an_abstract_name() {
    whole(Scene::abstract_name());
}

#[test]
fn a_relative_path() {
    let mut scene = Scene::unix();
    let dir = scene.sandbox.dir().display().to_string();
    scene.daemon.tell(&format!("chdir {dir}"));
    scene.daemon.tell("listen unix:annad.sock");
    scene.expect(&["bind", "listen"]);
    scene.daemon.tell("close unix:annad.sock");
    scene.expect(&["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn a_path_with_a_hard_link() {
    let mut scene = Scene::unix();
    scene.tell("listen");
    let (path, link) = (scene.sandbox.path("annad.sock"), scene.sandbox.path("link.sock"));
    let line = format!("link {} {}", path.display(), link.display());
    scene.daemon.tell(&line);
    scene.expect(&["bind", "listen"]);
    scene.tell("close");
    scene.expect(&["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn a_path_that_is_a_hard_link() {
    let mut scene = Scene::unix();
    let (path, bound) = (scene.sandbox.path("annad.sock"), scene.sandbox.path("bound.sock"));
    scene.daemon.tell(&format!("listen unix:{}", bound.display()));
    scene.expect(&[]);
    // The declared name is made now: that is its bind, and a socket listens there at once.
    let line = format!("link {} {}", bound.display(), path.display());
    scene.daemon.tell(&line);
    scene
        .watch
        .expect_event("listen", Scene::SERVICE, "at the link", |_| true);
    scene.expect(&["bind", "listen"]);
    scene.daemon.tell(&format!("close unix:{}", bound.display()));
    scene
        .watch
        .expect_event("close", Scene::SERVICE, "at the link", |_| true);
    scene.expect(&["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn tcp_of_ipv4() {
    whole(Scene::inet("tcp", "127.0.0.1"));
}

#[test]
fn tcp_of_ipv6() {
    whole(Scene::inet("tcp", "[::1]"));
}

#[test]
fn tcp_of_both() {
    whole(Scene::inet("tcp", "[::]"));
}

#[test]
fn tcp_of_both_that_serves_an_ipv4_address() {
    let mut scene = Scene::inet("tcp", "127.0.0.1");
    let begin = scene.beginning();
    let address = scene.address.replace("127.0.0.1", "[::]");
    scene.daemon.tell(&format!("listen {address}"));
    scene.expect(begin);
    scene.daemon.tell(&format!("close {address}"));
    scene.expect(&[begin, &["close"]].concat());
    scene.watch.stop();
}

#[test]
fn udp_of_ipv4() {
    whole(Scene::inet("udp", "127.0.0.1"));
}

#[test]
fn udp_of_ipv6() {
    whole(Scene::inet("udp", "[::1]"));
}

#[test]
fn udp_of_both() {
    whole(Scene::inet("udp", "[::]"));
}

#[test]
fn a_pair_that_shares_a_port() {
    let mut scene = Scene::inet("tcp", "127.0.0.1");
    let (mut first, mut second) = (scene.sharing(), scene.sharing());
    let (one, address) = (scene.beginning(), scene.address.clone());
    let both = [one, one].concat();
    for daemon in [&mut first, &mut second] {
        daemon.tell(&format!("listen {address}"));
    }
    scene.expect(&both);
    first.tell(&format!("close {address}"));
    scene.expect(&[&both[..], &["close"]].concat());
    second.tell(&format!("close {address}"));
    scene.expect(&[&both[..], &["close", "close"]].concat());
    scene.watch.stop();
}

#[test]
fn a_shutdown_ends_a_unix_listener_once() {
    let mut scene = Scene::unix();
    scene.tell("listen");
    scene.expect(&["bind", "listen"]);
    scene.tell("shutdown");
    if scene.is_fentry() {
        scene.expect(&["bind", "listen", "close"]);
    } else {
        let said = scene.watching().raw;
        assert!(said.contains("shutdown() of a UNIX listener"), "{said}");
    }
    scene.tell("close");
    scene.expect(&["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn a_shutdown_ends_a_tcp_listener_once() {
    let mut scene = Scene::inet("tcp", "127.0.0.1");
    let begin = scene.beginning();
    scene.tell("listen");
    scene.tell("shutdown");
    scene.expect(&[begin, &["close"]].concat());
    scene.tell("close");
    scene.expect(&[begin, &["close"]].concat());
    scene.watch.stop();
}

/// What one tier cannot see, it says that it cannot.
#[track_caller]
fn refused_bind(mut scene: Scene, blind: &str) {
    let begin = scene.beginning();
    scene.tell("listen");
    scene.expect(begin);
    let mut second = scene.another();
    let why = second.fails(&format!("listen {}", scene.address));
    assert!(why.contains("EADDRINUSE"), "{why}");
    let said = scene.watching().raw;
    if scene.is_fentry() {
        scene.expect(&[begin, &["bind EADDRINUSE"]].concat());
        let refused = scene.watch.expect("bind-refused", Scene::SERVICE);
        refused
            .by(second.pid())
            .says("EADDRINUSE")
            .says(scene.daemon.pid());
        assert_eq!(refused.severity, "warning");
        second.kill("KILL");
        scene.watch.expect_resolved("bind-refused", Scene::SERVICE);
        assert!(!said.contains(blind), "{said}");
    } else {
        scene.expect(begin);
        assert!(said.contains(blind), "{said}");
    }
    scene.watch.stop();
}

#[test]
fn a_refused_bind_of_a_path() {
    refused_bind(Scene::unix(), "binds of UNIX sockets that fail");
}

#[test]
fn a_refused_bind_of_an_abstract_name() {
    refused_bind(Scene::abstract_name(), "binds of UNIX sockets that fail");
}

#[test]
fn a_refused_bind_of_tcp_of_ipv4() {
    refused_bind(Scene::inet("tcp", "127.0.0.1"), "binds of IPv4 sockets that fail");
}

#[test]
fn a_refused_bind_of_tcp_of_ipv6() {
    refused_bind(Scene::inet("tcp", "[::1]"), "binds of IPv6 sockets that fail");
}

#[test]
fn a_refused_bind_of_udp() {
    refused_bind(Scene::inet("udp", "127.0.0.1"), "binds of IPv4 sockets that fail");
}

/// From Linux 6.11.
fn by_io_uring(mut scene: Scene) {
    if let Err(why) = io_uring() {
        eprintln!("skipped: no bind through io_uring here: {why}");
        return scene.watch.stop();
    }
    scene.daemon.tell("io_uring");
    whole(scene);
}

#[test]
fn a_socket_file_by_io_uring() {
    by_io_uring(Scene::unix());
}

#[test]
fn tcp_by_io_uring() {
    by_io_uring(Scene::inet("tcp", "127.0.0.1"));
}

#[test]
fn tcp_of_ipv6_by_io_uring() {
    by_io_uring(Scene::inet("tcp", "[::1]"));
}
