//! Daemons by the thousand that live an ordinary life, die now and then, and are watched by the engine.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use probe_user::{
    address::{Address, Site},
    clock::Nanos,
    config::{Config, Heartbeat, Service},
    engine::{
        Effect, Engine,
        finding::{FindingState, Kind},
    },
    event::{
        AddressState, Disposition, Event, ExitStatus, FileId, Holder, PathChange, PathState, PidFileContent,
        PidFileState, ProcId, Process, ProcessState, RunState, SignalResult, SignalSent, Snapshot,
        SnapshotReason, Socket, SocketId, SocketState, TimeSource, What,
    },
    signal::Signal,
};

use super::meter;

const INIT: ProcId = ProcId {
    pid: 1,
    start_ticks: 1,
};

/// A daemon, as it really is.
struct Daemon {
    service: Service,
    main: Option<Process>,
    child: Option<Process>,
    unix: Option<Socket>,
    tcp: Option<Socket>,
    path: PathState,
    pid_file: Option<(u32, Nanos)>,
}

pub(crate) struct Fleet {
    engine: Engine,
    now: Nanos,
    random: fastrand::Rng,
    daemons: Vec<Daemon>,
    /// Daemons by their addresses and PID files.
    by_site: HashMap<Address, usize>,
    by_pid_file: HashMap<String, usize>,
    stranger: Process,
    living: BTreeSet<ProcId>,
    next: u32,
    events: usize,
    /// What was told because the engine asked.
    pub(crate) answers: usize,
    /// What the engine itself took, and not the fleet's own life.
    pub(crate) engine_cpu: Duration,
    /// What to take off for each measured span.
    overhead: Duration,
    crashes: usize,
    found: BTreeMap<Kind, usize>,
    open: BTreeMap<String, Kind>,
}

fn service(n: usize) -> Service {
    let mut s = Service::named(format!("service-{n}"));
    s.exe = Some(format!("/usr/sbin/daemon-{n}"));
    s.listen = vec![
        format!("unix:/run/daemon-{n}/daemon.sock")
            .parse()
            .expect("an address"),
        format!("tcp:127.0.{}.{}:80", 1 + n / 250, 1 + n % 250)
            .parse()
            .expect("an address"),
    ];
    s.pid_file = Some(format!("/run/daemon-{n}/daemon.pid"));
    s.heartbeat = Some(Heartbeat {
        file: Some(format!("/run/daemon-{n}/heartbeat")),
        notify: None,
        connect: None,
        send: None,
        expect: None,
        every: None,
        timeout: None,
        log: None,
        contains: None,
        journal: None,
        // Far longer than the hour: a part of the daemons shows no sign of life in it.
        stale_after: Duration::from_secs(36_000),
    });
    s
}

impl Fleet {
    /// Daemons that run already when probe begins.
    pub(crate) fn new(services: usize) -> Self {
        let declared: Vec<Service> = (0..services).map(service).collect();
        let config = Config {
            services: declared.clone(),
            ..Config::default()
        };
        let by_site = declared
            .iter()
            .enumerate()
            .flat_map(|(n, s)| s.listen.iter().map(move |a| (a.clone(), n)))
            .collect();
        let by_pid_file = declared
            .iter()
            .enumerate()
            .filter_map(|(n, s)| Some((s.pid_file.clone()?, n)))
            .collect();
        let mut fleet = Self {
            engine: Engine::new(config, &BTreeMap::new()),
            now: Nanos(1_000_000_000_000),
            random: fastrand::Rng::with_seed(1),
            daemons: Vec::new(),
            by_site,
            by_pid_file,
            stranger: Process {
                comm: "bash".into(),
                exe: Some("/usr/bin/bash".into()),
                argv: vec!["-bash".into()],
                ..process(900, Nanos(1_000_000_000), INIT, "/usr/bin/bash")
            },
            living: BTreeSet::new(),
            next: 1000,
            events: 0,
            answers: 0,
            engine_cpu: Duration::ZERO,
            overhead: meter::overhead(),
            crashes: 0,
            found: BTreeMap::new(),
            open: BTreeMap::new(),
        };
        for service in declared {
            fleet.daemons.push(Daemon {
                service,
                main: None,
                child: None,
                unix: None,
                tcp: None,
                path: PathState::Absent,
                pid_file: None,
            });
            fleet.begin(fleet.daemons.len() - 1);
        }
        fleet.snapshot(SnapshotReason::Start);
        fleet
    }

    /// Lets `events` happen within `time`, and whatever is due then come true.
    pub(crate) fn live(&mut self, events: usize, time: Duration) {
        let began = self.now;
        let due = |n: usize| began + time.mul_f64(n as f64 / events as f64);
        while self.events < events {
            self.pass(due(self.events));
            let d = self.random.usize(..self.daemons.len());
            match self.random.u32(..100) {
                0..50 => self.fork_or_reap(d),
                50..70 => self.signal(d, Signal::HUP, Disposition::Caught),
                70..88 => self.beat(d),
                88..92 => self.name_is_touched(d),
                92..98 => self.restart(d),
                _ => self.crash(d),
            }
        }
        self.pass(began + time);
    }

    /// Every crash was found, and nothing else was.
    pub(crate) fn check(&mut self) {
        let expected = BTreeMap::from([
            (Kind::StaleSocket, self.crashes),
            (Kind::StalePidFile, self.crashes),
            (Kind::Crashed, self.crashes),
            (Kind::NotRunning, self.crashes),
        ]);
        let expected = if self.crashes == 0 {
            BTreeMap::new()
        } else {
            expected
        };
        assert_eq!(self.found, expected);
        // Each was replaced.
        assert_eq!(self.open, BTreeMap::new());
    }

    fn happen(&mut self, what: What) {
        self.events += 1;
        // Nothing happens at the very same moment.
        self.now = self.now + Duration::from_micros(20);
        self.tell(TimeSource::Kernel, what);
    }

    fn tell(&mut self, time_source: TimeSource, what: What) {
        let at = self.now;
        let mut todo = vec![Event {
            at,
            time_source,
            what,
        }];
        while let Some(event) = todo.pop() {
            let began = meter::cpu();
            let effects = self.engine.apply(event, at);
            self.engine_cpu += (meter::cpu() - began).saturating_sub(self.overhead);
            for effect in effects {
                let what = match effect {
                    Effect::Settle(site) => What::Address(self.address(&site)),
                    Effect::ReadPidFile(path, _) => What::PidFile(self.pid_file(self.by_pid_file[&path])),
                    Effect::Look(id) => What::Process(ProcessState {
                        process: id,
                        run: match self.living.contains(&id) {
                            true => RunState::Running,
                            false => RunState::Gone,
                        },
                        masks: None,
                        locks: Vec::new(),
                    }),
                    Effect::Resync(reason) | Effect::Recheck(reason) => {
                        What::Snapshot(self.look_at_all(reason))
                    }
                    Effect::Find(f) => {
                        match f.state {
                            FindingState::Opened => {
                                *self.found.entry(f.kind).or_default() += 1;
                                self.open.insert(f.id, f.kind);
                            }
                            FindingState::Updated => {}
                            FindingState::Resolved => drop(self.open.remove(&f.id)),
                        }
                        continue;
                    }
                    _ => continue,
                };
                self.answers += 1;
                todo.push(Event {
                    at,
                    time_source: TimeSource::Observed,
                    what,
                });
            }
        }
    }

    fn pass(&mut self, until: Nanos) {
        while let Some(due) = self.engine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.answers += 1;
            self.tell(TimeSource::Observed, What::Timer);
        }
        self.now = self.now.max(until);
    }

    fn snapshot(&mut self, reason: SnapshotReason) {
        let snapshot = self.look_at_all(reason);
        self.tell(TimeSource::Observed, What::Snapshot(snapshot));
    }

    fn look_at_all(&self, reason: SnapshotReason) -> Snapshot {
        let processes = self.daemons.iter().flat_map(|d| d.main.iter().chain(&d.child));
        let sites = self.daemons.iter().flat_map(|d| &d.service.listen);
        Snapshot {
            began: self.now,
            reason,
            processes: processes.cloned().collect(),
            addresses: sites
                .map(|address| {
                    self.address(&Site {
                        address: address.clone(),
                        of: None,
                    })
                })
                .collect(),
            pid_files: (0..self.daemons.len()).map(|d| self.pid_file(d)).collect(),
        }
    }

    fn address(&self, site: &Site) -> AddressState {
        let d = &self.daemons[self.by_site[&site.address]];
        let is_path = site.address.path().is_some();
        let socket = if is_path { &d.unix } else { &d.tcp };
        AddressState {
            address: site.address.clone(),
            of: None,
            netns: (!is_path).then_some(1),
            path: is_path.then(|| d.path.clone()),
            changed: None,
            sockets: socket.iter().cloned().collect(),
            processes: socket.as_ref().and(d.main.clone()).into_iter().collect(),
            error: None,
        }
    }

    fn pid_file(&self, d: usize) -> PidFileState {
        let d = &self.daemons[d];
        let named = d
            .main
            .as_ref()
            .filter(|m| d.pid_file.is_some_and(|(pid, _)| pid == m.id.pid));
        PidFileState {
            path: d.service.pid_file.clone().unwrap_or_default(),
            of: None,
            content: d
                .pid_file
                .map_or(PidFileContent::Absent, |(pid, _)| PidFileContent::Pid(pid)),
            local: None,
            modified: d.pid_file.map_or(Nanos::ZERO, |(_, at)| at),
            process: named.cloned(),
        }
    }

    fn spawn(&mut self, d: usize, parent: ProcId) -> Process {
        self.next += 1;
        let exe = self.daemons[d].service.exe.clone().unwrap_or_default();
        let p = process(self.next, self.now, parent, &exe);
        self.living.insert(p.id);
        p
    }

    fn socket(&mut self, holder: &Process, file: bool) -> Socket {
        self.next += 1;
        let inode = self.next.into();
        Socket {
            id: SocketId(inode),
            inode,
            state: SocketState::Listening,
            file: file.then_some(FileId { dev: 1, ino: inode }),
            ip: None,
            queue: 0,
            backlog: 128,
            head: None,
            holders: vec![Holder {
                process: holder.id,
                fd: 3,
            }],
            holders_known: true,
        }
    }

    /// It runs, with its sockets and its PID file.
    fn begin(&mut self, d: usize) -> Process {
        let main = self.spawn(d, INIT);
        let (unix, tcp) = (self.socket(&main, true), self.socket(&main, false));
        let daemon = &mut self.daemons[d];
        daemon.path = unix.file.map_or(PathState::Absent, PathState::Socket);
        daemon.main = Some(main.clone());
        (daemon.unix, daemon.tcp) = (Some(unix), Some(tcp));
        daemon.pid_file = Some((main.id.pid, self.now));
        main
    }

    fn start(&mut self, d: usize) {
        let left_behind = self.daemons[d].path != PathState::Absent;
        let main = self.begin(d);
        self.happen(What::Exec {
            process: main.clone(),
        });
        if left_behind {
            self.path_changed(d, PathChange::Removed, &main);
        }
        self.path_changed(d, PathChange::Created, &main);
        let tcp = self.daemons[d].tcp.clone().expect("it listens");
        let address = self.daemons[d].service.listen[1].clone();
        self.happen(What::Listen {
            address,
            process: main.clone(),
            socket: Some(tcp.id),
            inode: Some(tcp.inode),
            netns: Some(1),
        });
        self.pid_file_changed(d, PathChange::Created, &main);
    }

    fn path_changed(&mut self, d: usize, change: PathChange, by: &Process) {
        self.happen(What::Path {
            address: self.daemons[d].service.listen[0].clone(),
            of: None,
            change,
            actor: Some(by.clone().into()),
        });
    }

    fn pid_file_changed(&mut self, d: usize, change: PathChange, by: &Process) {
        self.happen(What::PidFilePath {
            path: self.daemons[d].service.pid_file.clone().unwrap_or_default(),
            of: None,
            change,
            actor: Some(by.clone().into()),
        });
    }

    fn signal(&mut self, d: usize, signal: Signal, disposition: Disposition) {
        let target = self.daemons[d].main.clone().expect("it runs");
        self.happen(What::Signal(SignalSent {
            target,
            signal,
            code: 0,
            result: SignalResult::Queued,
            disposition,
            fault_addr: None,
            actor: Some(self.stranger.clone().into()),
        }));
    }

    fn exit(&mut self, process: Process, status: ExitStatus, listeners: Vec<u64>) {
        self.living.remove(&process.id);
        self.happen(What::Exit {
            process,
            status,
            listeners: Some(listeners),
        });
    }

    fn fork_or_reap(&mut self, d: usize) {
        match self.daemons[d].child.take() {
            Some(child) => self.exit(child, ExitStatus::Code(0), Vec::new()),
            None => {
                let parent = self.daemons[d].main.as_ref().expect("it runs").id;
                let child = self.spawn(d, parent);
                self.daemons[d].child = Some(child.clone());
                self.happen(What::Fork { child });
            }
        }
    }

    fn beat(&mut self, d: usize) {
        self.happen(What::Heartbeat {
            service: self.daemons[d].service.name.clone(),
            beat: Some(self.now),
        });
    }

    /// The directory tells of a change after which the name leads where it led.
    fn name_is_touched(&mut self, d: usize) {
        let by = self.daemons[d].main.clone().expect("it runs");
        self.path_changed(d, PathChange::RenamedTo, &by);
    }

    fn close(&mut self, socket: Option<Socket>, d: usize) {
        let Some(socket) = socket else { return };
        match socket.file {
            Some(_) => self.happen(What::SocketClosed { inode: socket.inode }),
            None => self.happen(What::Unlisten {
                address: self.daemons[d].service.listen[1].clone(),
                socket: Some(socket.id),
                inode: Some(socket.inode),
                netns: Some(1),
            }),
        }
    }

    fn restart(&mut self, d: usize) {
        self.signal(d, Signal::TERM, Disposition::Caught);
        if let Some(child) = self.daemons[d].child.take() {
            self.exit(child, ExitStatus::Code(0), Vec::new());
        }
        let main = self.daemons[d].main.clone().expect("it runs");
        self.daemons[d].path = PathState::Absent;
        self.path_changed(d, PathChange::Removed, &main);
        self.daemons[d].pid_file = None;
        self.pid_file_changed(d, PathChange::Removed, &main);
        let (unix, tcp) = (self.daemons[d].unix.take(), self.daemons[d].tcp.take());
        self.close(unix, d);
        self.close(tcp, d);
        self.daemons[d].main = None;
        self.exit(main, ExitStatus::Code(0), Vec::new());
        self.start(d);
    }

    fn crash(&mut self, d: usize) {
        self.crashes += 1;
        if let Some(child) = self.daemons[d].child.take() {
            self.exit(child, ExitStatus::Code(0), Vec::new());
        }
        self.signal(d, Signal::KILL, Disposition::Default);
        let daemon = &mut self.daemons[d];
        let (main, unix, tcp) = (daemon.main.take(), daemon.unix.take(), daemon.tcp.take());
        let main = main.expect("it runs");
        let open = [&unix, &tcp].into_iter().flatten().map(|s| s.inode).collect();
        let status = ExitStatus::Signal {
            signal: Signal::KILL,
            core: false,
        };
        self.exit(main, status, open);
        self.close(unix, d);
        self.close(tcp, d);
        self.start(d);
    }
}

fn process(pid: u32, start: Nanos, parent: ProcId, exe: &str) -> Process {
    Process {
        id: ProcId::new(pid, start),
        start,
        parent: Some(parent),
        comm: exe.rsplit('/').next().unwrap_or_default().into(),
        uid: Some(0),
        exe: Some(exe.into()),
        exe_deleted: false,
        exe_id: None,
        argv: vec![exe.into(), "--no-daemon".into()],
        unit: None,
    }
}
