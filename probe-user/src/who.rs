//! Who holds an address, and whether somebody who asks for it reaches them: what `probe who` and the route `/v1/who` answer.
//!
//! A path and a socket are two things. `lsof PATH` and `fuser PATH` look for sockets that were once given that name, so they
//! name a process whose file was replaced long ago, and miss one whose file got its name by a link. Here the inode that the
//! path leads to is compared with the inode that each live socket is bound to.
//!
//! [`look`] needs no daemon, and no right that every process has not; what it could not see it says.

mod judge;
mod look;
pub(crate) mod sight;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    judge::{Seen, answer},
    look::{Looker, Options, WhoError, look, tables},
};
use crate::{address::Address, clock::Nanos, event::Process};

/// What becomes of somebody who connects to the address, or binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A listener (or a bound datagram socket) serves it.
    Live,
    /// The path is a socket file, and no live socket is bound to it.
    Stale,
    /// A live listener had this path, and it is gone: nobody reaches it.
    Orphaned,
    /// A socket is bound to it, and does not listen.
    Bound,
    /// A listener has it, and was shut down: connects are refused.
    ShutDown,
    /// The path is something other than a socket.
    NotASocket,
    /// Nothing has it.
    Free,
    /// What there is could not be seen.
    Unknown,
}

impl State {
    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Orphaned => "orphaned",
            Self::Bound => "bound",
            Self::ShutDown => "shut_down",
            Self::NotASocket => "not_a_socket",
            Self::Free => "free",
            Self::Unknown => "unknown",
        }
    }
}

/// Everything that is known of an address, at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The version of the contract.
    pub v: u32,
    /// `who`.
    pub r#type: AnswerType,
    /// When it was looked at: RFC 3339, and nanoseconds on the boot clock.
    pub at: String,
    pub boot_ns: u64,
    pub address: Address,
    pub state: State,
    /// One sentence for a person.
    pub summary: String,
    /// Of a path only.
    pub path: Option<Path>,
    /// Inode number of the network namespace that was looked into; paths are in none.
    pub netns: Option<u32>,
    /// Those that serve it first.
    pub sockets: Vec<Socket>,
    /// What could not be seen, and how it could. Empty: everything was.
    pub cannot_see: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerType {
    Who,
}

/// What the path leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Path {
    /// `socket`, `absent`, `regular file` and so on; `unknown`: it could not be looked at.
    pub is: String,
    /// Of a socket file.
    pub file: Option<File>,
    /// Where a symbolic link leads to; everything else here is about that.
    pub links_to: Option<String>,
    /// When a socket file was made: RFC 3339, and nanoseconds on the boot clock (0: before the boot).
    pub made_at: Option<String>,
    pub made_boot_ns: Option<u64>,
}

/// A file by what it is. `unix_diag` tells only the lower 32 bits of an inode number, so only those are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// The device of the super block: major << 20 | minor.
    pub dev: u32,
    pub inode: u64,
}

/// A live kernel socket that is or was bound to the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Socket {
    /// The number in `socket:[N]`.
    pub inode: u64,
    /// The kernel's own number of it, never used again.
    pub cookie: u64,
    pub state: SocketState,
    /// Whether the address leads to it. Always so without a path. `null`: the path could not be looked at.
    pub reachable: Option<bool>,
    /// The file that it was bound to; not of abstract names and ports.
    pub file: Option<File>,
    /// Local address of TCP and UDP sockets.
    pub ip: Option<std::net::IpAddr>,
    /// Connections that wait to be accepted, and how many may; `null` where there is no such queue.
    pub queue: Option<u32>,
    pub limit: Option<u32>,
    pub holders: Vec<Holder>,
    /// `false`: there may be holders that could not be seen.
    pub holders_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    Listening,
    Bound,
    ShutDown,
}

/// A process that has the socket open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    pub pid: u32,
    /// With the pid it is an identity: nanoseconds on the boot clock.
    pub start_ns: u64,
    /// `null` where it could not be read; also below.
    pub exe: Option<String>,
    /// The file that it runs was removed or replaced.
    pub exe_deleted: bool,
    pub comm: Option<String>,
    pub uid: Option<u32>,
    pub unit: Option<String>,
    pub parent: Option<Parent>,
    /// Its descriptors of the socket.
    pub fds: Vec<i32>,
    /// The earliest moment that it can have held it: when it began, or when the socket file was made, if that was later.
    /// RFC 3339, and nanoseconds on the boot clock.
    pub since: String,
    pub since_boot_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    pub pid: u32,
}

impl Holder {
    /// `annad (812)`.
    pub fn describe(&self) -> String {
        let exe = self.exe.as_deref().and_then(|e| e.rsplit('/').next());
        match self.comm.as_deref().or(exe) {
            Some(name) => format!("{name} ({})", self.pid),
            None => format!("process {}", self.pid),
        }
    }

    fn new(process: Option<&Process>, id: crate::event::ProcId) -> Self {
        let start = process.map_or_else(|| id.start(), |p| p.start);
        Self {
            pid: id.pid,
            start_ns: start.0,
            exe: process.and_then(|p| p.exe.clone()),
            exe_deleted: process.is_some_and(|p| p.exe_deleted),
            comm: process.map(|p| p.comm.clone()).filter(|c| !c.is_empty()),
            uid: process.and_then(|p| p.uid),
            unit: process.and_then(|p| p.unit.clone()),
            parent: process.and_then(|p| p.parent).map(|p| Parent { pid: p.pid }),
            fds: Vec::new(),
            since: String::new(),
            since_boot_ns: start.0,
        }
    }
}

/// RFC 3339 with nanoseconds, UTC.
fn rfc3339(at: Nanos, wall_offset_ns: i64) -> String {
    let wall = i128::from(at.0) + i128::from(wall_offset_ns);
    let time = jiff::Timestamp::from_nanosecond(wall).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}
