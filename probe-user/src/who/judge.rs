//! From what was seen to an answer. Pure.

use std::collections::BTreeMap;

use super::{Answer, AnswerType, File, Holder, Path, Socket, SocketState, State, rfc3339};
use crate::{
    clock::Nanos,
    event::{self, AddressState, FileId, PathState, ProcId},
};

/// What an answer is made of.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    pub state: &'a AddressState,
    pub at: Nanos,
    /// What makes a boot-clock time a wall-clock time: [`crate::clock::wall_offset`].
    pub wall_offset_ns: i64,
    /// When the file behind the path was made, on the boot clock (0: before boot).
    pub made: Option<Nanos>,
    pub links_to: Option<String>,
    /// `false`: there are processes whose descriptors could not be read.
    pub all_holders: bool,
    /// A socket of another network namespace may be bound to the path although none was seen.
    pub namespaces_unseen: bool,
    pub cannot_see: Vec<String>,
}

pub fn answer(seen: &Seen<'_>) -> Answer {
    let mut sockets: Vec<Socket> = seen.state.sockets.iter().map(|s| socket(seen, s)).collect();
    sockets.sort_by_key(|s| (rank(s), s.inode));
    let (state, summary) = judge(seen, &sockets);
    Answer {
        v: 1,
        r#type: AnswerType::Who,
        at: rfc3339(seen.at, seen.wall_offset_ns),
        boot_ns: seen.at.0,
        address: seen.state.address.clone(),
        state,
        summary,
        path: seen.state.path.as_ref().map(|p| path(seen, p)),
        netns: seen.state.netns,
        sockets,
        cannot_see: seen.cannot_see.clone(),
    }
}

fn rank(s: &Socket) -> u8 {
    match (s.reachable, s.state) {
        (Some(true), SocketState::Listening) => 0,
        (Some(true), _) => 1,
        (None, _) => 2,
        (Some(false), _) => 3,
    }
}

fn path(seen: &Seen<'_>, path: &PathState) -> Path {
    let (is, file) = match path {
        PathState::Absent => ("absent".to_owned(), None),
        PathState::Socket(id) => ("socket".to_owned(), Some(file(*id))),
        PathState::Other(what) => (what.clone(), None),
        PathState::Unknown(_) => ("unknown".to_owned(), None),
    };
    Path {
        is,
        file,
        links_to: seen.links_to.clone(),
        made_at: seen.made.map(|at| rfc3339(at, seen.wall_offset_ns)),
        made_boot_ns: seen.made.map(|at| at.0),
    }
}

fn file(id: FileId) -> File {
    File {
        dev: id.dev,
        inode: id.ino,
    }
}

fn socket(seen: &Seen<'_>, socket: &event::Socket) -> Socket {
    let reachable = match &seen.state.path {
        None => Some(true),
        Some(PathState::Socket(id)) => Some(socket.file == Some(*id)),
        Some(PathState::Absent | PathState::Other(_)) => Some(false),
        Some(PathState::Unknown(_)) => None,
    };
    let has_queue = socket.backlog > 0 || socket.queue > 0;
    Socket {
        inode: socket.inode,
        cookie: socket.id.0,
        state: match socket.state {
            event::SocketState::Listening => SocketState::Listening,
            event::SocketState::Bound => SocketState::Bound,
            event::SocketState::ShutDown => SocketState::ShutDown,
        },
        reachable,
        file: socket.file.map(file),
        ip: socket.ip,
        queue: has_queue.then_some(socket.queue),
        limit: has_queue.then_some(socket.backlog),
        holders: holders(seen, socket, reachable == Some(true)),
        holders_complete: socket.holders_known && seen.all_holders,
    }
}

/// `is_ours`: the path leads to the socket, so it was bound when the file was made.
fn holders(seen: &Seen<'_>, socket: &event::Socket, is_ours: bool) -> Vec<Holder> {
    let mut found: BTreeMap<ProcId, Holder> = BTreeMap::new();
    for h in &socket.holders {
        let process = seen.state.processes.iter().find(|p| p.id == h.process);
        let holder = found
            .entry(h.process)
            .or_insert_with(|| Holder::new(process, h.process));
        // A descriptor that an event told of and no look.
        if h.fd >= 0 {
            holder.fds.push(h.fd);
        }
    }
    let bound = seen.made.filter(|_| is_ours).map_or(0, |at| at.0);
    let mut holders: Vec<Holder> = found.into_values().collect();
    for h in &mut holders {
        h.fds.sort_unstable();
        h.since_boot_ns = h.start_ns.max(bound);
        h.since = rfc3339(Nanos(h.since_boot_ns), seen.wall_offset_ns);
    }
    holders.sort_by_key(|h| (h.start_ns, h.pid));
    holders
}

fn judge(seen: &Seen<'_>, sockets: &[Socket]) -> (State, String) {
    if let Some(error) = &seen.state.error {
        return (State::Unknown, format!("it could not be looked at: {error}"));
    }
    if let Some(PathState::Unknown(why)) = &seen.state.path {
        return (State::Unknown, format!("the path could not be looked at: {why}"));
    }
    let of = |state: SocketState| {
        sockets
            .iter()
            .find(move |s| s.reachable == Some(true) && s.state == state)
    };
    if let Some(s) = of(SocketState::Listening) {
        let verb = if s.limit.is_some() {
            "listens on it"
        } else {
            "serves it"
        };
        return (State::Live, format!("{} {verb}", who(s)));
    }
    if let Some(s) = of(SocketState::ShutDown) {
        let text = format!("{} has shut its listener down: connects are refused", who(s));
        return (State::ShutDown, text);
    }
    if let Some(s) = of(SocketState::Bound) {
        return (
            State::Bound,
            format!("{} has bound it, and does not listen", who(s)),
        );
    }
    let orphan = sockets.iter().find(|s| s.state == SocketState::Listening);
    let other = orphan.map_or(String::new(), |s| {
        format!("; {} listens on a socket that lost this path", who(s))
    });
    match &seen.state.path {
        Some(PathState::Socket(_)) if seen.namespaces_unseen => (
            State::Unknown,
            format!("no socket that can be seen is bound to the socket file{other}"),
        ),
        Some(PathState::Socket(_)) => (
            State::Stale,
            format!("the socket file is dead: no socket is bound to it, and connects are refused{other}"),
        ),
        Some(PathState::Other(what)) => (State::NotASocket, format!("the path is a {what}{other}")),
        _ => match orphan {
            Some(s) => (
                State::Orphaned,
                format!("{} listens, and nobody reaches it: the path is gone", who(s)),
            ),
            None if seen.state.path.is_some() => (State::Free, "there is no such file".to_owned()),
            None => (State::Free, "nothing is bound to it".to_owned()),
        },
    }
}

/// The oldest holder, and how many more there are.
fn who(s: &Socket) -> String {
    match &s.holders[..] {
        [] if s.holders_complete => "nobody (it is on its way between two processes)".to_owned(),
        [] => "a process that could not be seen".to_owned(),
        [one] => one.describe(),
        [first, rest @ ..] => format!("{} (with {} more)", first.describe(), rest.len()),
    }
}
