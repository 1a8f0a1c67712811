//! The scene of the tests of what the kernel tells of sockets: a daemon that does with its sockets what it is told.

use std::path::PathBuf;

use crate::{
    clock::until,
    daemon::Daemon,
    log::Line,
    sandbox::{Sandbox, free_port},
    watch::Watch,
};

/// Its sockets show that everything before was told.
const MARK: &str = "mark";

/// A watched service with one address, and a second service for marks.
#[derive(Debug)]
pub struct KernelScene {
    pub watch: Watch,
    pub sandbox: Sandbox,
    pub daemon: Daemon,
    pub address: String,
    exe: PathBuf,
    mark: Daemon,
    marks: usize,
}

impl KernelScene {
    pub const SERVICE: &str = "annad";

    /// The service declares `address`, and does not listen yet.
    pub fn new(address: impl FnOnce(&Sandbox) -> String) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, Self::SERVICE);
        let mark = Daemon::install(&sandbox, MARK);
        let address = address(&sandbox);
        let service = |name, exe, address: &str| {
            format!(
                "\n[[service]]\nname = {name:?}\nexe = {exe:?}\nlisten = [{address:?}]\nexpected = false\n\
                 ready_within = \"10m\"\nrelisten_within = \"10m\"\n"
            )
        };
        let mark_address = format!("unix:{}", sandbox.path("mark.sock").display());
        let config = service(Self::SERVICE, &exe, &address) + &service(MARK, &mark, &mark_address);
        let watch = Watch::start(&sandbox, &config);
        let (daemon, mark) = (Daemon::at(&exe).start(), Daemon::at(&mark).start());
        let scene = Self {
            watch,
            sandbox,
            daemon,
            address,
            exe,
            mark,
            marks: 0,
        };
        scene.watch.expect_event("exec", MARK, "of the mark", |_| true);
        scene
    }

    /// At a socket file.
    pub fn unix() -> Self {
        Self::new(|s| format!("unix:{}", s.path("annad.sock").display()))
    }

    /// At an abstract name.
    pub fn abstract_name() -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").to_owned();
        Self::new(|_| format!("unix:@probe-{}-{test}", std::process::id()))
    }

    /// At a free port of `ip`, with the scheme `tcp` or `udp`.
    pub fn inet(scheme: &str, ip: &str) -> Self {
        Self::new(|_| format!("{scheme}:{ip}:{}", free_port()))
    }

    /// Another process of the same executable.
    pub fn another(&self) -> Daemon {
        Daemon::at(&self.exe).start()
    }

    /// One that shares its port.
    pub fn sharing(&self) -> Daemon {
        Daemon::at(&self.exe).arg("--reuse-port").start()
    }

    /// Whether all hooks on sockets of this kind are trampolines.
    pub fn is_fentry(&self) -> bool {
        let subject = match self.address.starts_with("unix:") {
            true => "unix_socket",
            false => "inet_socket",
        };
        self.watching().value["tier"][subject] == "fentry"
    }

    /// The line that says how the service is watched.
    pub fn watching(&self) -> Line {
        self.watch.expect_line("watching", "of the service", |l| {
            l.value["service"] == Self::SERVICE
        })
    }

    /// Tells the daemon to do something with the declared address.
    #[track_caller]
    pub fn tell(&mut self, verb: &str) {
        let line = format!("{verb} {}", self.address);
        self.daemon.tell(&line);
    }

    /// What is told of a socket that is bound and listens, in this tier: of a UDP socket only that it serves; of a bind of a
    /// TCP socket or of an abstract name only the fentry tier tells.
    pub fn beginning(&self) -> &'static [&'static str] {
        let is_file = self.address.starts_with("unix:/");
        match self.address.starts_with("udp:") {
            true => &["listen"],
            false if is_file || self.is_fentry() => &["bind", "listen"],
            false => &["listen"],
        }
    }

    /// Shows that exactly these binds, listens and closes were told of the service since the beginning, in this order; a
    /// bind that failed as `bind EADDRINUSE`.
    #[track_caller]
    pub fn expect(&mut self, events: &[&str]) {
        let told: Vec<String> = self.told().iter().map(name).collect();
        assert_eq!(told, events, "left: what was told; right: what happened");
    }

    /// The lines of [`Self::expect`].
    #[track_caller]
    pub fn told(&mut self) -> Vec<Line> {
        self.mark();
        let kind = |l: &Line| l.value["kind"].as_str().unwrap_or_default().to_owned();
        self.watch
            .lines()
            .into_iter()
            .filter(|l| l.kind() == "event" && l.value["service"] == Self::SERVICE)
            .filter(|l| ["bind", "listen", "close"].contains(&kind(l).as_str()))
            .collect()
    }

    /// Waits until everything that has happened so far is told: until a socket that is bound, listens and is closed now is.
    #[track_caller]
    fn mark(&mut self) {
        self.marks += 1;
        let path = self.sandbox.path("mark.sock");
        for kind in ["listen", "close"] {
            self.mark.tell(&format!("{kind} unix:{}", path.display()));
            until(&format!("the {kind} of the mark is told"), || {
                let lines = self.watch.lines();
                let told = lines
                    .iter()
                    .filter(|l| l.value["kind"] == kind && l.value["service"] == MARK);
                // As many as there were marks: this one is told now.
                told.count() >= self.marks
            });
        }
        std::fs::remove_file(path).expect("the mark's file");
    }
}

fn name(event: &Line) -> String {
    let kind = event.value["kind"].as_str().unwrap_or_default();
    match event.value["error"].as_str() {
        Some(error) => format!("{kind} {error}"),
        None => kind.to_owned(),
    }
}
