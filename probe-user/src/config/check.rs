//! What a configuration must mean, beyond having the right keys and types.

mod hook;
mod service;

use std::{collections::BTreeMap, time::Duration};

use super::{Config, Netns, Service};
use crate::address::Address;

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
    c.each("service", &config.services, |c, s| service::check(c, s, complete));
    c.each("hook", &config.hooks, |c, h| hook::check(c, h, config, complete));
    hook::between(&mut c, &config.hooks);
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
    if p.group.is_empty() {
        c.key("group", "`group` must be the name of a group");
    }
    if let Some(address) = p.api_tcp.filter(|a| !a.ip().is_loopback()) {
        c.key(
            "api_tcp",
            format!(
                "`api_tcp` must be a loopback address, for example \"127.0.0.1:9464\"; {address} could be reached by others"
            ),
        );
    }
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
