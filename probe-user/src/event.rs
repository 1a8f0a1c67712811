//! What can happen: the input of the engine, as it also stands in a recorded trace.
//!
//! *Edges* tell that something happened at a moment. *Levels* tell how something was at a moment, and are what verdicts
//! rest on. Every event carries its own time; its `time_source` says whose clock read it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    address::{Address, Site},
    clock::Nanos,
    config::Config,
    signal::Signal,
};

/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 in the kernel's user interface on every Linux port.
pub const TICKS: u64 = 100;

/// A process, for as long as it lives: pids are reused, so a pid alone is never an identity.
///
/// The start is counted in clock ticks since boot, because that is all that `/proc` tells; nanoseconds from the kernel
/// are cut down to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcId {
    pub pid: u32,
    pub start_ticks: u64,
}

impl ProcId {
    pub fn new(pid: u32, start: Nanos) -> Self {
        Self {
            pid,
            start_ticks: start.0 / (1_000_000_000 / TICKS),
        }
    }

    /// When it began, as exactly as the identity tells.
    pub fn start(self) -> Nanos {
        Nanos(self.start_ticks.saturating_mul(1_000_000_000 / TICKS))
    }
}

/// A file by what it is, not by its name: the super block's device in the kernel's encoding (major << 20 | minor), and
/// the inode number. `unix_diag` tells only the lower 32 bits of the inode; those are kept for socket files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    pub dev: u32,
    pub ino: u64,
}

/// A process as far as it is known. Absent facts are `None`, never invented.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    pub id: ProcId,
    /// Boot clock; as exact as its source (10 ms from `/proc`).
    pub start: Nanos,
    pub parent: Option<ProcId>,
    pub comm: String,
    pub uid: Option<u32>,
    /// Path of the executable without ` (deleted)`; `exe_deleted` says whether that stood there.
    pub exe: Option<String>,
    #[serde(default)]
    pub exe_deleted: bool,
    pub exe_id: Option<FileId>,
    /// Empty where unknown. Bytes that are no UTF-8 are replaced.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The systemd unit, from the cgroup's name: `redis.service`, `session-3.scope`.
    pub unit: Option<String>,
}

/// Who did something. Captured when it happened, so it is known after the process is gone. Shared, because much is told
/// of the same one.
pub type Actor = Arc<Process>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeSource {
    /// The kernel read the clock when it happened.
    Kernel,
    /// probe read the clock when it noticed.
    Observed,
}

/// A kernel socket, by its cookie, which is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketId(pub u64);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal {
        signal: Signal,
        core: bool,
    },
    /// The end was not seen.
    Unknown,
}

impl ExitStatus {
    /// From the word that wait(2) gives.
    pub fn from_wait(status: u32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8 & 0xff) as i32),
            n => Self::Signal {
                signal: Signal(n as i32),
                core: status & 0x80 != 0,
            },
        }
    }
}

/// What `signal_generate` said became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalResult {
    Queued,
    Ignored,
    AlreadyPending,
    Overflow,
    InfoLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    Default,
    Ignored,
    Caught,
    Blocked,
}

impl SignalResult {
    /// As it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ignored => "ignored",
            Self::AlreadyPending => "already_pending",
            Self::Overflow => "overflow",
            Self::InfoLost => "info_lost",
        }
    }
}

impl Disposition {
    pub const ALL: [Self; 4] = [Self::Default, Self::Ignored, Self::Caught, Self::Blocked];

    /// As it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Ignored => "ignored",
            Self::Caught => "caught",
            Self::Blocked => "blocked",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSent {
    pub target: Process,
    pub signal: Signal,
    /// `si_code`.
    pub code: i32,
    pub result: SignalResult,
    pub disposition: Disposition,
    /// Where a fault happened, for SEGV, BUS, ILL, FPE.
    pub fault_addr: Option<u64>,
    /// `None`: the kernel itself.
    pub actor: Option<Actor>,
}

/// What a name in the file system leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    Absent,
    Socket(FileId),
    /// Something else, for example `regular file`.
    Other(String),
    /// Could not be looked at; the error.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    /// Accepts connections, or is a bound datagram socket.
    Listening,
    /// Bound, `listen` not called.
    Bound,
    /// `shutdown` was called on the listener: it exists, and nothing will be accepted.
    ShutDown,
}

/// A descriptor that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    pub process: ProcId,
    pub fd: i32,
}

/// A live kernel socket that is bound to an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Socket {
    pub id: SocketId,
    /// Inode number of the socket itself (the number in `socket:[N]`).
    pub inode: u64,
    pub state: SocketState,
    /// The socket file that it was bound to; stays after an unlink or a rename.
    pub file: Option<FileId>,
    /// Local IP address of TCP and UDP sockets.
    pub ip: Option<IpAddr>,
    /// Connections waiting to be accepted, and how many may.
    pub queue: u32,
    pub backlog: u32,
    /// The connection at the head of the queue, by the inode of the waiting peer's socket or the hash of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    /// Who holds it. Empty with `holders_known`: nobody, it is on its way between processes.
    pub holders: Vec<Holder>,
    pub holders_known: bool,
}

/// How a declared address was, at a moment. A level: the newest one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressState {
    pub address: Address,
    /// The service that means it so, where another service may mean something else by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Inode number of the network namespace that was looked into; not for paths, which are in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// For `unix:/path` only.
    pub path: Option<PathState>,
    /// When the socket file was made or last changed, on the boot clock, as the file system tells: up to a clock tick early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Nanos>,
    /// All live sockets bound to it, for paths also those bound under this name whose file is gone or replaced.
    pub sockets: Vec<Socket>,
    /// Processes among the holders that the engine may not have met.
    pub processes: Vec<Process>,
    /// `false`: the kernel could not be asked; the reason. Nothing may be concluded from `sockets` then.
    pub error: Option<String>,
}

impl AddressState {
    pub fn site(&self) -> Site {
        Site {
            address: self.address.clone(),
            of: self.of.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidFileContent {
    Absent,
    Empty,
    Pid(u32),
    /// Something else stands in it; its beginning.
    Garbage(String),
    /// Not a regular file, or unreadable; why.
    Unreadable(String),
}

/// How a declared PID file was, at a moment. A level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFileState {
    pub path: String,
    /// The service that means it so, where another service may mean something else by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The pid is the one that the host knows the process by.
    pub content: PidFileContent,
    /// The number that stands in the file, where it is one of another pid namespace. `content` repeats it where no process
    /// there has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<u32>,
    /// When it was last written, on the boot clock (0 for before boot).
    pub modified: Nanos,
    /// The live process of that pid.
    pub process: Option<Process>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathChange {
    /// A name appeared: bind, link.
    Created,
    /// A name went: unlink.
    Removed,
    RenamedAway,
    /// Another file took the name.
    RenamedTo,
}

/// What a process is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Gone,
    /// Runs, or sleeps and can be woken.
    Running,
    /// State T or t.
    Stopped,
    /// State D; the system call it is in, where that can be read.
    Uninterruptible {
        syscall: Option<String>,
    },
    /// Waits on a TCP peer that has not answered for long; the peer.
    WaitingOnPeer {
        peer: String,
    },
}

/// Signal sets of a process; bit n-1 stands for signal n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SignalMasks {
    pub caught: u64,
    pub ignored: u64,
    /// Blocked in some thread: signalfd and sigwait users block what they take.
    pub blocked: u64,
    /// Pending for the process or for some thread.
    pub pending: u64,
    /// Some thread is in `rt_sigtimedwait`: what it waits for shows in no mask meanwhile.
    pub waiting: bool,
}

impl SignalMasks {
    pub fn has(mask: u64, signal: Signal) -> bool {
        (1..=64).contains(&signal.0) && mask >> (signal.0 - 1) & 1 == 1
    }

    /// Whether somebody takes this signal when it comes.
    pub fn handles(&self, signal: Signal) -> bool {
        self.waiting || Self::has(self.caught | self.blocked, signal)
    }
}

/// How a process was, at a moment. A level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    pub process: ProcId,
    pub run: RunState,
    /// `None`: gone, or not readable.
    pub masks: Option<SignalMasks>,
    /// Files that it holds a lock on (flock, fcntl).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

/// A queued or running job of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitJob {
    pub id: u32,
    /// `start`, `stop`, `restart`, `try-restart`, `reload` and so on, as systemd names them.
    pub kind: String,
}

impl UnitJob {
    /// Whether it stops what runs, be it only to start it again.
    pub fn stops(&self) -> bool {
        matches!(self.kind.as_str(), "stop" | "restart" | "try-restart")
    }
}

/// What systemd said of a declared unit, at a moment. A level.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnitState {
    /// As declared, also where systemd calls it by another name.
    pub unit: String,
    /// Whose service manager said it; without one the system's.
    pub user: Option<String>,
    /// `None`: the unit has no main process now.
    pub main_pid: Option<u32>,
    /// The last main process, whether it lives or not: tells it from the unit's helpers, as those of `ExecStartPre=`.
    pub exec_main_pid: Option<u32>,
    /// The process that was the main one while it was read. `None` where it had gone.
    pub process: Option<Process>,
    /// `active`, `deactivating`, `failed` and so on.
    pub active_state: String,
    /// Of services: `running`, `stop-sigterm`, `auto-restart` and so on.
    pub sub_state: String,
    /// `success`, `exit-code`, `start-limit-hit` and so on. Empty for what is no service.
    pub result: String,
    /// Restarts by systemd itself since the unit was last started by somebody.
    pub n_restarts: u32,
    pub job: Option<UnitJob>,
    /// Why systemd could not be asked. Nothing may be concluded from the rest then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl UnitState {
    /// Whether systemd is about to start or stop it, or will start it by itself after a pause.
    pub fn is_changing(&self) -> bool {
        self.error.is_none()
            && (self.job.is_some()
                || matches!(
                    self.active_state.as_str(),
                    "activating" | "deactivating" | "reloading" | "refreshing"
                )
                || self.sub_state.starts_with("auto-restart"))
    }
}

/// The state of everything declared, read after the hooks were attached and `began`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When reading began; what an edge says after this is newer than the snapshot.
    pub began: Nanos,
    pub reason: SnapshotReason,
    /// Every live process that a declaration selects, every holder of a declared address, every process that a PID file
    /// names, and all their descendants.
    pub processes: Vec<Process>,
    pub addresses: Vec<AddressState>,
    pub pid_files: Vec<PidFileState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReason {
    Start,
    Loss,
    Interval,
}

/// One thing that happened, or that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened (an edge) or was looked at (a level), on the boot clock.
    pub at: Nanos,
    pub time_source: TimeSource,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    // Edges: processes.
    Exec {
        process: Process,
    },
    Fork {
        child: Process,
    },
    /// `listeners`: inodes of the listening sockets that it still held open; `None` where that could not be read.
    Exit {
        process: Process,
        status: ExitStatus,
        listeners: Option<Vec<u64>>,
    },
    Signal(SignalSent),
    /// `rss`: resident bytes, where the kernel told.
    Oom {
        victim: Process,
        rss: Option<u64>,
    },
    // Edges: sockets. They name the actor and the moment; the state follows as a level.
    /// A socket was bound, or could not be: `error` is the errno then, and `socket` and `inode` are those of the socket
    /// that stays without an address. Only the fentry tier tells of it.
    Bind {
        address: Address,
        process: Process,
        socket: Option<SocketId>,
        inode: Option<u64>,
        /// Inode number of its network namespace.
        #[serde(default)]
        netns: Option<u32>,
        error: Option<i32>,
    },
    /// A listener began, or a datagram socket was bound. UNIX sockets in the fentry tier only.
    Listen {
        address: Address,
        process: Process,
        socket: Option<SocketId>,
        inode: Option<u64>,
        /// Inode number of the network namespace that the address is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u32>,
    },
    /// A listener stopped listening (close or shutdown), or a bound datagram socket was released. UNIX sockets in the
    /// fentry tier only.
    Unlisten {
        address: Address,
        socket: Option<SocketId>,
        inode: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u32>,
    },
    /// The last descriptor of a watched socket was closed.
    SocketClosed {
        inode: u64,
    },
    /// A declared path changed. A hint: the state follows as a level.
    Path {
        address: Address,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        change: PathChange,
        actor: Option<Actor>,
    },
    /// A declared PID file changed. A hint, as above.
    PidFilePath {
        path: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        change: PathChange,
        actor: Option<Actor>,
    },
    // Levels.
    Address(AddressState),
    PidFile(PidFileState),
    Process(ProcessState),
    Unit(UnitState),
    /// What the path of a declared executable leads to, since an upgrade put another file there. `None`: nothing.
    Executable {
        path: String,
        id: Option<FileId>,
    },
    /// The declared sign of life was last seen at `beat`, on the boot clock. `None`: never.
    Heartbeat {
        service: String,
        beat: Option<Nanos>,
    },
    Snapshot(Snapshot),
    // About probe itself.
    /// From here on this is declared. Services that are declared as before keep their state.
    Reload {
        config: Box<Config>,
        /// What the declared executables are now, by path.
        exes: BTreeMap<String, FileId>,
    },
    /// An earlier run of probe knew this of a service. To be told before the first snapshot.
    Remembered {
        service: String,
        /// Lives of its main process until then.
        generation: u64,
        /// The last of them, where it was of this boot: if it still lives, that life goes on.
        main: Option<ProcId>,
    },
    /// An earlier run of probe has followed it. To be told before what happened in between, its end too.
    Followed {
        process: Process,
        /// Those that it belonged to then, as far as they are declared as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<String>,
    },
    /// probe's own healing of a service has stopped trying after so many attempts in a row that did not help; `None`: it
    /// would try again.
    GaveUp {
        service: String,
        attempts: Option<u32>,
    },
    /// Events were lost. Verdicts are unknown until a snapshot that began after this settles them.
    Lost {
        source: String,
        count: u64,
    },
    /// The machine has slept for so long, and is awake again.
    Woke {
        slept_ns: u64,
    },
    /// The time of [`crate::engine::Engine::deadline`] has come.
    Timer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_signals_are_those_of_the_contract() {
        for d in Disposition::ALL {
            assert_eq!(serde_json::to_value(d).unwrap(), d.name());
        }
        let results = ["queued", "ignored", "already_pending", "overflow", "info_lost"];
        for word in results {
            let result: SignalResult = serde_json::from_value(word.into()).unwrap();
            assert_eq!(result.name(), word);
        }
    }
}
