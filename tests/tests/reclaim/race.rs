//! Everything at once: sockets that are bound, left behind, replaced and moved, and pids that are given away again, while
//! reclaims run.
//!
//! `PROBE_RACE_ROUNDS` says how many.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use nix::sys::wait::{WaitStatus, waitpid};
use probe_tests::{Daemon, Deadline, Proc, Sandbox, kill};
use probe_user::{
    config::Service,
    reclaim::{Act, Options, reclaim},
};
use rustix::process::Signal;

/// Threads that each own a path, and processes that do.
const THREADS: usize = 3;
const PROCESSES: usize = 1;

#[derive(Debug, Default)]
struct Counts {
    rounds: AtomicU64,
    /// What was done to sockets, and how often one was checked to be where it belongs.
    acts: AtomicU64,
    checks: AtomicU64,
    /// A live socket was not where it belongs at the first look, and was a moment later.
    away: AtomicU64,
    /// Live sockets that are gone from their path.
    lost: AtomicU64,
    removed: AtomicU64,
    left: AtomicU64,
    ended: AtomicU64,
    /// Strangers with a pid that was the service's a moment before.
    strangers: AtomicU64,
    signalled: AtomicU64,
    pid_files: AtomicU64,
}

impl Counts {
    /// There was enough that could have gone wrong.
    fn are_worth_something(&self) -> bool {
        [&self.checks, &self.removed, &self.ended, &self.strangers]
            .iter()
            .all(|n| n.load(Relaxed) >= rounds() / 50)
    }
}

fn add(to: &AtomicU64, n: u64) {
    to.fetch_add(n, Relaxed);
}

fn rounds() -> u64 {
    env::var("PROBE_RACE_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000)
}

fn options(sandbox: &Sandbox) -> Options {
    Options {
        state_dir: sandbox.path("state"),
        dry_run: false,
        trust_pid_file: false,
        lock_within: Duration::from_secs(60),
        kill_within: Duration::from_secs(10),
    }
}

/// In a world of its own, where few processes have to be looked at in each round and every pid is free to be given away.
#[test]
fn no_live_socket_is_removed_and_no_stranger_is_signalled() {
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--net"])
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "race::rounds_of_everything",
            "--ignored",
            "--nocapture",
        ])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "the test above starts it"]
fn rounds_of_everything() {
    let sandbox = Sandbox::new();
    let counts = Counts::default();
    let done = AtomicBool::new(false);
    let (sockets, pids) = (sandbox.path("sockets"), sandbox.path("pids"));
    fs::create_dir(&sockets).unwrap();
    fs::create_dir(&pids).unwrap();
    let paths: Vec<PathBuf> = (0..THREADS + PROCESSES)
        .map(|i| sockets.join(format!("{i}.sock")))
        .collect();
    let of_sockets = Service {
        listen: paths
            .iter()
            .map(|p| format!("unix:{}", p.display()).parse().unwrap())
            .collect(),
        ..Service::named("sockets")
    };
    let annad = sandbox.install(Path::new("/bin/sleep"), "annad");
    let other = sandbox.install(Path::new("/bin/sleep"), "other");
    let of_pids = Service {
        exe: Some(annad.display().to_string()),
        pid_file: Some(pids.join("annad.pid").display().to_string()),
        singleton: true,
        stop_within: Duration::from_millis(500),
        ..Service::named("pids")
    };
    let faulty = Daemon::install(&sandbox, "faulty");
    let share = rounds().div_ceil(6);
    thread::scope(|scope| {
        let (counts, done) = (&counts, &done);
        for (i, path) in paths.iter().enumerate() {
            let faulty = &faulty;
            scope.spawn(move || match i < THREADS {
                true => Actor::new(path, i as u64 + 1).act(counts, done),
                false => by_processes(faulty, path, counts, done),
            });
        }
        scope.spawn(|| recycle(&annad, &other, &pids.join("annad.pid"), counts, done));
        // Two at a time of each, of which neither waits for the other: the lock is the service's.
        let again = |service: &Service| Service {
            name: format!("{} again", service.name),
            ..service.clone()
        };
        let (sockets_again, pids_again) = (again(&of_sockets), again(&of_pids));
        let reclaimers: Vec<_> = [
            (of_sockets, share * 2),
            (sockets_again, share * 2),
            (of_pids, share),
            (pids_again, share),
        ]
        .into_iter()
        .map(|(service, rounds)| {
            let options = options(&sandbox);
            scope.spawn(move || {
                for n in 0..rounds * 10 {
                    if done.load(Relaxed) || n >= rounds && counts.are_worth_something() {
                        break;
                    }
                    round(&service, &options, counts);
                }
            })
        })
        .collect();
        let results: Vec<_> = reclaimers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok), "a reclaim panicked");
    });
    println!("{counts:#?}");
    let count = |c: &AtomicU64| c.load(Relaxed);
    assert_eq!(count(&counts.lost), 0, "live sockets were removed: {counts:#?}");
    assert_eq!(
        count(&counts.signalled),
        0,
        "strangers were signalled: {counts:#?}"
    );
    assert!(counts.are_worth_something(), "too little happened: {counts:#?}");
}

fn round(service: &Service, options: &Options, counts: &Counts) {
    let outcome = reclaim(service, options, &mut |step| match step.act {
        Act::Remove if step.subject.starts_with('/') => add(&counts.pid_files, 1),
        Act::Remove => add(&counts.removed, 1),
        Act::Leave => add(&counts.left, 1),
        _ => {}
    });
    match outcome {
        Ok(outcome) => add(&counts.ended, outcome.ended as u64),
        Err(e) => panic!("a reclaim of {} failed: {e}", service.name),
    }
    add(&counts.rounds, 1);
}

/// xorshift64
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Does everything to a path that daemons and people do, and knows what must be there.
struct Actor {
    path: PathBuf,
    other: PathBuf,
    live: Option<UnixListener>,
    dice: Dice,
}

impl Actor {
    fn new(path: &Path, seed: u64) -> Self {
        Self {
            path: path.to_owned(),
            other: path.with_extension("other"),
            live: None,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    fn act(&mut self, counts: &Counts, done: &AtomicBool) {
        while !done.load(Relaxed) {
            self.step();
            add(&counts.acts, 1);
            if let Some(live) = &self.live {
                check(&self.path, Some(live), counts);
            }
            if self.dice.roll(2) == 0 {
                thread::sleep(Duration::from_micros(self.dice.roll(3000)));
            }
        }
    }

    fn step(&mut self) {
        match self.dice.roll(7) {
            0 | 1 if self.live.is_none() => match UnixListener::bind(&self.path) {
                Ok(live) => self.live = Some(live),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::AddrInUse, "{e}"),
            },
            // Dies, and leaves its file behind.
            0..=2 => self.live = None,
            3 => {
                let _ = fs::remove_file(&self.path);
                self.live = None;
            }
            // As nginx and systemd do: bound elsewhere, then moved over whatever is there.
            4 => {
                let _ = fs::remove_file(&self.other);
                let live = UnixListener::bind(&self.other).unwrap();
                fs::rename(&self.other, &self.path).unwrap();
                self.live = Some(live);
            }
            // Removed and bound anew at once, while the old one still lives.
            5 => {
                let _ = fs::remove_file(&self.path);
                if let Ok(live) = UnixListener::bind(&self.path) {
                    self.live = Some(live);
                } else {
                    self.live = None;
                }
            }
            // Away and back, and touched on the way.
            _ => {
                if fs::rename(&self.path, &self.other).is_ok() {
                    let _ = fs::set_permissions(&self.other, fs::Permissions::from_mode(0o700));
                    fs::rename(&self.other, &self.path).unwrap();
                }
            }
        }
    }
}

/// The path must lead to the live socket: now, or as soon as a reclaim has put back what it moved.
fn check(path: &Path, live: Option<&UnixListener>, counts: &Counts) {
    let leads_there = || {
        let connected = UnixStream::connect(path).is_ok();
        // Its queue must not fill up.
        if let (true, Some(live)) = (connected, live) {
            live.set_nonblocking(true).unwrap();
            while live.accept().is_ok() {}
        }
        connected
    };
    add(&counts.checks, 1);
    if leads_there() {
        return;
    }
    add(&counts.away, 1);
    let deadline = Deadline::after(Duration::from_secs(5));
    while !leads_there() {
        if deadline.left().is_none() {
            let ino = fs::symlink_metadata(path).map(|m| m.ino());
            println!("{} leads to {ino:?}, and nobody answers", path.display());
            add(&counts.lost, 1);
            return;
        }
        thread::yield_now();
    }
}

/// A daemon of its own that takes the path over, rebinds it and is killed, over and over.
fn by_processes(faulty: &Path, path: &Path, counts: &Counts, done: &AtomicBool) {
    while !done.load(Relaxed) {
        let mut daemon = Daemon::at(faulty).unix(path).arg("--take-over").start();
        check(path, None, counts);
        daemon.tell(&format!("rebind unix:{}", path.display()));
        check(path, None, counts);
        kill("KILL", daemon.pid());
        daemon.wait_gone();
        add(&counts.acts, 3);
    }
}

/// One number for two programs, in turn: the service's, which may be ended, and a stranger's.
fn recycle(annad: &Path, other: &Path, pid_file: &Path, counts: &Counts, done: &AtomicBool) {
    let mut dice = Dice(7);
    let highest: i32 = fs::read_to_string("/proc/sys/kernel/pid_max")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    while !done.load(Relaxed) {
        let pid = highest - 2 - dice.roll(40) as i32;
        let Some(ours) = spawn_as(pid, annad, "1000") else {
            continue;
        };
        fs::write(pid_file, pid.to_string()).unwrap();
        thread::sleep(Duration::from_micros(dice.roll(30_000)));
        ours.signal(Signal::KILL);
        let _ = reap(pid);
        // The file still names it.
        let Some(stranger) = spawn_as(pid, other, "0.03") else {
            continue;
        };
        add(&counts.strangers, 1);
        match reap(pid) {
            WaitStatus::Exited(_, 0) => {}
            status => {
                println!("the stranger {pid} ended so: {status:?}");
                add(&counts.signalled, 1);
            }
        }
        drop(stranger);
    }
}

fn reap(pid: i32) -> WaitStatus {
    waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap()
}

/// Starts a program with a pid of our choice. `None`: somebody has it.
fn spawn_as(pid: i32, program: &Path, argument: &str) -> Option<Proc> {
    let path = CString::new(program.as_os_str().as_bytes()).unwrap();
    let argument = CString::new(argument).unwrap();
    let argv = [path.as_ptr(), argument.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    let wanted = [pid];
    // SAFETY: all zeros is a valid value of this C struct.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = wanted.as_ptr() as u64;
    args.set_tid_size = 1;
    // SAFETY: without CLONE_VM the child has its own memory, as after fork; it calls nothing but execve and _exit.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if result == 0 {
        // SAFETY: the strings and arrays were made before, and live on in the child's copy.
        unsafe {
            libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr());
            libc::_exit(127)
        }
    }
    if result < 0 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "clone3: {error}");
        return None;
    }
    Some(Proc::adopt("recycled", pid as u32))
}
