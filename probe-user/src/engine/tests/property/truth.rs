//! What must be known and found in the end, by how the host really is.

use std::collections::BTreeSet;

use super::{
    host::{PID_FILE, Sock, TCP, UNIX},
    runtime::Driver,
};
use crate::{
    engine::{
        finding::Kind,
        state::{End, EndKind, Instance},
    },
    event::{PathState, PidFileContent, ProcId},
};

/// # Errors
/// What differs.
pub(super) fn check(driver: &Driver) -> Result<(), String> {
    if driver.is_endless() {
        return Err("it asks without end".to_owned());
    }
    state(driver)?;
    findings(driver)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, known: &T, real: &T) -> Result<(), String> {
    if known == real {
        return Ok(());
    }
    Err(format!("{what}: the engine knows {known:?}, but it is {real:?}"))
}

/// Members, sockets with their holders, the path, and the PID file are known as they are.
fn state(driver: &Driver) -> Result<(), String> {
    let (engine, host) = (&driver.engine, &driver.host);
    let service = &engine.services[0];
    let members: BTreeSet<ProcId> = service.members.keys().copied().collect();
    same("members", &members, &host.members)?;
    same("index of members", &engine.members().collect(), &host.members)?;
    let living: BTreeSet<ProcId> = service
        .instances
        .values()
        .flat_map(|i| &i.living)
        .copied()
        .collect();
    same("members of instances", &living, &host.members)?;
    for address in [UNIX, TCP] {
        let ledger = engine.addresses.of(address);
        let known: BTreeSet<(u64, bool, Vec<ProcId>)> = ledger
            .live
            .values()
            .map(|e| {
                (
                    e.socket.inode,
                    e.is_listening(),
                    e.socket.holders.iter().map(|h| h.process).collect(),
                )
            })
            .collect();
        let real: BTreeSet<(u64, bool, Vec<ProcId>)> = socks(driver, address)
            .map(|s| (s.inode, s.listening, s.holders.iter().copied().collect()))
            .collect();
        same(address, &known, &real)?;
        let path = (address == UNIX).then(|| host.path.map_or(PathState::Absent, PathState::Socket));
        same("path", &ledger.path, &path)?;
    }
    let content = service.pid_file.as_ref().map(|(s, ..)| s.content.clone());
    same(
        "PID file",
        &content,
        &Some(
            host.pid_file
                .map_or(PidFileContent::Absent, |(p, _)| PidFileContent::Pid(p)),
        ),
    )?;
    let named = host
        .pid_file
        .and_then(|(pid, _)| host.members.iter().find(|id| id.pid == pid))
        .copied();
    same("named by the PID file", &service.named_by_pid_file(), &named)
}

fn socks<'a>(driver: &'a Driver, address: &'a str) -> impl Iterator<Item = &'a Sock> {
    driver
        .host
        .socks
        .iter()
        .filter(move |s| s.file.is_some() == (address == UNIX))
}

/// Of the kinds that say how things are. Only whether a stop was asked, and who forked whom, is history, and that is
/// taken from the engine.
fn findings(driver: &Driver) -> Result<(), String> {
    let (engine, host) = (&driver.engine, &driver.host);
    let service = &engine.services[0];
    let explained = service.stopped_as_asked();
    let stopping = service.stopping().is_some();
    // What lives on is left of a life that was stopped.
    let left = service.outlived().is_some_and(|e| e.explains_leftovers());
    let member = |id: &ProcId| host.members.contains(id);
    let serves = |s: &&Sock| s.listening && (s.file.is_none() || s.file == host.path);
    let mut want = BTreeSet::new();
    for address in [UNIX, TCP] {
        let serving: Vec<&Sock> = socks(driver, address).filter(serves).collect();
        let taken = serving.iter().any(|s| !s.holders.iter().any(member));
        if taken && !serving.iter().any(|s| s.holders.iter().any(member)) {
            want.insert((Kind::AddressTaken, address.to_owned()));
        }
        if !host.members.is_empty() && !stopping && !left && !socks(driver, address).any(|s| s.listening) {
            want.insert((Kind::NotListening, address.to_owned()));
        }
    }
    let dead = host
        .path
        .filter(|file| !host.socks.iter().any(|s| s.file == Some(*file)));
    let left_by = dead.and_then(|file| host.left_by.get(&file));
    let ends = || {
        let ends = service.last_end.iter().chain(&service.deaths);
        ends.chain(&service.holder_ends)
    };
    // What goes by itself after the main process has crashed goes because of that.
    let crashed = service.last_end.as_ref().filter(|e| e.kind == EndKind::Crash);
    let after_crash = |e: &End| {
        e.kind == EndKind::Clean && crashed.is_some_and(|c| c.generation == e.generation && c.at < e.at)
    };
    let asked =
        |id: &ProcId| ends().any(|e| e.process.id == *id && e.explains_leftovers() && !after_crash(e));
    let unseen = driver.has_unseen_heir();
    if dead.is_some() && !left_by.is_some_and(asked) && !explained && !stopping {
        want.insert((Kind::StaleSocket, UNIX.to_owned()));
    }
    let instance = |id: &ProcId| service.members.get(id).map(|m| m.instance);
    for s in socks(driver, UNIX).filter(|s| s.listening && s.file != host.path) {
        let own: BTreeSet<u32> = s.holders.iter().filter_map(instance).collect();
        let asked = !own.is_empty() && own.iter().all(|i| service.instance_asked(*i).is_some());
        let replaced = socks(driver, UNIX)
            .filter(serves)
            .any(|s| s.holders.iter().filter_map(instance).any(|i| own.contains(&i)));
        if !asked && !replaced {
            want.insert((Kind::OrphanedListener, UNIX.to_owned()));
        }
    }
    if host.members.is_empty() && !explained {
        want.insert((Kind::NotRunning, "d".to_owned()));
    }
    let names = |(pid, _)| host.members.iter().any(|id| id.pid == pid);
    if host.pid_file.is_some() && !host.pid_file.is_some_and(names) && !explained && !stopping {
        want.insert((Kind::StalePidFile, PID_FILE.to_owned()));
    }
    let remains = |i: &Instance| {
        let own = |id: &ProcId| i.living.contains(id);
        let named = host
            .pid_file
            .is_some_and(|(pid, _)| i.living.iter().any(|id| id.pid == pid));
        !own(&i.root.id) && !named && !host.socks.iter().any(|s| s.holders.iter().any(own))
    };
    if service.qualified().filter(|(_, i)| !remains(i)).count() > 1 {
        want.insert((Kind::DuplicateInstance, "d".to_owned()));
    }
    let kinds = [
        Kind::AddressTaken,
        Kind::NotListening,
        Kind::StaleSocket,
        Kind::OrphanedListener,
        Kind::NotRunning,
        Kind::StalePidFile,
        Kind::DuplicateInstance,
    ];
    let found: BTreeSet<(Kind, String)> = driver
        .open()
        .into_iter()
        .filter(|(k, _)| kinds.contains(k))
        .collect();
    let known = |(kind, _): &&(Kind, String)| !unseen || *kind != Kind::StaleSocket;
    let (missing, wrong): (Vec<_>, Vec<_>) = (
        want.difference(&found).filter(known).collect(),
        found.difference(&want).filter(known).collect(),
    );
    if missing.is_empty() && wrong.is_empty() {
        return Ok(());
    }
    Err(format!("not found: {missing:?}; found and not so: {wrong:?}"))
}
