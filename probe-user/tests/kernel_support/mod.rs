//! Loaded programs, and waiting for what they report.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![expect(
    clippy::unwrap_used,
    reason = "it is all test, which clippy can't tell of a helper"
)]

use std::{
    collections::BTreeSet,
    fs,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use probe_user::{
    clock::{self, Nanos},
    event::{Event, ExitStatus, ProcId, What},
    kernel::{Kernel, LoadOptions, Ring, Wanted},
};

/// How long an event may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every test loads its own programs, so tests can run side by side with each other and anything else on the machine.
pub struct Watch {
    pub kernel: Kernel,
    ring: Ring,
    /// Everything read so far.
    pub seen: Vec<Event>,
}

impl Watch {
    /// `None`, said aloud, without root.
    pub fn load() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: loading eBPF programs needs root");
            return None;
        }
        let mut kernel = Kernel::load(&LoadOptions::default()).unwrap();
        let ring = kernel.ring().unwrap();
        Some(Self {
            kernel,
            ring,
            seen: Vec::new(),
        })
    }

    /// The first event that `pick` takes, of all that have been read or come in time.
    pub fn expect<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = clock::now() + PATIENCE;
        let mut looked = 0;
        loop {
            if let Some(found) = self.seen[looked..].iter().find_map(&pick) {
                return found;
            }
            looked = self.seen.len();
            self.read(deadline);
            assert!(
                clock::now() < deadline || self.seen.len() > looked,
                "no {what} among {:#?}",
                self.seen
            );
        }
    }

    /// Waits for records, and reads all there are.
    fn read(&mut self, deadline: Nanos) {
        let left = deadline.since(clock::now()).as_millis();
        let mut fds = [nix::poll::PollFd::new(
            self.ring.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut fds, u16::try_from(left).unwrap()).unwrap();
        let seen = &mut self.seen;
        self.ring.drain(usize::MAX, |event, _| seen.push(event));
    }

    pub fn want_exe(&mut self, exe: &Path) {
        let wanted = Wanted {
            exes: BTreeSet::from([inode(exe)]),
            ..Wanted::default()
        };
        self.kernel.want(&wanted).unwrap();
    }

    pub fn supervise(&mut self, pid: u32) {
        let id = identity(pid);
        self.kernel
            .supervise(id, Nanos(id.start_ticks * 10_000_000))
            .unwrap();
    }

    /// How a process ended, and which listeners it still held.
    pub fn exit_of(&mut self, pid: u32) -> (ExitStatus, Option<Vec<u64>>) {
        self.expect("exit", |e| match &e.what {
            What::Exit {
                process,
                status,
                listeners,
            } if process.id.pid == pid => Some((*status, listeners.clone())),
            _ => None,
        })
    }
}

pub fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// From field 22 of `/proc/PID/stat`.
pub fn identity(pid: u32) -> ProcId {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap();
    ProcId {
        pid,
        start_ticks: start.parse().unwrap(),
    }
}

/// A copy of a program in a directory of its own, so that its inode is not that of anything else on the machine.
pub struct OwnExe {
    pub directory: PathBuf,
    pub path: PathBuf,
}

impl OwnExe {
    pub fn copy(program: &str, test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("probe-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("daemon");
        fs::copy(program, &path).unwrap();
        Self { directory, path }
    }
}

impl Drop for OwnExe {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ends its process when a test fails half-way.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
