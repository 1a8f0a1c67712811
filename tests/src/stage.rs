//! The stage of the tests of what the kernel tells of sockets: daemons that do with theirs what they are told, each a service
//! of its own, beside one probe. Loading its programs is what takes long in an emulated machine.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    daemon::Daemon,
    log::Line,
    sandbox::{Sandbox, free_port},
    watch::Watch,
};

/// Its sockets show that everything before was told.
pub(crate) const MARK: &str = "mark";

/// A watched service with one address, and its daemon.
#[derive(Debug)]
pub struct Actor {
    pub daemon: Daemon,
    pub address: String,
    exe: PathBuf,
}

/// Services by name, and one more for marks.
#[derive(Debug)]
pub struct Stage {
    pub watch: Watch,
    pub sandbox: Sandbox,
    actors: BTreeMap<String, Actor>,
    mark: Daemon,
    /// The number of the last event of the mark.
    marked: u64,
}

impl Stage {
    /// Each service declares one address: `unix` is the socket file `NAME.sock` of the sandbox, `abstract` a name, `tcp:IP`
    /// and `udp:IP` a free port. Its daemon runs, and does not listen yet.
    pub fn new(services: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::new();
        let toml = |name: &str, exe, address: &str| {
            format!(
                "\n[[service]]\nname = {name:?}\nexe = {exe:?}\nlisten = [{address:?}]\nexpected = false\n\
                 ready_within = \"10m\"\nrelisten_within = \"10m\"\n"
            )
        };
        let declared: Vec<(&str, PathBuf, String)> = services
            .iter()
            .chain([&(MARK, "unix")])
            .map(|(name, kind)| {
                (
                    *name,
                    Daemon::install(&sandbox, name),
                    address(&sandbox, name, kind),
                )
            })
            .collect();
        let config: String = declared.iter().map(|(n, exe, a)| toml(n, exe, a)).collect();
        let watch = Watch::start(&sandbox, &config);
        let mut actors: BTreeMap<String, Actor> = declared
            .into_iter()
            .map(|(name, exe, address)| {
                let daemon = Daemon::at(&exe).start();
                let actor = Actor { daemon, address, exe };
                (name.to_owned(), actor)
            })
            .collect();
        let mark = actors.remove(MARK).expect("declared above").daemon;
        watch.expect_event("exec", MARK, "of the mark", |_| true);
        Self {
            watch,
            sandbox,
            actors,
            mark,
            marked: 0,
        }
    }

    #[track_caller]
    pub fn actor(&mut self, service: &str) -> &mut Actor {
        self.actors.get_mut(service).expect("a declared service")
    }

    /// What the daemon of that service answers to a line.
    #[track_caller]
    pub fn say(&mut self, service: &str, line: &str) -> String {
        self.actor(service).daemon.tell(line)
    }

    /// Tells a daemon to do something with its declared address.
    #[track_caller]
    pub fn tell(&mut self, service: &str, verb: &str) {
        let line = format!("{verb} {}", self.actor(service).address);
        self.say(service, &line);
    }

    /// Kills a daemon, and waits for its end.
    #[track_caller]
    pub fn kill(&mut self, service: &str) {
        let daemon = &self.actor(service).daemon;
        daemon.kill("KILL");
        daemon.wait_gone();
    }

    /// Another process of a service's executable.
    #[track_caller]
    pub fn another(&mut self, service: &str) -> Daemon {
        Daemon::at(&self.actor(service).exe).start()
    }

    /// One that shares its port.
    #[track_caller]
    pub fn sharing(&mut self, service: &str) -> Daemon {
        Daemon::at(&self.actor(service).exe).arg("--reuse-port").start()
    }

    /// The line that says how a service is watched.
    #[track_caller]
    pub fn watching(&self, service: &str) -> Line {
        self.watch
            .expect_line("watching", "of the service", |l| l.value["service"] == service)
    }

    /// Whether all hooks on sockets of this service's kind are trampolines.
    #[track_caller]
    pub fn is_fentry(&mut self, service: &str) -> bool {
        let subject = match self.actor(service).address.starts_with("unix:") {
            true => "unix_socket",
            false => "inet_socket",
        };
        self.watching(service).value["tier"][subject] == "fentry"
    }

    /// What is told of a socket that is bound and listens, in this tier: of a UDP socket only that it serves; of a bind of a
    /// TCP socket or of an abstract name only the fentry tier tells.
    #[track_caller]
    pub fn beginning(&mut self, service: &str) -> &'static [&'static str] {
        let fentry = self.is_fentry(service);
        let address = &self.actor(service).address;
        match address.starts_with("udp:") {
            true => &["listen"],
            false if fentry || address.starts_with("unix:/") => &["bind", "listen"],
            false => &["listen"],
        }
    }

    /// Shows that exactly these binds, listens and closes were told of a service since the beginning, in this order; a bind
    /// that failed as `bind EADDRINUSE`.
    #[track_caller]
    pub fn expect(&mut self, service: &str, events: &[&str]) {
        // Some are noticed only by asking the kernel, a while later.
        self.watch.wait(&format!("{events:?} of {service}"), |lines| {
            (told(lines, service).count() >= events.len()).then_some(())
        });
        let told: Vec<String> = self.told(service).iter().map(name).collect();
        assert_eq!(told, events, "{service}: left what was told, right what happened");
    }

    /// The lines of [`Self::expect`].
    #[track_caller]
    pub fn told(&mut self, service: &str) -> Vec<Line> {
        self.mark();
        told(&self.watch.lines(), service).cloned().collect()
    }

    /// Waits until everything that has happened so far is told: until a socket that is bound, listens and is closed now is.
    #[track_caller]
    fn mark(&mut self) {
        let path = self.sandbox.path("mark.sock");
        for kind in ["listen", "close"] {
            self.mark.tell(&format!("{kind} unix:{}", path.display()));
            let after = self.marked;
            let seq = |l: &Line| l.value["seq"].as_u64().unwrap_or_default();
            let told = self
                .watch
                .expect_event(kind, MARK, "of this mark", |l| seq(l) > after);
            self.marked = seq(&told);
        }
        std::fs::remove_file(path).expect("the mark's file");
    }

    /// Ends the watch before the daemons: what probe would make of their end is no part of a test.
    #[track_caller]
    pub fn stop(self) {
        self.watch.stop();
    }
}

fn address(sandbox: &Sandbox, name: &str, kind: &str) -> String {
    match kind.split_once(':') {
        Some((scheme, ip)) => format!("{scheme}:{ip}:{}", free_port()),
        None if kind == "abstract" => {
            let sandbox = sandbox.dir().file_name().unwrap_or_default();
            format!("unix:@{}-{name}", sandbox.display())
        }
        None => format!("unix:{}", sandbox.path(&format!("{name}.sock")).display()),
    }
}

fn told<'a>(lines: &'a [Line], service: &str) -> impl Iterator<Item = &'a Line> {
    let kind = |l: &Line| l.value["kind"].as_str().unwrap_or_default().to_owned();
    lines
        .iter()
        .filter(move |l| l.kind() == "event" && l.value["service"] == service)
        .filter(move |l| ["bind", "listen", "close"].contains(&kind(l).as_str()))
}

fn name(event: &Line) -> String {
    let kind = event.value["kind"].as_str().unwrap_or_default();
    match event.value["error"].as_str() {
        Some(error) => format!("{kind} {error}"),
        None => kind.to_owned(),
    }
}
