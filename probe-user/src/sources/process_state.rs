//! What a process is doing now, and its signal masks: `/proc/PID/task/*/{status,syscall}`, `/proc/PID/net/tcp*`.
//!
//! Asked only when a rule has a reason to know. Nothing here can block on the process that is looked at: its memory is
//! never read, so no lock of its address space is waited for.

mod lock;
mod syscall;
mod tcp;
mod thread;

#[cfg(test)]
mod tests;

use self::{
    syscall::{Call, Wait},
    tcp::Connections,
    thread::{Thread, Threads},
};
use super::process;
use crate::event::{ProcId, ProcessState, RunState};

/// How a process is now. `Gone` unless the pid names the same process before and after everything was read; a zombie is
/// gone.
///
/// `masks` is `None` where they could not be read of every thread, or there are more than 1024 of them: what one
/// unread thread blocks or waits for would be missing.
pub fn look(id: ProcId) -> ProcessState {
    let gone = ProcessState {
        process: id,
        run: RunState::Gone,
        masks: None,
        locks: Vec::new(),
    };
    if process::identity(id.pid) != Some(id) {
        return gone;
    }
    let threads = Threads::read(id.pid);
    let state = ProcessState {
        process: id,
        run: run_state(id.pid, &threads),
        masks: threads.masks(),
        locks: lock::held_by(id.pid),
    };
    if process::identity(id.pid) == Some(id) {
        state
    } else {
        gone
    }
}

/// Reads a text as each of the files that are read here, for fuzzing.
pub(crate) fn read_text(bytes: &[u8]) {
    _ = thread::parse(bytes);
    let text = String::from_utf8_lossy(bytes);
    _ = syscall::parse(&text);
    for line in text.lines() {
        _ = lock::holder(line);
        _ = tcp::Row::parse(line);
    }
}

fn run_state(pid: u32, threads: &Threads) -> RunState {
    // The first thread stands for the process; where it has ended, the oldest that lives.
    let mut live = threads.list.iter().filter(|t| t.is_alive());
    let Some(first) = live.next() else {
        return RunState::Running;
    };
    if first.is_stopped() {
        return RunState::Stopped;
    }
    if first.state == b'R' {
        return RunState::Running;
    }
    let asleep = std::iter::once(first).chain(live.clone());
    // Every disk access passes through state D for a moment, so it counts when it is still there at a second look.
    for thread in asleep.filter(|t| t.state == b'D') {
        if Thread::read(pid, thread.tid).is_ok_and(|again| again.state == b'D' && again.call == thread.call) {
            return RunState::Uninterruptible {
                syscall: syscall::name(pid, thread.tid, thread.call),
            };
        }
    }
    // A first thread that waits for the others says nothing; then one of those counts.
    let waiting: Vec<&Thread> = match first.call.wait() {
        Wait::Threads => live.filter(|t| t.state == b'S').collect(),
        _ => vec![first],
    };
    match unanswered_peer(pid, &waiting) {
        Some(peer) => RunState::WaitingOnPeer { peer },
        None => RunState::Running,
    }
}

/// The peer that one of these threads waits for.
fn unanswered_peer(pid: u32, threads: &[&Thread]) -> Option<String> {
    let mut connections: Option<Connections> = None;
    for thread in threads {
        let wait = thread.call.wait();
        if !matches!(wait, Wait::Descriptor(_) | Wait::Many) {
            continue;
        }
        // Of the thread, not of the process: network namespaces belong to threads.
        let known = connections.get_or_insert_with(|| Connections::read(pid, thread.tid));
        if known.is_empty() {
            continue;
        }
        let peer = match wait {
            Wait::Descriptor(fd) => {
                tcp::socket_inode(pid, fd).and_then(|inode| known.unanswered(inode).map(|c| c.peer()))
            }
            // Whoever waits on many is held up by a connection that it made, not by a client that went away.
            _ => tcp::socket_inodes(pid)
                .into_iter()
                .filter_map(|inode| known.unanswered(inode))
                .find(|c| c.outgoing)
                .map(|c| c.peer()),
        };
        if peer.is_some() {
            return peer;
        }
    }
    None
}

impl Thread {
    /// Which call it is in, from before its masks were read or after.
    fn waits_for_signals(&self) -> bool {
        [self.call, self.call_before]
            .iter()
            .any(|c: &Call| c.wait() == Wait::Signals)
    }
}
