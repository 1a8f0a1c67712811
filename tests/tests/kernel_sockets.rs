//! What the kernel tells of sockets: each bind, listen and close exactly once, in every tier. `cargo xtask vm` runs this on
//! several kernels.

use probe_tests::{Daemon, Sandbox, Watch, free_port, kill, until};

const SERVICE: &str = "annad";
/// Its sockets show that everything before was told.
const MARK: &str = "mark";

/// A watched service with one address, and a second one for marks.
struct Scene {
    watch: Watch,
    sandbox: Sandbox,
    daemon: Daemon,
    address: String,
    mark: Daemon,
    marks: u32,
}

impl Scene {
    fn new(address: impl FnOnce(&Sandbox) -> String) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, SERVICE);
        let mark = Daemon::install(&sandbox, MARK);
        let address = address(&sandbox);
        let service = |name, exe, address: &str| {
            format!(
                "\n[[service]]\nname = {name:?}\nexe = {exe:?}\nlisten = [{address:?}]\nexpected = false\n\
                 ready_within = \"10m\"\nrelisten_within = \"10m\"\n"
            )
        };
        let mark_address = format!("unix:{}", sandbox.path("mark.sock").display());
        let config = service(SERVICE, &exe, &address) + &service(MARK, &mark, &mark_address);
        let watch = Watch::start(&sandbox, &config);
        let (daemon, mark) = (Daemon::at(&exe).start(), Daemon::at(&mark).start());
        let scene = Self {
            watch,
            sandbox,
            daemon,
            address,
            mark,
            marks: 0,
        };
        scene.watch.expect_event("exec", MARK, "of the mark", |_| true);
        scene
    }

    fn unix() -> Self {
        Self::new(|s| format!("unix:{}", s.path("annad.sock").display()))
    }

    fn another(&self) -> Daemon {
        Daemon::at(&self.sandbox.path(SERVICE))
            .arg("--reuse-port")
            .start()
    }

    fn fentry(&self, subject: &str) -> bool {
        let tier = self
            .watch
            .expect_line("watching", "of the service", |l| l.value["service"] == SERVICE);
        tier.value["tier"][subject] == "fentry"
    }

    /// The kinds of events about the address so far, in their order.
    fn events(&mut self) -> Vec<String> {
        self.marks += 1;
        let socket = format!("unix:{}", self.sandbox.path("mark.sock").display());
        for (line, kind) in [("listen", "listen"), ("close", "close")] {
            self.mark.tell(&format!("{line} {socket}"));
            let marks = self.marks as usize;
            // As many as there were marks: this one is told now.
            until(&format!("the {kind} of the mark is told"), || {
                let lines = self.watch.lines();
                let told = lines
                    .iter()
                    .filter(|l| l.value["kind"] == kind && l.value["service"] == MARK);
                told.count() >= marks
            });
        }
        std::fs::remove_file(self.sandbox.path("mark.sock")).expect("the mark's file");
        self.watch
            .lines()
            .iter()
            .filter(|l| l.kind() == "event" && l.value["service"] == SERVICE)
            .filter(|l| ["bind", "listen", "close"].contains(&l.value["kind"].as_str().unwrap_or_default()))
            .map(|l| l.value["kind"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn tell(&mut self, verb: &str) {
        let line = format!("{verb} {}", self.address);
        self.daemon.tell(&line);
    }
}

/// Bind, listen and close of a stream socket; only the fentry tier tells of a bind of TCP.
fn stream(mut scene: Scene, bind_is_told: bool) {
    scene.tell("listen");
    let begin: &[&str] = if bind_is_told {
        &["bind", "listen"]
    } else {
        &["listen"]
    };
    assert_eq!(scene.events(), begin);
    scene.tell("close");
    assert_eq!(scene.events(), [begin, &["close"]].concat());
    scene.watch.stop();
}

#[test]
fn a_socket_file() {
    stream(Scene::unix(), true);
}

#[test]
fn an_abstract_name() {
    let scene = Scene::new(|_| format!("unix:@probe-test-{}", std::process::id()));
    let fentry = scene.fentry("unix_socket");
    stream(scene, fentry);
}

#[test]
fn a_relative_path() {
    let mut scene = Scene::unix();
    let dir = scene.sandbox.dir().display().to_string();
    scene.daemon.tell(&format!("chdir {dir}"));
    scene.daemon.tell("listen unix:annad.sock");
    assert_eq!(scene.events(), ["bind", "listen"]);
    scene.daemon.tell("close unix:annad.sock");
    assert_eq!(scene.events(), ["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn tcp() {
    for ip in ["127.0.0.1", "[::1]", "[::]"] {
        let scene = Scene::new(|_| format!("tcp:{ip}:{}", free_port()));
        let fentry = scene.fentry("inet_socket");
        stream(scene, fentry);
    }
}

#[test]
fn udp() {
    for ip in ["127.0.0.1", "[::1]"] {
        let mut scene = Scene::new(|_| format!("udp:{ip}:{}", free_port()));
        scene.tell("listen");
        assert_eq!(scene.events(), ["listen"]);
        scene.tell("close");
        assert_eq!(scene.events(), ["listen", "close"]);
        scene.watch.stop();
    }
}

#[test]
fn a_pair_that_shares_a_port() {
    let mut scene = Scene::new(|_| format!("tcp:127.0.0.1:{}", free_port()));
    let (mut first, mut second) = (scene.another(), scene.another());
    let fentry = scene.fentry("inet_socket");
    let both: &[&str] = if fentry {
        &["bind", "listen", "bind", "listen"]
    } else {
        &["listen", "listen"]
    };
    for daemon in [&mut first, &mut second] {
        daemon.tell(&format!("listen {}", scene.address));
    }
    assert_eq!(scene.events(), both);
    first.tell(&format!("close {}", scene.address));
    assert_eq!(scene.events(), [both, &["close"]].concat());
    second.tell(&format!("close {}", scene.address));
    assert_eq!(scene.events(), [both, &["close", "close"]].concat());
    scene.watch.stop();
}

#[test]
fn kill_9() {
    let mut scene = Scene::unix();
    scene.tell("listen");
    // In the tracepoint tier a listener is known by a look, which a kill can come before.
    assert_eq!(scene.events(), ["bind", "listen"]);
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.watch.expect("stale-socket", SERVICE);
    assert_eq!(scene.events(), ["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn an_inherited_listener_ends_with_its_last_holder() {
    let mut scene = Scene::unix();
    scene.tell("listen");
    let child: u32 = scene.daemon.tell("fork").parse().expect("a pid");
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    assert_eq!(scene.events(), ["bind", "listen"]);
    kill("KILL", child);
    scene.watch.expect("stale-socket", SERVICE);
    assert_eq!(scene.events(), ["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn an_exec_that_keeps_the_listener() {
    let mut scene = Scene::unix();
    scene.tell("listen");
    scene.daemon.tell("exec");
    assert_eq!(scene.events(), ["bind", "listen"]);
    scene.watch.stop();
}

#[test]
fn shutdown_without_close() {
    let mut scene = Scene::unix();
    if !scene.fentry("unix_socket") {
        eprintln!("skipped: this tier does not see it");
        return scene.watch.stop();
    }
    scene.tell("listen");
    scene.tell("shutdown");
    assert_eq!(scene.events(), ["bind", "listen", "close"]);
    scene.watch.stop();
}

#[test]
fn a_refused_bind() {
    for address in ["unix:", "tcp:127.0.0.1:"] {
        let mut scene = Scene::new(|s| match address {
            "unix:" => format!("unix:{}", s.path("annad.sock").display()),
            _ => format!("{address}{}", free_port()),
        });
        let line = format!("listen {}", scene.address);
        scene.daemon.tell(&line);
        // Now the first look has told who holds it.
        scene.events();
        let mut second = Daemon::at(&scene.sandbox.path(SERVICE)).start();
        assert!(second.fails(&line).contains("EADDRINUSE"));
        let subject = if address == "unix:" {
            "unix_socket"
        } else {
            "inet_socket"
        };
        let spots = scene
            .watch
            .expect_line("watching", "", |l| l.value["service"] == SERVICE);
        if scene.fentry(subject) {
            let refused = scene.watch.expect("bind-refused", SERVICE);
            refused
                .by(second.pid())
                .says("EADDRINUSE")
                .says(scene.daemon.pid());
            assert_eq!(refused.severity, "warning");
            second.kill("KILL");
            scene.watch.expect_resolved("bind-refused", SERVICE);
        } else {
            assert!(spots.raw.contains("binds of"), "{}", spots.raw);
        }
        scene.watch.stop();
    }
}
