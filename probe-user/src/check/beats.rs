//! Signs of life, read once.

use std::{collections::BTreeMap, os::fd::AsFd, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Notes;
use crate::{
    clock::{self, Nanos},
    config::Config,
    event::What,
    sources::heartbeat::Heartbeats,
};

/// How long an answer at an address, or the journal, is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The newest beat of every service that declares one. A heartbeat that one look can't tell is taken out of `config`, so
/// that its absence is not judged, and noted.
pub(super) fn read(config: &mut Config, notes: &mut Notes) -> Vec<(String, Option<Nanos>)> {
    let mut heartbeats = match Heartbeats::new(config) {
        Ok(heartbeats) => heartbeats,
        Err(e) => {
            for s in config.services.iter_mut().filter(|s| s.heartbeat.is_some()) {
                s.heartbeat = None;
                notes.add(&s.name, format!("its heartbeat: {e}"));
            }
            return Vec::new();
        }
    };
    let mut beats: BTreeMap<String, Option<Nanos>> = BTreeMap::new();
    let mut take = |what| {
        if let What::Heartbeat { service, beat } = what {
            let known = beats.entry(service).or_default();
            *known = beat.max(*known);
        }
    };
    heartbeats.initial(clock::now(), &mut take);
    heartbeats.drain(clock::now(), &mut take);
    let limit = clock::now() + PATIENCE;
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    while clock::now() < limit && awaits(config, &heartbeats, &beats, &mut failures) {
        wait(&heartbeats, limit);
        heartbeats.drain(clock::now(), |what| {
            if let What::Heartbeat { service, beat } = what {
                let known = beats.entry(service).or_default();
                *known = beat.max(*known);
            }
        });
    }
    let blind: Vec<String> = heartbeats.blind().map(str::to_owned).collect();
    for s in &mut config.services {
        let Some(declared) = &s.heartbeat else { continue };
        let seen = beats.get(&s.name).copied().flatten().is_some();
        // That a file is not there, or holds no such line, is known at once.
        let at_once = declared.file.is_some() || declared.log.is_some();
        let hidden = blind.iter().find(|why| why.contains(&s.name));
        if seen || at_once && hidden.is_none() {
            continue;
        }
        let why = hidden.cloned().or_else(|| failures.remove(&s.name));
        let why = why.unwrap_or_else(|| "no sign of it within a single look".to_owned());
        notes.add(&s.name, format!("its heartbeat: {why}"));
        s.heartbeat = None;
        beats.remove(&s.name);
    }
    beats.into_iter().collect()
}

/// Whether an answer may still come.
fn awaits(
    config: &Config,
    heartbeats: &Heartbeats,
    beats: &BTreeMap<String, Option<Nanos>>,
    failures: &mut BTreeMap<String, String>,
) -> bool {
    for (service, why) in heartbeats.failures() {
        failures.insert(service.to_owned(), why.to_owned());
    }
    let asked = config.services.iter().filter(|s| {
        let active = |h: &crate::config::Heartbeat| h.connect.is_some() || h.journal.is_some();
        let unsupported = heartbeats.unsupported().iter().any(|u| u.service == s.name);
        s.heartbeat.as_ref().is_some_and(active) && !unsupported
    });
    asked
        .filter(|s| !failures.contains_key(&s.name))
        .any(|s| beats.get(&s.name).copied().flatten().is_none())
}

fn wait(heartbeats: &Heartbeats, limit: Nanos) {
    let until = heartbeats.deadline().map_or(limit, |due| due.min(limit));
    let left = until.since(clock::now()).max(Duration::from_millis(1));
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(heartbeats.as_fd(), PollFlags::POLLIN)];
    // Interrupted: looked at again.
    _ = poll(&mut fds, timeout);
}
