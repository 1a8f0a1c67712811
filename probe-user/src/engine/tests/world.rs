//! A simulated host: hands the engine events with a clock that the test moves, and remembers what it said.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    address::Site,
    clock::Nanos,
    config::{Config, Service},
    engine::{
        Effect, Engine,
        finding::{EventKind, Finding, FindingState, Kind, Shown},
    },
    event::{
        AddressState, Disposition, Event, ExitStatus, FileId, Holder, PathChange, PathState, PidFileContent,
        PidFileState, ProcId, Process, ProcessState, RunState, SignalResult, SignalSent, Snapshot,
        SnapshotReason, Socket, SocketId, SocketState, TimeSource, What,
    },
    signal::Signal,
};

pub(super) const SOCK: &str = "unix:/run/d.sock";
pub(super) const PID_FILE: &str = "/run/d.pid";

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A service `d` with a socket and a PID file, recognised by its executable.
pub(super) fn service() -> Service {
    let mut s = Service::named("d");
    s.exe = Some("/usr/bin/d".into());
    s.listen = vec![SOCK.parse().unwrap()];
    s.pid_file = Some(PID_FILE.into());
    s
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Nanos,
    pub(super) findings: Vec<Finding>,
    pub(super) shown: Vec<Shown>,
    pub(super) effects: Vec<Effect>,
    /// How the declared path and its sockets really are; what a settle answers with.
    pub(super) path: PathState,
    /// When its file was made, as the file system tells.
    pub(super) changed: Option<Nanos>,
    pub(super) sockets: Vec<Socket>,
    pub(super) processes: BTreeMap<u32, Process>,
    /// Files that processes hold locks on.
    pub(super) locks: BTreeMap<u32, Vec<String>>,
    stopped: std::collections::BTreeSet<u32>,
    next_ino: u64,
}

impl World {
    pub(super) fn new(service: Service) -> Self {
        let mut w = Self::before_the_first_snapshot(service);
        w.snapshot(SnapshotReason::Start);
        w
    }

    pub(super) fn before_the_first_snapshot(service: Service) -> Self {
        let config = Config {
            services: vec![service],
            ..Config::default()
        };
        Self {
            engine: Engine::new(config, &BTreeMap::new()),
            now: Nanos(1_000_000_000_000),
            findings: Vec::new(),
            shown: Vec::new(),
            effects: Vec::new(),
            path: PathState::Absent,
            changed: None,
            sockets: Vec::new(),
            processes: BTreeMap::new(),
            locks: BTreeMap::new(),
            stopped: Default::default(),
            next_ino: 100,
        }
    }

    /// As when probe began while this was so.
    pub(super) fn snapshot(&mut self, reason: SnapshotReason) {
        let addresses: Vec<Site> = self
            .engine
            .addresses
            .iter()
            .map(|(_, site, _)| site.clone())
            .collect();
        let snapshot = Snapshot {
            began: self.now,
            reason,
            processes: self.processes.values().cloned().collect(),
            addresses: addresses.iter().map(|a| self.state_of(a)).collect(),
            pid_files: Vec::new(),
        };
        self.tell(What::Snapshot(snapshot));
    }

    pub(super) fn process(&self, pid: u32, parent: u32, exe: &str) -> Process {
        let parent = self.processes.get(&parent).map_or(
            ProcId {
                pid: parent,
                start_ticks: 1,
            },
            |p| p.id,
        );
        Process {
            id: ProcId::new(pid, self.now),
            start: self.now,
            parent: Some(parent),
            comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
            uid: Some(0),
            exe: Some(exe.to_owned()),
            exe_deleted: false,
            exe_id: None,
            argv: vec![exe.to_owned()],
            unit: None,
        }
    }

    /// The service's executable runs as `pid`.
    pub(super) fn exec(&mut self, pid: u32) {
        self.exec_as(pid, 1, "/usr/bin/d");
    }

    pub(super) fn exec_as(&mut self, pid: u32, parent: u32, exe: &str) {
        let p = self.process(pid, parent, exe);
        self.processes.insert(pid, p.clone());
        self.tell(What::Exec { process: p });
    }

    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        let exe = self.processes[&parent].exe.clone().unwrap();
        let p = self.process(child, parent, &exe);
        self.processes.insert(child, p.clone());
        self.tell(What::Fork { child: p });
    }

    /// `pid` binds the declared path and listens. Returns the socket's inode.
    pub(super) fn listen(&mut self, pid: u32) -> u64 {
        let ino = self.listener_of(&[pid]);
        self.path_changed(PathChange::Created, Some(pid));
        ino
    }

    /// These hold a listener at the declared path, and nobody is told. Returns its inode.
    pub(super) fn listener_of(&mut self, holders: &[u32]) -> u64 {
        self.next_ino += 1;
        let ino = self.next_ino;
        let file = FileId {
            dev: 1,
            ino: ino + 1000,
        };
        self.path = PathState::Socket(file);
        let holders = holders.iter().map(|pid| Holder {
            process: self.processes[pid].id,
            fd: 3,
        });
        self.sockets.push(Socket {
            id: SocketId(ino),
            inode: ino,
            state: SocketState::Listening,
            file: Some(file),
            ip: None,
            queue: 0,
            backlog: 128,
            head: None,
            holders: holders.collect(),
            holders_known: true,
        });
        ino
    }

    pub(super) fn path_changed(&mut self, change: PathChange, by: Option<u32>) {
        let actor = by.map(|p| self.actor(p));
        self.tell(What::Path {
            address: SOCK.parse().unwrap(),
            of: None,
            change,
            actor: actor.map(Into::into),
        });
    }

    pub(super) fn unlink(&mut self, by: Option<u32>) {
        self.path = PathState::Absent;
        self.path_changed(PathChange::Removed, by);
    }

    pub(super) fn close(&mut self, inode: u64) {
        self.sockets.retain(|s| s.inode != inode);
        self.tell(What::SocketClosed { inode });
    }

    /// The PID file now says `pid`.
    pub(super) fn write_pid_file(&mut self, pid: u32) {
        let state = self.pid_file_of(pid);
        self.tell(What::PidFile(state));
    }

    /// The PID file as it is read, written now and for this process.
    pub(super) fn pid_file_of(&self, pid: u32) -> PidFileState {
        PidFileState {
            path: PID_FILE.into(),
            of: None,
            local: None,
            content: PidFileContent::Pid(pid),
            modified: self.now,
            process: self.processes.get(&pid).cloned(),
        }
    }

    pub(super) fn remove_pid_file(&mut self, by: u32) {
        let actor = Some(self.actor(by));
        self.tell(What::PidFilePath {
            path: PID_FILE.into(),
            of: None,
            change: PathChange::Removed,
            actor: actor.map(Into::into),
        });
        self.tell(What::PidFile(PidFileState {
            path: PID_FILE.into(),
            of: None,
            local: None,
            content: PidFileContent::Absent,
            modified: Nanos::ZERO,
            process: None,
        }));
    }

    /// Starts the service as a healthy daemon does.
    pub(super) fn start(&mut self, pid: u32) -> u64 {
        self.exec(pid);
        let ino = self.listen(pid);
        self.write_pid_file(pid);
        ino
    }

    fn actor(&self, pid: u32) -> Process {
        self.processes
            .get(&pid)
            .cloned()
            .unwrap_or_else(|| self.process(pid, 1, "/bin/kill"))
    }

    pub(super) fn signal(&mut self, target: u32, signal: Signal, by: u32, disposition: Disposition) {
        match signal {
            Signal::STOP => self.stopped.insert(target),
            Signal::CONT => self.stopped.remove(&target),
            _ => false,
        };
        let sent = SignalSent {
            target: self.processes[&target].clone(),
            signal,
            code: 0,
            result: if disposition == Disposition::Ignored {
                SignalResult::Ignored
            } else {
                SignalResult::Queued
            },
            disposition,
            fault_addr: None,
            actor: Some(self.actor(by).into()),
        };
        self.tell(What::Signal(sent));
    }

    /// Ends the process; the sockets that only it held close after that, as in the kernel.
    pub(super) fn exit(&mut self, pid: u32, status: ExitStatus) {
        let Some(process) = self.processes.remove(&pid) else {
            panic!("{pid} does not live")
        };
        let held: Vec<u64> = self
            .sockets
            .iter()
            .filter(|s| s.holders.iter().any(|h| h.process == process.id))
            .map(|s| s.inode)
            .collect();
        self.tell(What::Exit {
            process: process.clone(),
            status,
            listeners: Some(held.clone()),
        });
        for s in &mut self.sockets {
            s.holders.retain(|h| h.process != process.id);
        }
        for ino in held {
            if self
                .sockets
                .iter()
                .any(|s| s.inode == ino && s.holders.is_empty())
            {
                self.close(ino);
            }
        }
    }

    pub(super) fn kill(&mut self, pid: u32, by: u32) {
        self.signal(pid, Signal::KILL, by, Disposition::Default);
        self.exit(
            pid,
            ExitStatus::Signal {
                signal: Signal::KILL,
                core: false,
            },
        );
    }

    pub(super) fn state_of(&self, site: &Site) -> AddressState {
        let is_path = site.address.path().is_some();
        // Another path than the one that everything here happens at.
        if is_path && site.address.to_string() != SOCK {
            return AddressState {
                address: site.address.clone(),
                of: site.of.clone(),
                netns: None,
                path: Some(PathState::Absent),
                changed: None,
                sockets: Vec::new(),
                processes: Vec::new(),
                error: None,
            };
        }
        AddressState {
            address: site.address.clone(),
            of: site.of.clone(),
            netns: None,
            path: is_path.then(|| self.path.clone()),
            changed: self.changed.filter(|_| is_path),
            sockets: self.sockets.clone(),
            processes: self.processes.values().cloned().collect(),
            error: None,
        }
    }

    pub(super) fn tell(&mut self, what: What) {
        let event = Event {
            at: self.now,
            time_source: TimeSource::Kernel,
            what,
        };
        self.apply(event);
    }

    /// Applies an event and answers what the engine asks, as the runtime does.
    pub(super) fn apply(&mut self, event: Event) {
        let mut queue = std::collections::VecDeque::from([event]);
        let mut rounds = 0;
        while let Some(event) = queue.pop_front() {
            rounds += 1;
            assert!(rounds < 1000, "the engine asks without end");
            for effect in self.engine.apply(event, self.now) {
                match &effect {
                    Effect::Settle(a) => {
                        let state = self.state_of(a);
                        let what = What::Address(state);
                        queue.push_back(Event {
                            at: self.now,
                            time_source: TimeSource::Observed,
                            what,
                        });
                    }
                    // A test that needs more than this tells it itself.
                    Effect::Look(id) => {
                        let lives = self.processes.get(&id.pid).is_some_and(|p| p.id == *id);
                        let run = match self.stopped.contains(&id.pid) {
                            _ if !lives => RunState::Gone,
                            true => RunState::Stopped,
                            false => RunState::Running,
                        };
                        let locks = self.locks.get(&id.pid).cloned().unwrap_or_default();
                        let state = ProcessState {
                            process: *id,
                            run,
                            masks: None,
                            locks,
                        };
                        let what = What::Process(state);
                        queue.push_back(Event {
                            at: self.now,
                            time_source: TimeSource::Observed,
                            what,
                        });
                    }
                    Effect::Find(f) => self.findings.push((**f).clone()),
                    Effect::Show(s) => self.shown.push((**s).clone()),
                    _ => {}
                }
                self.effects.push(effect);
            }
        }
    }

    /// Lets time pass, with every timer on its way.
    pub(super) fn pass(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(due) = self.engine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tell(What::Timer);
        }
        self.now = end;
    }

    pub(super) fn opened(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self
            .findings
            .iter()
            .filter(|f| f.state == FindingState::Opened)
            .map(|f| f.kind)
            .collect();
        kinds.sort_unstable();
        kinds
    }

    /// Findings that are open now.
    pub(super) fn open(&self) -> Vec<Kind> {
        let mut open: BTreeMap<&str, Kind> = BTreeMap::new();
        for f in &self.findings {
            match f.state {
                FindingState::Opened => open.insert(&f.id, f.kind),
                FindingState::Updated => None,
                FindingState::Resolved => open.remove(f.id.as_str()),
            };
        }
        let mut kinds: Vec<Kind> = open.into_values().collect();
        kinds.sort_unstable();
        kinds
    }

    pub(super) fn finding(&self, kind: Kind) -> &Finding {
        match self.findings.iter().rev().find(|f| f.kind == kind) {
            Some(f) => f,
            None => panic!("no {} among {:#?}", kind.name(), self.findings),
        }
    }

    pub(super) fn count(&self, kind: EventKind) -> usize {
        self.shown.iter().filter(|s| s.kind == kind).count()
    }

    pub(super) fn expect_nothing(&self) {
        assert!(self.findings.is_empty(), "{:#?}", self.findings);
    }
}
