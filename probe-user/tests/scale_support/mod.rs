//! A host of many services that live, crash and are restarted at random, always in the same way.

use std::{collections::VecDeque, time::Duration};

use probe_user::{
    address::Address,
    clock::Nanos,
    config::{Config, Heartbeat, Service},
    engine::{
        Effect, Engine,
        finding::{Finding, FindingState, Kind},
    },
    event::{
        AddressState, Disposition, Event, ExitStatus, FileId, Holder, PathChange, PathState, PidFileContent,
        PidFileState, ProcId, Process, ProcessState, RunState, SignalResult, SignalSent, Snapshot,
        SnapshotReason, Socket, SocketId, SocketState, TimeSource, What,
    },
    signal::Signal,
};

/// One service: a socket in the file system, a port, a PID file, a heartbeat, some workers.
struct Daemon {
    unix: Address,
    tcp: Address,
    main: Option<Process>,
    workers: Vec<Process>,
    unix_inode: Option<u64>,
    tcp_inode: Option<u64>,
    /// Of the last bind.
    file: Option<FileId>,
    pid_file: PidFileState,
}

pub(crate) struct Host {
    engine: Engine,
    now: Nanos,
    daemons: Vec<Daemon>,
    /// Daemons that are to be started again, and when.
    down: VecDeque<(Nanos, usize)>,
    random: u64,
    next_pid: u32,
    next_inode: u64,
    queue: VecDeque<Event>,
    pub(crate) edges: u64,
    pub(crate) answers: u64,
    pub(crate) opened: u64,
    pub(crate) resolved: u64,
}

fn name(i: usize) -> String {
    format!("daemon{i}")
}

fn exe(i: usize) -> String {
    format!("/usr/sbin/daemon{i}")
}

fn pid_path(i: usize) -> String {
    format!("/run/daemon{i}/pid")
}

fn declared(i: usize) -> Service {
    let mut s = Service::named(name(i));
    s.exe = Some(exe(i));
    s.pid_file = Some(pid_path(i));
    s.listen = vec![unix(i), tcp(i)];
    s.signals.handled = vec![Signal::HUP];
    s.heartbeat = Some(Heartbeat {
        file: Some(format!("/run/daemon{i}/beat")),
        notify: None,
        connect: None,
        send: None,
        expect: None,
        every: None,
        timeout: None,
        log: None,
        contains: None,
        journal: None,
        stale_after: Duration::from_secs(7200),
    });
    s
}

fn unix(i: usize) -> Address {
    format!("unix:/run/daemon{i}/socket").parse().expect("address")
}

fn tcp(i: usize) -> Address {
    format!("tcp:127.0.0.1:{}", 10_000 + i).parse().expect("address")
}

/// Index of the daemon that an address or a PID file belongs to.
fn index(text: &str) -> usize {
    match text.strip_prefix("tcp:127.0.0.1:") {
        Some(port) => port.parse::<usize>().expect("port") - 10_000,
        None => {
            let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
            let end = digits.find('/').unwrap_or(digits.len());
            digits[..end].parse().expect("number")
        }
    }
}

impl Host {
    pub(crate) fn new(services: usize) -> Self {
        let config = Config {
            services: (0..services).map(declared).collect(),
            ..Config::default()
        };
        let daemons = (0..services)
            .map(|i| Daemon {
                unix: unix(i),
                tcp: tcp(i),
                main: None,
                workers: Vec::new(),
                unix_inode: None,
                tcp_inode: None,
                file: None,
                pid_file: PidFileState {
                    path: pid_path(i),
                    content: PidFileContent::Absent,
                    modified: Nanos::ZERO,
                    process: None,
                },
            })
            .collect();
        Self {
            engine: Engine::new(config, &Default::default()),
            now: Nanos(1_000_000_000_000),
            daemons,
            down: VecDeque::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            next_pid: 1000,
            next_inode: 1000,
            queue: VecDeque::new(),
            edges: 0,
            answers: 0,
            opened: 0,
            resolved: 0,
        }
    }

    /// Everything runs when probe begins.
    pub(crate) fn begin(&mut self) {
        for i in 0..self.daemons.len() {
            let main = self.process(i, None);
            self.daemons[i].main = Some(main);
            self.bind(i);
            self.write_pid_file(i);
        }
        let what = self.snapshot(SnapshotReason::Start);
        self.answer(what);
        self.run();
    }

    /// One thing happens to one daemon.
    pub(crate) fn live(&mut self) {
        if let Some((_, i)) = self.down.front().copied().filter(|(at, _)| *at <= self.now) {
            self.down.pop_front();
            self.start(i);
            return;
        }
        let i = self.random(self.daemons.len() as u64) as usize;
        let Some(main) = self.daemons[i].main.clone() else {
            return;
        };
        match self.random(100) {
            0..25 if self.daemons[i].workers.len() < 8 => {
                let child = self.process(i, Some(main.id));
                self.daemons[i].workers.push(child.clone());
                self.edge(What::Fork { child });
            }
            0..50 => {
                if let Some(process) = self.daemons[i].workers.pop() {
                    self.exit(process, ExitStatus::Code(0));
                }
            }
            50..75 => {
                let beat = Some(self.now);
                self.edge(What::Heartbeat {
                    service: name(i),
                    beat,
                });
            }
            75..90 => self.signal(&main, Signal::HUP, Disposition::Caught),
            90..95 => {
                self.unbind(i, true);
                self.bind(i);
                self.tell_bind(i, &main);
            }
            95..98 => self.crash(i, main),
            _ => self.stop(i, main),
        }
    }

    fn start(&mut self, i: usize) {
        let main = self.process(i, None);
        self.daemons[i].main = Some(main.clone());
        self.edge(What::Exec {
            process: main.clone(),
        });
        self.bind(i);
        self.tell_bind(i, &main);
        self.write_pid_file(i);
        self.pid_path_changed(i, PathChange::Created, &main);
    }

    fn crash(&mut self, i: usize, main: Process) {
        self.signal(&main, Signal::KILL, Disposition::Default);
        self.end(
            i,
            main,
            ExitStatus::Signal {
                signal: Signal::KILL,
                core: false,
            },
        );
    }

    fn stop(&mut self, i: usize, main: Process) {
        self.signal(&main, Signal::TERM, Disposition::Caught);
        self.unbind(i, true);
        self.daemons[i].pid_file.content = PidFileContent::Absent;
        self.daemons[i].pid_file.process = None;
        self.pid_path_changed(i, PathChange::Removed, &main);
        self.end(i, main, ExitStatus::Code(0));
    }

    fn end(&mut self, i: usize, main: Process, status: ExitStatus) {
        for w in std::mem::take(&mut self.daemons[i].workers) {
            self.exit(w, ExitStatus::Code(0));
        }
        self.daemons[i].main = None;
        self.daemons[i].pid_file.process = None;
        self.exit(main, status);
        self.unbind(i, false);
        self.down.push_back((self.now + Duration::from_secs(5), i));
    }

    fn exit(&mut self, process: Process, status: ExitStatus) {
        self.edge(What::Exit {
            process,
            status,
            listeners: None,
        });
    }

    fn signal(&mut self, target: &Process, signal: Signal, disposition: Disposition) {
        let actor = Process {
            id: ProcId {
                pid: 2,
                start_ticks: 1,
            },
            comm: "kill".into(),
            exe: Some("/bin/kill".into()),
            ..target.clone()
        };
        self.edge(What::Signal(SignalSent {
            target: target.clone(),
            signal,
            code: 0,
            result: SignalResult::Queued,
            disposition,
            fault_addr: None,
            actor: Some(actor),
        }));
    }

    fn bind(&mut self, i: usize) {
        self.next_inode += 2;
        let d = &mut self.daemons[i];
        (d.unix_inode, d.tcp_inode) = (Some(self.next_inode), Some(self.next_inode + 1));
        d.file = Some(FileId {
            dev: 1,
            ino: self.next_inode,
        });
    }

    fn tell_bind(&mut self, i: usize, by: &Process) {
        let (address, inode) = (self.daemons[i].tcp.clone(), self.daemons[i].tcp_inode);
        self.path_changed(i, PathChange::Created, by);
        self.edge(What::Listen {
            address,
            process: by.clone(),
            socket: inode.map(SocketId),
            inode,
        });
    }

    /// `clean`: the path goes too.
    fn unbind(&mut self, i: usize, clean: bool) {
        let d = &mut self.daemons[i];
        let (address, unix, tcp) = (d.tcp.clone(), d.unix_inode.take(), d.tcp_inode.take());
        if clean {
            d.file = None;
            if let Some(main) = d.main.clone() {
                self.path_changed(i, PathChange::Removed, &main);
            }
        }
        if let Some(inode) = unix {
            self.edge(What::SocketClosed { inode });
        }
        if tcp.is_some() {
            self.edge(What::Unlisten {
                address,
                socket: tcp.map(SocketId),
                inode: tcp,
            });
        }
    }

    fn path_changed(&mut self, i: usize, change: PathChange, by: &Process) {
        let (address, actor) = (self.daemons[i].unix.clone(), Some(by.clone()));
        self.edge(What::Path {
            address,
            change,
            actor,
        });
    }

    fn write_pid_file(&mut self, i: usize) {
        let (now, d) = (self.now, &mut self.daemons[i]);
        let pid = d.main.as_ref().map_or(0, |m| m.id.pid);
        d.pid_file.content = PidFileContent::Pid(pid);
        d.pid_file.modified = now;
        d.pid_file.process = d.main.clone();
    }

    fn pid_path_changed(&mut self, i: usize, change: PathChange, by: &Process) {
        let actor = Some(by.clone());
        self.edge(What::PidFilePath {
            path: pid_path(i),
            change,
            actor,
        });
    }

    fn process(&mut self, i: usize, parent: Option<ProcId>) -> Process {
        self.next_pid += 1;
        Process {
            id: ProcId::new(self.next_pid, self.now),
            start: self.now,
            parent: parent.or(Some(ProcId {
                pid: 1,
                start_ticks: 0,
            })),
            comm: name(i),
            uid: Some(0),
            exe: Some(exe(i)),
            exe_deleted: false,
            exe_id: None,
            argv: vec![exe(i), "--foreground".into()],
            unit: Some(format!("daemon{i}.service")),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn edge(&mut self, what: What) {
        self.edges += 1;
        self.queue.push_back(Event {
            at: self.now,
            time_source: TimeSource::Kernel,
            what,
        });
    }

    fn answer(&mut self, what: What) {
        self.answers += 1;
        self.queue.push_back(Event {
            at: self.now,
            time_source: TimeSource::Observed,
            what,
        });
    }

    /// Lets time pass, with every timer on its way.
    pub(crate) fn pass(&mut self, d: Duration) {
        self.run();
        let end = self.now + d;
        while let Some(due) = self.engine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.answer(What::Timer);
            self.run();
        }
        self.now = end;
    }

    fn run(&mut self) {
        let mut wanted = Vec::new();
        let mut resync = None;
        loop {
            while let Some(event) = self.queue.pop_front() {
                for effect in self.engine.apply(event, self.now) {
                    match effect {
                        Effect::Find(f) => self.note(&f),
                        // As in the runtime, looks wait until the events at hand are through, and are done once.
                        Effect::Resync(reason) => resync = Some(reason),
                        Effect::Settle(_) | Effect::ReadPidFile(_) | Effect::Look(_)
                            if !wanted.contains(&effect) =>
                        {
                            wanted.push(effect);
                        }
                        _ => {}
                    }
                }
            }
            if let Some(effect) = wanted.pop() {
                let what = match effect {
                    Effect::Settle(a) => What::Address(self.state_of(&a)),
                    Effect::ReadPidFile(path) => What::PidFile(self.daemons[index(&path)].pid_file.clone()),
                    Effect::Look(process) => What::Process(ProcessState {
                        process,
                        run: RunState::Running,
                        masks: Some(probe_user::event::SignalMasks {
                            caught: 1,
                            ..Default::default()
                        }),
                    }),
                    _ => continue,
                };
                self.answer(what);
            } else if let Some(reason) = resync.take() {
                let what = self.snapshot(reason);
                self.answer(what);
            } else {
                return;
            }
        }
    }

    fn note(&mut self, finding: &Finding) {
        match finding.state {
            FindingState::Opened if finding.kind == Kind::CrashLoop => {}
            FindingState::Opened => self.opened += 1,
            FindingState::Updated => {}
            FindingState::Resolved if finding.kind == Kind::CrashLoop => {}
            FindingState::Resolved => self.resolved += 1,
        }
    }

    fn state_of(&self, address: &Address) -> AddressState {
        let d = &self.daemons[index(&address.to_string())];
        let is_path = address.path().is_some();
        let (inode, file) = if is_path {
            (d.unix_inode, d.file)
        } else {
            (d.tcp_inode, None)
        };
        let socket = |inode| Socket {
            id: SocketId(inode),
            inode,
            state: SocketState::Listening,
            file,
            ip: address.inet().and_then(|i| i.ip),
            queue: 0,
            backlog: 128,
            head: None,
            holders: d.main.iter().map(|m| Holder { process: m.id, fd: 3 }).collect(),
            holders_known: true,
        };
        AddressState {
            address: address.clone(),
            path: is_path.then(|| file.map_or(PathState::Absent, PathState::Socket)),
            sockets: inode.map(socket).into_iter().collect(),
            processes: d.main.iter().filter(|_| inode.is_some()).cloned().collect(),
            error: None,
        }
    }

    fn snapshot(&self, reason: SnapshotReason) -> What {
        let daemons = || self.daemons.iter();
        What::Snapshot(Snapshot {
            began: self.now,
            reason,
            processes: daemons()
                .flat_map(|d| d.main.iter().chain(&d.workers))
                .cloned()
                .collect(),
            addresses: daemons()
                .flat_map(|d| [&d.unix, &d.tcp])
                .map(|a| self.state_of(a))
                .collect(),
            pid_files: daemons().map(|d| d.pid_file.clone()).collect(),
        })
    }
}
