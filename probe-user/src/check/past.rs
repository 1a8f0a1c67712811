//! What must have been so for a while: the same look without what has begun since.

use std::time::Duration;

use crate::{
    clock::Nanos,
    config::Config,
    event::{AddressState, PidFileContent, PidFileState, ProcId, Snapshot},
};

/// Longer than everything that the engine waits for after it has first seen it.
pub(super) fn begin(config: &Config, now: Nanos) -> Nanos {
    let longest = config
        .services
        .iter()
        .flat_map(|s| [s.overlap, s.relisten_within, s.accept_within, s.ready_within])
        .max()
        .unwrap_or_default();
    let reach = longest + Duration::from_secs(1);
    Nanos(
        now.0
            .saturating_sub(u64::try_from(reach.as_nanos()).unwrap_or(u64::MAX)),
    )
}

/// `now` without processes that began after `at`, what they hold, and who waits for whom.
pub(super) fn snapshot(now: &Snapshot, at: Nanos) -> Snapshot {
    let lived = |id: ProcId| id.start() < at;
    Snapshot {
        began: at,
        reason: now.reason,
        processes: now.processes.iter().filter(|p| lived(p.id)).cloned().collect(),
        addresses: now.addresses.iter().map(|a| address(a, lived)).collect(),
        pid_files: now.pid_files.iter().map(|f| pid_file(f, at, lived)).collect(),
    }
}

fn address(now: &AddressState, lived: impl Fn(ProcId) -> bool) -> AddressState {
    let mut then = now.clone();
    for socket in &mut then.sockets {
        socket.holders.retain(|h| lived(h.process));
        socket.head = None;
    }
    // One that nobody holds who lived then was not there.
    let held_now = |inode| {
        now.sockets
            .iter()
            .any(|s| s.inode == inode && !s.holders.is_empty())
    };
    then.sockets
        .retain(|s| !s.holders.is_empty() || !held_now(s.inode));
    then.processes.retain(|p| lived(p.id));
    then
}

fn pid_file(now: &PidFileState, at: Nanos, lived: impl Fn(ProcId) -> bool) -> PidFileState {
    let mut then = now.clone();
    if then.modified > at || then.process.as_ref().is_some_and(|p| !lived(p.id)) {
        then.content = PidFileContent::Absent;
        then.process = None;
    }
    then
}
