//! What a configuration must mean, beyond having the right keys and types.

use std::{collections::BTreeMap, time::Duration};

use super::{Config, Heartbeat, Hook, Netns, Service};
use crate::{address::Address, signal::Signal};

/// A step from the top of a configuration to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// Something wrong, and where: from the top, `service`, 0, `listen`, 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub at: Vec<Step>,
    pub message: String,
}

/// Every contradiction in `config`. With `complete` false, parts of it are missing (they have problems of their own), and
/// nothing is said about what lacks.
pub fn check(config: &Config, complete: bool) -> Vec<Wrong> {
    let mut c = Check {
        wrong: Vec::new(),
        at: Vec::new(),
    };
    c.within("probe", |c| probe(c, config));
    c.within("limits", |c| {
        for (name, limit) in &config.limits {
            c.duration(name, limit.0);
        }
    });
    c.each("service", &config.services, |c, s| service(c, s, complete));
    c.each("hook", &config.hooks, |c, h| hook(c, h, config, complete));
    between_services(&mut c, &config.services, complete);
    c.wrong
}

/// Collects, and knows where it is.
struct Check {
    wrong: Vec<Wrong>,
    at: Vec<Step>,
}

impl Check {
    fn within(&mut self, key: &str, f: impl FnOnce(&mut Self)) {
        self.at.push(Step::Key(key.to_owned()));
        f(self);
        self.at.pop();
    }

    fn each<'a, T>(&mut self, key: &str, items: &'a [T], mut f: impl FnMut(&mut Self, &'a T)) {
        self.within(key, |c| {
            for (i, item) in items.iter().enumerate() {
                c.at.push(Step::Index(i));
                f(c, item);
                c.at.pop();
            }
        });
    }

    /// Something is wrong with the table that this is in.
    fn here(&mut self, message: impl Into<String>) {
        self.wrong.push(Wrong {
            at: self.at.clone(),
            message: message.into(),
        });
    }

    fn key(&mut self, key: &str, message: impl Into<String>) {
        self.within(key, |c| c.here(message));
    }

    fn duration(&mut self, key: &str, d: Duration) {
        if d.is_zero() {
            self.key(key, format!("`{key}` must be longer than zero"));
        }
    }

    fn absolute(&mut self, key: &str, path: Option<&str>) {
        if let Some(path) = path.filter(|p| !p.starts_with('/')) {
            self.key(key, format!("`{key}` must be an absolute path, {path:?} is none"));
        }
    }

    fn program(&mut self, key: &str, argv: Option<&Vec<String>>) {
        match argv.map(Vec::as_slice) {
            Some([]) => self.key(key, format!("`{key}` names no program")),
            Some([program, ..]) if program.is_empty() => self.key(key, format!("`{key}` names no program")),
            _ => {}
        }
    }
}

fn probe(c: &mut Check, config: &Config) {
    let p = &config.probe;
    c.absolute("socket", Some(&p.socket));
    c.absolute("state_dir", Some(&p.state_dir));
    c.duration("settle_every", p.settle_every);
    c.within("retention", |c| {
        c.duration("age", p.retention.age);
        if p.retention.size.0 == 0 {
            c.key("size", "`size` must be more than zero");
        }
    });
    c.within("timeouts", |c| {
        c.duration("connect", p.timeouts.connect);
        c.duration("write", p.timeouts.write);
        c.duration("read", p.timeouts.read);
    });
}

fn service(c: &mut Check, s: &Service, complete: bool) {
    if s.name.is_empty()
        || s.name.starts_with('-')
        || s.name.contains(|ch: char| ch == '/' || ch.is_control())
    {
        c.key(
            "name",
            format!(
                "{:?} is no name: it must not be empty, begin with `-`, or contain `/`",
                s.name
            ),
        );
    }
    if complete && !s.has_selector() && s.pid_file.is_none() && s.listen.is_empty() {
        c.here(format!(
            "service {:?} declares nothing to recognise it by; give it `listen`, `pid_file`, `exe` or `unit`",
            s.name
        ));
    }
    if complete && s.user.is_some() && s.unit.is_none() {
        c.key(
            "user",
            "`user` says whose `unit` is meant, and there is no `unit`",
        );
    }
    c.absolute("exe", s.exe.as_deref());
    c.absolute("pid_file", s.pid_file.as_deref());
    if s.max_instances == 0 {
        c.key(
            "max_instances",
            "`max_instances` must be at least 1; a service that need not run has `expected = false`",
        );
    }
    if s.singleton && s.max_instances > 1 {
        c.key(
            "singleton",
            format!("`singleton` means `max_instances = 1`, not {}", s.max_instances),
        );
    }
    for (key, d) in [
        ("overlap", s.overlap),
        ("ready_within", s.ready_within),
        ("accept_within", s.accept_within),
        ("signal_within", s.signal_within),
        ("stop_within", s.stop_within),
        ("relisten_within", s.relisten_within),
    ] {
        c.duration(key, d);
    }
    c.within("signals", |c| {
        c.each("handled", &s.signals.handled, |c, signal| {
            if [Signal::KILL, Signal::STOP].contains(signal) {
                c.here(format!("no process can handle SIG{signal}"));
            }
        });
    });
    if let Some(h) = &s.heartbeat {
        c.within("heartbeat", |c| heartbeat(c, h, complete));
    }
    c.within("crash_loop", |c| {
        c.duration("window", s.crash_loop.window);
        if s.crash_loop.restarts == 0 {
            c.key("restarts", "`restarts` must be at least 1");
        }
    });
    if let Some(heal) = &s.heal {
        c.within("heal", |c| {
            c.program("restart", heal.restart.as_ref());
            if heal.give_up_after == Some(0) {
                c.key(
                    "give_up_after",
                    "`give_up_after` must be at least 1; leave it out for never",
                );
            }
        });
    }
}

fn heartbeat(c: &mut Check, h: &Heartbeat, complete: bool) {
    let ways = [
        ("file", h.file.is_some()),
        ("notify", h.notify.is_some()),
        ("connect", h.connect.is_some()),
        ("log", h.log.is_some()),
        ("journal", h.journal.is_some()),
    ];
    let mut given = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way);
    match (given.next(), given.next()) {
        (None, _) if complete => {
            c.here("a heartbeat needs one of `file`, `notify`, `connect`, `log`, `journal`")
        }
        (Some(one), Some(two)) => c.key(
            two,
            format!("a heartbeat has one way, this has `{one}` and `{two}`"),
        ),
        _ => {}
    }
    c.absolute("file", h.file.as_deref());
    c.absolute("log", h.log.as_deref());
    c.duration("stale_after", h.stale_after);
    for (key, d) in [("every", h.every), ("timeout", h.timeout)] {
        if let Some(d) = d {
            c.duration(key, d.0);
        }
    }
    if h.notify == Some(false) {
        c.key(
            "notify",
            "`notify = false` is no heartbeat; leave `heartbeat` out",
        );
    }
    let only_with = [
        ("send", h.send.is_some(), "connect", h.connect.is_some()),
        ("expect", h.expect.is_some(), "connect", h.connect.is_some()),
        ("every", h.every.is_some(), "connect", h.connect.is_some()),
        ("timeout", h.timeout.is_some(), "connect", h.connect.is_some()),
        ("contains", h.contains.is_some(), "log", h.log.is_some()),
    ];
    for (key, _, other, _) in only_with
        .iter()
        .filter(|(_, given, _, other)| complete && *given && !other)
    {
        c.key(key, format!("`{key}` belongs to `{other}`, which is not there"));
    }
}

fn hook(c: &mut Check, h: &Hook, config: &Config, complete: bool) {
    match (&h.exec, &h.webhook) {
        (None, None) if complete => c.here("a hook needs `exec` or `webhook`"),
        (Some(_), Some(_)) => c.key("webhook", "a hook has either `exec` or `webhook`, this has both"),
        _ => {}
    }
    if complete && h.on.is_empty() && h.severity.is_none() {
        c.here("a hook needs `on` with kinds of findings, or `severity`");
    }
    c.program("exec", h.exec.as_ref());
    c.duration("timeout", h.timeout);
    if let Some(url) = h
        .webhook
        .as_ref()
        .filter(|u| !u.starts_with("http://") && !u.starts_with("https://"))
    {
        c.key(
            "webhook",
            format!("{url:?} is no URL that begins with http:// or https://"),
        );
    }
    if complete && h.exec.is_none() && h.user.is_some() {
        c.key("user", "`user` belongs to `exec`, which is not there");
    }
    if complete && h.webhook.is_none() && h.format.is_some() {
        c.key("format", "`format` belongs to `webhook`, which is not there");
    }
    if complete {
        let names: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        c.each("services", &h.services, |c, name| {
            if !names.contains(&name.as_str()) {
                let hint = super::load::nearest(name, &names).map(|n| format!(", did you mean {n:?}?"));
                c.here(format!(
                    "no service is named {name:?}{}",
                    hint.unwrap_or_default()
                ));
            }
        });
    }
}

fn between_services(c: &mut Check, services: &[Service], complete: bool) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pid_files: BTreeMap<&str, &str> = BTreeMap::new();
    let mut addresses: BTreeMap<(String, &Address), &str> = BTreeMap::new();
    c.each("service", services, |c, s| {
        *names.entry(&s.name).or_default() += 1;
        if names[s.name.as_str()] > 1 {
            c.key("name", format!("another service is named {:?} too", s.name));
        }
        if let Some(path) = &s.pid_file
            && let Some(other) = pid_files.insert(path, &s.name)
        {
            c.key("pid_file", format!("{path} is the PID file of service {other:?} too"));
        }
        c.each("listen", &s.listen, |c, address| {
            let netns = match &s.netns {
                Netns::Host => String::new(),
                // Each service's own; nothing is known about two of them.
                Netns::Main => format!("main of {}", s.name),
                Netns::Path(path) => path.clone(),
            };
            match addresses.insert((netns, address), &s.name) {
                Some(other) if other == s.name => c.here(format!("{address} is declared twice")),
                Some(other) => c.here(format!("{address} is declared by service {other:?} too")),
                None => {}
            }
        });
        if complete && let Some(exe) = &s.exe {
            let tells_apart = s.unit.is_some() || s.script.is_some() || s.argument.is_some() || s.pid.is_some();
            let other = services.iter().find(|o| !std::ptr::eq(*o, s) && o.exe.as_ref() == Some(exe));
            if let Some(other) = other.filter(|_| !tells_apart && s.listen.is_empty()) {
                c.key(
                    "exe",
                    format!(
                        "services {:?} and {:?} share {exe}; {:?} needs a `unit`, `script`, `argument` or `listen` that tells them apart",
                        other.name, s.name, s.name
                    ),
                );
            }
        }
    });
}
