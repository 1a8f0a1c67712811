//! Stands between a host and the engine as the runtime does, and is as late as the choices say: things happen before it
//! wakes, while it reads, and between what it read and what it tells.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    time::Duration,
};

use super::host::{Action, EXE, Host, PID_FILE, Record, TCP, UNIX, roots};
use crate::{
    address::Site,
    clock::Nanos,
    config::{Config, Service},
    engine::{
        Effect, Engine,
        finding::{Finding, FindingState, Kind},
    },
    event::{
        AddressState, Event, FileId, PathChange, PathState, ProcId, ProcessState, RunState, SignalMasks,
        Snapshot, SnapshotReason, TimeSource, What,
    },
};

/// What is lost on the way, if anything: this many records from this one on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loss {
    pub(super) from: usize,
    pub(super) count: usize,
}

pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) host: Host,
    queue: VecDeque<Event>,
    settle: BTreeSet<Site>,
    read_pid_file: bool,
    looks: BTreeSet<ProcId>,
    resync: Option<SnapshotReason>,
    /// Used in turn, over and over. Empty: everything is told at once, in order, and once.
    choices: Vec<u8>,
    turn: usize,
    loss: Loss,
    records: usize,
    lost: u64,
    recent: VecDeque<Event>,
    /// A name was told to appear, and nobody has looked at it since.
    unread_name: bool,
    /// A name came and went before anybody looked: nobody knows when it came, and so not whether that was before somebody's
    /// end. Likewise when a PID file went that named who has ended.
    pub(super) undated_name: bool,
    /// The PID file was told to be gone, and nobody has looked since.
    unread_removal: bool,
    /// Who was seen to hold the socket of a file.
    seen: BTreeSet<(FileId, ProcId)>,
    open: BTreeMap<String, Finding>,
    /// Kept whole and put into words only when it is needed.
    told: Vec<(Nanos, Event, Vec<Effect>)>,
}

pub(super) fn site(address: &str) -> Site {
    Site {
        address: address.parse().unwrap(),
        of: None,
    }
}

pub(super) fn service() -> Service {
    let mut s = Service::named("d");
    s.exe = Some(EXE.into());
    s.listen = vec![UNIX.parse().unwrap(), TCP.parse().unwrap()];
    s.pid_file = Some(PID_FILE.into());
    s
}

impl Driver {
    pub(super) fn new(actions: &[Action], choices: &[u8], loss: Loss) -> Self {
        let config = Config {
            services: vec![service()],
            ..Config::default()
        };
        Self {
            engine: Engine::new(config, &BTreeMap::new()),
            host: Host::new(actions),
            queue: VecDeque::new(),
            settle: BTreeSet::new(),
            read_pid_file: false,
            looks: BTreeSet::new(),
            resync: Some(SnapshotReason::Start),
            choices: choices.to_vec(),
            turn: 0,
            loss,
            records: 0,
            lost: 0,
            recent: VecDeque::new(),
            unread_name: false,
            undated_name: false,
            unread_removal: false,
            seen: BTreeSet::new(),
            open: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// Lives through the whole history, and on until everything is settled.
    pub(super) fn play(mut self) -> Self {
        self.run();
        while !self.host.todo.is_empty() {
            let more = self.choose(4);
            for _ in 0..=more {
                // Whom a PID file names is read before that process ends: nothing else tells of it.
                if self.host.pid_file_written || self.read_pid_file {
                    break;
                }
                if let Some(d) = self.host.step() {
                    self.drain();
                    self.pass(d);
                }
            }
            self.drain();
        }
        if self.lost > 0 {
            self.tell(What::Lost {
                source: "ring".into(),
                count: self.lost,
            });
            self.run();
        }
        self.choices.clear();
        // Past every patience, and past the slow snapshot.
        self.pass(Duration::from_secs(130));
        self
    }

    fn choose(&mut self, n: usize) -> usize {
        if self.choices.is_empty() {
            return 0;
        }
        self.turn += 1;
        usize::from(self.choices[self.turn % self.choices.len()]) % n
    }

    /// Something happens meanwhile, now and then.
    fn meanwhile(&mut self) {
        if self.choose(4) == 3 {
            while !self.host.todo.is_empty() && !matches!(self.host.todo[0], Action::Wait { .. }) {
                if self.host.pid_file_written || self.read_pid_file {
                    break;
                }
                let _ = self.host.step();
                if self.choose(2) == 0 {
                    break;
                }
            }
        }
    }

    fn pass(&mut self, d: Duration) {
        let end = self.host.now + d;
        while let Some(due) = self.engine.deadline().filter(|due| *due <= end) {
            if self.is_endless() {
                return;
            }
            self.host.now = self.host.now.max(due);
            self.tell(What::Timer);
            self.run();
        }
        self.host.now = self.host.now.max(end);
    }

    fn tell(&mut self, what: What) {
        self.queue.push_back(Event {
            at: self.host.now,
            time_source: TimeSource::Observed,
            what,
        });
    }

    fn drain(&mut self) {
        self.take_edges();
        self.run();
    }

    fn take_edges(&mut self) {
        let mut records = std::mem::take(&mut self.host.ring);
        for i in 1..records.len() {
            let apart = !records[i]
                .about
                .iter()
                .any(|pid| records[i - 1].about.contains(pid));
            if apart && self.choose(3) == 2 {
                records.swap(i - 1, i);
            }
        }
        let exit = records
            .iter()
            .position(|r| matches!(r.event.what, What::Exit { .. }));
        for (i, Record { event, .. }) in records.into_iter().enumerate() {
            if Some(i) == exit {
                self.take_notifications();
            }
            self.records += 1;
            if (self.loss.from..self.loss.from + self.loss.count).contains(&(self.records - 1)) {
                self.lost += 1;
                continue;
            }
            self.queue.push_back(event.clone());
            if self.recent.len() == 4 {
                self.recent.pop_front();
            }
            // A signal that is sent twice is two signals.
            if !matches!(event.what, What::Signal(_)) {
                self.recent.push_back(event);
            }
        }
        if exit.is_none() {
            self.take_notifications();
        }
    }

    fn take_notifications(&mut self) {
        for what in std::mem::take(&mut self.host.names) {
            self.tell(what);
        }
        self.read_pid_file |= std::mem::take(&mut self.host.pid_file_written);
        for inode in std::mem::take(&mut self.host.closed) {
            self.tell(What::SocketClosed { inode });
        }
    }

    /// A level is told behind the edges that came before it; some of them once more.
    fn tell_level(&mut self, at: Nanos, what: What) {
        self.meanwhile();
        self.take_edges();
        self.queue.push_back(Event {
            at,
            time_source: TimeSource::Observed,
            what,
        });
        if self.choose(5) == 4 {
            self.queue.extend(std::mem::take(&mut self.recent));
        }
    }

    fn run(&mut self) {
        loop {
            while let Some(event) = self.queue.pop_front() {
                self.feed(event);
            }
            if self.is_endless() {
                return;
            }
            let at = self.host.now;
            if let Some(address) = self.settle.pop_first() {
                self.meanwhile();
                let state = self.host.state_of(&address);
                self.tell_level(at, What::Address(state));
            } else if std::mem::take(&mut self.read_pid_file) {
                let state = self.host.pid_file_state();
                self.tell_level(at, What::PidFile(state));
            } else if let Some(id) = self.looks.pop_first() {
                let gone = self.host.living(id).is_none();
                let state = ProcessState {
                    process: id,
                    run: if gone { RunState::Gone } else { RunState::Running },
                    masks: (!gone).then(SignalMasks::default),
                    locks: Vec::new(),
                };
                self.tell_level(at, What::Process(state));
            } else if let Some(reason) = self.resync.take() {
                let snapshot = self.look_at_all(reason);
                self.tell_level(at, What::Snapshot(snapshot));
            } else {
                return;
            }
        }
    }

    /// Nothing is read at one moment.
    fn look_at_all(&mut self, reason: SnapshotReason) -> Snapshot {
        let began = self.host.now;
        self.meanwhile();
        let addresses: Vec<_> = [UNIX, TCP].iter().map(|a| self.host.state_of(&site(a))).collect();
        self.meanwhile();
        let pid_files = vec![self.host.pid_file_state()];
        self.meanwhile();
        let mut wanted = roots(&addresses, &pid_files);
        let mut processes = self.host.selected(&wanted);
        self.meanwhile();
        // Members are looked up, whatever they run.
        wanted = self.engine.members().collect();
        for id in wanted {
            if let (Some(p), false) = (self.host.living(id), processes.iter().any(|p| p.id == id)) {
                processes.push(p.clone());
            }
        }
        Snapshot {
            began,
            reason,
            processes,
            addresses,
            pid_files,
        }
    }

    fn note_name(&mut self, what: &What) {
        let is_socket = |a: &AddressState| matches!(a.path, Some(PathState::Socket(_)));
        let read = match what {
            What::Path { change, .. } => {
                self.undated_name |= self.unread_name;
                self.unread_name = *change == PathChange::Created;
                return;
            }
            What::PidFilePath { change, .. } => {
                self.unread_removal = *change == PathChange::Removed;
                return;
            }
            What::PidFile(_) => {
                self.unread_removal = false;
                return;
            }
            What::Exit { .. } => {
                self.undated_name |= self.unread_removal;
                return;
            }
            What::Address(a) => a.address.path().map(|_| is_socket(a)),
            What::Snapshot(s) => Some(s.addresses.iter().any(is_socket)),
            _ => None,
        };
        if let (true, Some(is_there)) = (self.unread_name, read) {
            self.undated_name |= !is_there;
            self.unread_name = false;
        }
    }

    fn note_holders(&mut self, what: &What) {
        let addresses = match what {
            What::Address(a) => std::slice::from_ref(a),
            What::Snapshot(s) => &s.addresses,
            _ => return,
        };
        for s in addresses.iter().flat_map(|a| &a.sockets) {
            let holders = s.holders.iter().map(|h| h.process);
            self.seen
                .extend(holders.filter_map(|h| s.file.map(|file| (file, h))));
        }
    }

    /// Somebody inherited a socket and was gone before anybody looked: nobody can know that.
    pub(super) fn has_unseen_heir(&self) -> bool {
        let unseen = |(file, by): (&FileId, &ProcId)| {
            self.host.made_by.get(file) != Some(by) && !self.seen.contains(&(*file, *by))
        };
        self.host.left_by.iter().any(unseen)
    }

    fn feed(&mut self, event: Event) {
        self.note_name(&event.what);
        self.note_holders(&event.what);
        let now = self.host.now;
        let effects = self.engine.apply(event.clone(), now);
        for effect in &effects {
            match effect {
                Effect::Find(f) => match f.state {
                    FindingState::Opened | FindingState::Updated => {
                        self.open.insert(f.id.clone(), (**f).clone());
                    }
                    FindingState::Resolved => {
                        self.open.remove(&f.id);
                    }
                },
                Effect::Settle(a) => {
                    self.settle.insert(a.clone());
                }
                Effect::ReadPidFile(..) => self.read_pid_file = true,
                Effect::Look(id) => {
                    self.looks.insert(*id);
                }
                Effect::Resync(reason) | Effect::Recheck(reason) => {
                    if self.resync != Some(SnapshotReason::Loss) {
                        self.resync = Some(*reason);
                    }
                }
                Effect::Show(_)
                | Effect::Lost { .. }
                | Effect::Supervise(..)
                | Effect::Member(_)
                | Effect::Forget(_) => {}
            }
        }
        self.told.push((now, event, effects));
    }

    /// It asks, and is told, more than a history of this length can be about.
    pub(super) fn is_endless(&self) -> bool {
        self.told.len() > 4000
    }

    pub(super) fn open(&self) -> BTreeSet<(Kind, String)> {
        self.open.values().map(|f| (f.kind, f.subject.clone())).collect()
    }

    /// What was told and said, for people.
    pub(super) fn log(&self) -> String {
        let mut text = String::new();
        for (now, event, effects) in &self.told {
            let _ = writeln!(text, "{now} {event:?}");
            for effect in effects {
                let _ = match effect {
                    Effect::Find(f) => {
                        writeln!(
                            text,
                            "    {:?} {} {}: {}",
                            f.state,
                            f.kind.name(),
                            f.subject,
                            f.summary
                        )
                    }
                    Effect::Show(s) => writeln!(text, "    {}", s.summary),
                    _ => Ok(()),
                };
            }
        }
        text
    }
}
