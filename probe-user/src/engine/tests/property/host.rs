//! A small host that does what it is told, and knows how everything really is.
//!
//! It tells what the kernel would: records in the order in which they were reserved in the ring buffer, notifications of
//! directories and of closed sockets without a time in queues of their own. Nobody tells of `listen` on a UNIX socket, of
//! an inherited descriptor, and of what strangers do besides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    address::Site,
    clock::Nanos,
    event::{
        AddressState, Disposition, Event, ExitStatus, FileId, Holder, PathChange, PathState, PidFileContent,
        PidFileState, ProcId, Process, SignalResult, SignalSent, Socket, SocketId, SocketState, TimeSource,
        What,
    },
    signal::Signal,
};

pub(super) const EXE: &str = "/usr/bin/d";
pub(super) const UNIX: &str = "unix:/run/d.sock";
pub(super) const TCP: &str = "tcp:127.0.0.1:80";
pub(super) const PID_FILE: &str = "/run/d.pid";
/// Between two things that happen: more than a clock tick, so that a reused pid is another identity.
const STEP: u64 = 11_000_000;

/// What can happen. Numbers choose among those whom it can happen to; what can't be does not happen.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// init forks and runs the service's executable, and perhaps again before it has ended.
    Start,
    /// Another program begins.
    Stranger,
    Fork {
        of: u8,
        inherits: bool,
    },
    /// `replace`: unlinks the path first. `stranger`: not a member.
    Bind {
        by: u8,
        replace: bool,
        stranger: bool,
    },
    /// Calls `listen` on the UNIX socket that it has bound.
    Listen {
        by: u8,
    },
    Port {
        by: u8,
        stranger: bool,
    },
    Close {
        by: u8,
        tcp: bool,
    },
    Unlink {
        by: u8,
        stranger: bool,
    },
    RenameAway,
    RenameBack,
    WritePid {
        by: u8,
    },
    RemovePid {
        by: u8,
        stranger: bool,
    },
    Term {
        whom: u8,
    },
    Kill {
        whom: u8,
    },
    Exit {
        whom: u8,
        code: i32,
    },
    StrangerExits {
        whom: u8,
    },
    Wait {
        ms: u32,
    },
    /// The second halves of what does not happen at one moment.
    Exec(u32),
    Die(u32, ExitStatus),
    Released(ProcId),
}

#[derive(Debug, Clone)]
pub(super) struct Sock {
    pub(super) inode: u64,
    pub(super) file: Option<FileId>,
    pub(super) listening: bool,
    pub(super) holders: BTreeSet<ProcId>,
}

/// A record of the ring buffer, and whom it is about: records about the same keep their order.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) event: Event,
    pub(super) about: Vec<u32>,
}

/// Stands for the port where a record is about it.
const PORT: u32 = 0;

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) now: Nanos,
    pub(super) todo: VecDeque<Action>,
    pub(super) processes: BTreeMap<u32, Process>,
    /// Processes of the service: by their executable, and children.
    pub(super) members: BTreeSet<ProcId>,
    /// Forked by init and not yet running what they will.
    unborn: BTreeSet<u32>,
    /// Have exited with their descriptors still open.
    exiting: BTreeSet<ProcId>,
    pub(super) socks: Vec<Sock>,
    pub(super) path: Option<FileId>,
    /// Who was the last to hold the socket of a file.
    pub(super) left_by: BTreeMap<FileId, ProcId>,
    pub(super) made_by: BTreeMap<FileId, ProcId>,
    /// When the file that the path leads to was made, or given its name back.
    path_changed_at: Nanos,
    aside: Option<FileId>,
    pub(super) pid_file: Option<(u32, Nanos)>,
    next: u64,
    pub(super) ring: Vec<Record>,
    pub(super) names: Vec<What>,
    pub(super) closed: Vec<u64>,
    pub(super) pid_file_written: bool,
}

impl Host {
    pub(super) fn new(actions: &[Action]) -> Self {
        Self {
            now: Nanos(1_000_000_000_000),
            todo: actions.iter().cloned().collect(),
            ..Self::default()
        }
    }

    fn pick(&self, n: u8, member: bool) -> Option<Process> {
        let fit: Vec<&Process> = self
            .processes
            .values()
            .filter(|p| self.members.contains(&p.id) == member && !self.unborn.contains(&p.id.pid))
            .collect();
        (!fit.is_empty()).then(|| fit[usize::from(n) % fit.len()].clone())
    }

    fn spawn(&mut self, exe: &str, parent: ProcId) -> Process {
        let pid = (50..)
            .find(|pid| !self.processes.contains_key(pid))
            .expect("a pid");
        let p = Process {
            id: ProcId::new(pid, self.now),
            start: self.now,
            parent: Some(parent),
            comm: exe.rsplit('/').next().unwrap_or_default().into(),
            uid: Some(0),
            exe: Some(exe.into()),
            exe_deleted: false,
            exe_id: None,
            argv: vec![exe.into()],
            unit: None,
        };
        self.processes.insert(pid, p.clone());
        p
    }

    fn record(&mut self, about: Vec<u32>, what: What) {
        let event = Event {
            at: self.now,
            time_source: TimeSource::Kernel,
            what,
        };
        self.ring.push(Record { event, about });
    }

    fn path_changed(&mut self, change: PathChange, by: &Process) {
        self.names.push(What::Path {
            address: UNIX.parse().unwrap(),
            of: None,
            change,
            actor: Some(by.clone().into()),
        });
    }

    /// Does the next thing. `Some`: nothing but time passes.
    pub(super) fn step(&mut self) -> Option<std::time::Duration> {
        let action = self.todo.pop_front()?;
        self.now = Nanos(self.now.0 + STEP);
        match action {
            Action::Wait { ms } => return Some(std::time::Duration::from_millis(ms.into())),
            Action::Start => {
                let p = self.spawn("/sbin/init", INIT);
                self.unborn.insert(p.id.pid);
                self.todo.push_front(Action::Exec(p.id.pid));
            }
            Action::Exec(pid) => {
                self.unborn.remove(&pid);
                if let Some(p) = self.processes.get_mut(&pid) {
                    (p.exe, p.comm, p.argv) = (Some(EXE.into()), "d".into(), vec![EXE.into()]);
                    let process = p.clone();
                    self.members.insert(process.id);
                    self.record(vec![pid], What::Exec { process });
                }
            }
            Action::Stranger => {
                self.spawn("/usr/bin/other", INIT);
            }
            Action::Fork { of, inherits } => {
                let parent = self.pick(of, true)?;
                let child = self.spawn(EXE, parent.id);
                self.members.insert(child.id);
                if inherits {
                    for s in self.socks.iter_mut().filter(|s| s.holders.contains(&parent.id)) {
                        s.holders.insert(child.id);
                    }
                }
                self.record(vec![parent.id.pid, child.id.pid], What::Fork { child });
            }
            Action::Bind {
                by,
                replace,
                stranger,
            } => {
                let p = self.pick(by, !stranger)?;
                if self.path.is_some() {
                    if !replace {
                        return None;
                    }
                    self.path = None;
                    self.path_changed(PathChange::Removed, &p);
                }
                self.next += 1;
                let file = FileId {
                    dev: 1,
                    ino: 1000 + self.next,
                };
                self.path = Some(file);
                self.made_by.insert(file, p.id);
                self.path_changed_at = self.now;
                self.socks.push(Sock {
                    inode: self.next,
                    file: Some(file),
                    listening: stranger,
                    holders: [p.id].into(),
                });
                self.path_changed(PathChange::Created, &p);
            }
            Action::Listen { by } => {
                let p = self.pick(by, true)?;
                for s in self.socks.iter_mut().filter(|s| s.holders.contains(&p.id)) {
                    s.listening = true;
                }
            }
            Action::Port { by, stranger } => {
                let p = self.pick(by, !stranger)?;
                if self.socks.iter().any(|s| s.file.is_none()) {
                    return None;
                }
                self.next += 1;
                let inode = self.next;
                self.socks.push(Sock {
                    inode,
                    file: None,
                    listening: true,
                    holders: [p.id].into(),
                });
                self.record(
                    vec![p.id.pid, PORT],
                    What::Listen {
                        address: TCP.parse().unwrap(),
                        process: p,
                        socket: Some(SocketId(inode)),
                        inode: Some(inode),
                        netns: None,
                    },
                );
            }
            Action::Close { by, tcp } => {
                let p = self.pick(by, true)?;
                let held = |s: &&mut Sock| s.holders.contains(&p.id) && s.file.is_none() == tcp;
                if let Some(s) = self.socks.iter_mut().find(held) {
                    s.holders.remove(&p.id);
                    self.left_by.extend(s.file.map(|file| (file, p.id)));
                }
                self.sweep(p.id.pid);
            }
            Action::Unlink { by, stranger } => {
                let p = self.pick(by, !stranger).unwrap_or_else(|| rm(self.now));
                if self.path.take().is_some() {
                    self.path_changed(PathChange::Removed, &p);
                }
            }
            Action::RenameAway => {
                if let Some(file) = self.path.take() {
                    self.aside = Some(file);
                    self.path_changed(PathChange::RenamedAway, &rm(self.now));
                }
            }
            Action::RenameBack => {
                if let Some(file) = self.aside.take() {
                    self.path = Some(file);
                    self.path_changed_at = self.now;
                    self.path_changed(PathChange::RenamedTo, &rm(self.now));
                }
            }
            Action::WritePid { by } => {
                let p = self.pick(by, true)?;
                // A new file takes the place of the old one.
                let change = match self.pid_file {
                    None => PathChange::Created,
                    Some(_) => PathChange::RenamedTo,
                };
                self.pid_path_changed(change, &p);
                self.pid_file = Some((p.id.pid, self.now));
                self.pid_file_written = true;
            }
            Action::RemovePid { by, stranger } => {
                let p = self.pick(by, !stranger).unwrap_or_else(|| rm(self.now));
                if self.pid_file.take().is_some() {
                    self.pid_path_changed(PathChange::Removed, &p);
                }
            }
            Action::Term { whom } => {
                let p = self.pick(whom, true)?;
                self.signal(p, Signal::TERM, Disposition::Caught);
            }
            Action::Kill { whom } => {
                let p = self.pick(whom, true)?;
                self.signal(p.clone(), Signal::KILL, Disposition::Default);
                let status = ExitStatus::Signal {
                    signal: Signal::KILL,
                    core: false,
                };
                self.todo.push_front(Action::Die(p.id.pid, status));
            }
            Action::Exit { whom, code } => {
                let p = self.pick(whom, true)?;
                self.die(p.id.pid, ExitStatus::Code(code));
            }
            Action::Die(pid, status) => self.die(pid, status),
            Action::StrangerExits { whom } => {
                let p = self.pick(whom, false)?;
                self.processes.remove(&p.id.pid);
                self.exiting.insert(p.id);
                self.todo.push_front(Action::Released(p.id));
            }
            Action::Released(id) => {
                self.exiting.remove(&id);
                for s in &mut self.socks {
                    if s.holders.remove(&id) {
                        self.left_by.extend(s.file.map(|file| (file, id)));
                    }
                }
                self.sweep(id.pid);
            }
        }
        None
    }

    fn pid_path_changed(&mut self, change: PathChange, by: &Process) {
        let actor = Some(by.clone());
        self.names.push(What::PidFilePath {
            path: PID_FILE.into(),
            of: None,
            change,
            actor: actor.map(Into::into),
        });
    }

    fn signal(&mut self, target: Process, signal: Signal, disposition: Disposition) {
        let about = vec![target.id.pid];
        let sent = SignalSent {
            target,
            signal,
            code: 0,
            result: SignalResult::Queued,
            disposition,
            fault_addr: None,
            actor: Some(rm(self.now).into()),
        };
        self.record(about, What::Signal(sent));
    }

    fn die(&mut self, pid: u32, status: ExitStatus) {
        let Some(process) = self.processes.remove(&pid) else {
            return;
        };
        let id = process.id;
        let holds = |s: &&Sock| s.listening && s.holders.contains(&id);
        let listeners = Some(self.socks.iter().filter(holds).map(|s| s.inode).collect());
        self.members.remove(&id);
        self.exiting.insert(id);
        for p in self.processes.values_mut().filter(|p| p.parent == Some(id)) {
            p.parent = Some(INIT);
        }
        self.record(
            vec![pid],
            What::Exit {
                process,
                status,
                listeners,
            },
        );
        self.todo.push_front(Action::Released(id));
    }

    /// Sockets that nobody holds any more are closed.
    fn sweep(&mut self, by: u32) {
        let (kept, gone): (Vec<Sock>, Vec<Sock>) = std::mem::take(&mut self.socks)
            .into_iter()
            .partition(|s| !s.holders.is_empty());
        self.socks = kept;
        for s in gone {
            if s.file.is_none() {
                let inode = Some(s.inode);
                let socket = inode.map(SocketId);
                let address = TCP.parse().unwrap();
                self.record(
                    vec![by, PORT],
                    What::Unlisten {
                        address,
                        socket,
                        inode,
                        netns: None,
                    },
                );
            }
            self.closed.push(s.inode);
        }
    }

    pub(super) fn state_of(&self, address: &Site) -> AddressState {
        let unix = address.address.path().is_some();
        let sockets: Vec<Socket> = self
            .socks
            .iter()
            .filter(|s| s.file.is_some() == unix)
            .map(|s| self.socket(s))
            .collect();
        let mut processes = BTreeMap::new();
        for h in sockets.iter().flat_map(|s| &s.holders) {
            let mut next = Some(h.process);
            for _ in 0..3 {
                let Some(p) = next.and_then(|id| self.living(id)) else {
                    break;
                };
                processes.insert(p.id, p.clone());
                next = p.parent;
            }
        }
        AddressState {
            address: address.address.clone(),
            of: None,
            netns: None,
            path: unix.then(|| self.path.map_or(PathState::Absent, PathState::Socket)),
            changed: self.path.filter(|_| unix).map(|_| self.path_changed_at),
            sockets,
            processes: processes.into_values().collect(),
            error: None,
        }
    }

    fn socket(&self, s: &Sock) -> Socket {
        let living = s.holders.iter().filter(|id| !self.exiting.contains(id));
        Socket {
            id: SocketId(s.inode),
            inode: s.inode,
            state: if s.listening {
                SocketState::Listening
            } else {
                SocketState::Bound
            },
            file: s.file,
            ip: s.file.is_none().then(|| "127.0.0.1".parse().unwrap()),
            queue: 0,
            backlog: 128,
            head: None,
            holders: living.map(|id| Holder { process: *id, fd: 3 }).collect(),
            holders_known: true,
        }
    }

    pub(super) fn living(&self, id: ProcId) -> Option<&Process> {
        self.processes.get(&id.pid).filter(|p| p.id == id)
    }

    pub(super) fn pid_file_state(&self) -> PidFileState {
        PidFileState {
            path: PID_FILE.into(),
            of: None,
            local: None,
            content: self
                .pid_file
                .map_or(PidFileContent::Absent, |(pid, _)| PidFileContent::Pid(pid)),
            modified: self.pid_file.map_or(Nanos::ZERO, |(_, at)| at),
            process: self
                .pid_file
                .and_then(|(pid, _)| self.processes.get(&pid).cloned()),
        }
    }

    /// What a snapshot lists: those selected by the executable, `roots`, and all their descendants.
    pub(super) fn selected(&self, roots: &BTreeSet<ProcId>) -> Vec<Process> {
        let mut listed: BTreeSet<ProcId> = self
            .processes
            .values()
            .filter(|p| p.exe.as_deref() == Some(EXE) || roots.contains(&p.id))
            .map(|p| p.id)
            .collect();
        loop {
            let more: Vec<ProcId> = self
                .processes
                .values()
                .filter(|p| !listed.contains(&p.id) && p.parent.is_some_and(|x| listed.contains(&x)))
                .map(|p| p.id)
                .collect();
            if more.is_empty() {
                break;
            }
            listed.extend(more);
        }
        self.processes
            .values()
            .filter(|p| listed.contains(&p.id))
            .cloned()
            .collect()
    }
}

/// Whom a snapshot must list whatever they run.
pub(super) fn roots(addresses: &[AddressState], pid_files: &[PidFileState]) -> BTreeSet<ProcId> {
    let holders = addresses
        .iter()
        .flat_map(|a| &a.sockets)
        .flat_map(|s| &s.holders)
        .map(|h| h.process);
    let named = pid_files.iter().filter_map(|f| Some(f.process.as_ref()?.id));
    holders.chain(named).collect()
}

const INIT: ProcId = ProcId {
    pid: 1,
    start_ticks: 0,
};

/// Somebody else, who is gone before anybody looks.
fn rm(now: Nanos) -> Process {
    Process {
        id: ProcId {
            pid: 40,
            start_ticks: now.0 / 10_000_000,
        },
        start: now,
        parent: Some(INIT),
        comm: "rm".into(),
        uid: Some(0),
        exe: Some("/bin/rm".into()),
        exe_deleted: false,
        exe_id: None,
        argv: vec!["rm".into()],
        unit: None,
    }
}
