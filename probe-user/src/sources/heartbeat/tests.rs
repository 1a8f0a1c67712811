//! Real files, logs and servers.

mod connect;
mod file;
mod journal;
mod log;

use std::{
    collections::BTreeMap,
    fs::{File, FileTimes},
    path::Path,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::{
    clock,
    sources::testing::{TempDir, until},
};

/// What coarse time stamps of files may lag behind: a tick of the slowest kernel.
const COARSE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(10);

/// One service, called `a`.
struct Scene {
    dir: TempDir,
    heartbeats: Heartbeats,
}

impl Scene {
    /// `DIR` in the declaration is a directory of this test, which `prepare` may fill before the watch begins.
    fn new(heartbeat: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new("heartbeat");
        prepare(dir.path());
        let heartbeat = heartbeat.replace("DIR", dir.path().to_str().unwrap());
        Self {
            heartbeats: Heartbeats::new(&config(&heartbeat)).unwrap(),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn initial(&mut self) -> Option<Nanos> {
        let mut told = Vec::new();
        self.heartbeats.initial(clock::now(), |w| told.push(w));
        match told.as_slice() {
            [What::Heartbeat { service, beat }] if service == "a" => *beat,
            _ => panic!("{told:?}"),
        }
    }

    /// Whether something is ready.
    fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.heartbeats.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    /// Takes what is ready now; the kernel queues a file's events before the change returns.
    fn drain(&mut self) -> Option<Nanos> {
        let mut beat = None;
        loop {
            self.heartbeats.drain(clock::now(), |what| match what {
                What::Heartbeat { beat: b, .. } => beat = b,
                other => panic!("{other:?}"),
            });
            if !self.is_ready() && self.heartbeats.deadline().is_none_or(|d| d > clock::now()) {
                return beat;
            }
        }
    }

    /// Waits on the descriptor and the deadline until a drain says so.
    #[track_caller]
    fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&Heartbeats, Option<Nanos>) -> Option<T>) -> T {
        let limit = clock::now() + LIMIT;
        loop {
            let now = clock::now();
            assert!(now < limit, "waited in vain: {what}");
            let until = self.heartbeats.deadline().unwrap_or(limit).min(limit);
            let left = PollTimeout::try_from(until.since(now) + Duration::from_millis(1)).unwrap();
            let mut fds = [PollFd::new(self.heartbeats.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, left).unwrap();
            let mut beat = None;
            self.heartbeats.drain(clock::now(), |what| {
                if let What::Heartbeat { beat: b, .. } = what {
                    beat = b;
                }
            });
            if let Some(t) = done(&self.heartbeats, beat) {
                return t;
            }
        }
    }
}

fn config(heartbeat: &str) -> Config {
    toml::from_str(&format!("[[service]]\nname = \"a\"\nheartbeat = {heartbeat}\n")).unwrap()
}

/// Asserts that a beat came from what was done since.
#[track_caller]
fn assert_fresh(beat: Option<Nanos>, since: Nanos) {
    let beat = beat.expect("a beat");
    assert!(
        beat + COARSE >= since && beat <= clock::now(),
        "{beat} is not after {since}"
    );
}

/// Waits until a file that is written now has another time than before. Gives the time since when.
fn tick() -> Nanos {
    let later = clock::now() + COARSE;
    until("the clock goes on", || clock::now() > later);
    later
}

/// Nanoseconds since the epoch.
fn wall_now() -> u64 {
    clock::now().0.checked_add_signed(clock::wall_offset()).unwrap()
}

/// Sets the modification time, seconds from now.
fn set_age(path: &Path, age: i64) {
    let time = Duration::from_nanos(wall_now().checked_add_signed(-age * 1_000_000_000).unwrap());
    let times = FileTimes::new().set_modified(std::time::UNIX_EPOCH + time);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_times(times)
        .unwrap();
}

#[test]
fn what_others_must_see_is_listed() {
    for (heartbeat, unsupported) in [
        ("{ file = \"/x\" }", 0),
        ("{ notify = true }", 1),
        ("{ connect = \"tcp:1\" }\nnetns = \"main\"", 1),
    ] {
        let heartbeats = Heartbeats::new(&config(heartbeat)).unwrap();
        assert_eq!(heartbeats.unsupported().len(), unsupported, "{heartbeat}");
        assert!(heartbeats.unsupported().iter().all(|u| u.service == "a"));
        assert_eq!(heartbeats.deadline(), None);
    }
}

#[test]
fn each_service_has_its_own_beat() {
    let dir = TempDir::new("heartbeats");
    let path = dir.path().display();
    let config: Config = toml::from_str(&format!(
        "[[service]]\nname = \"a\"\nheartbeat = {{ file = \"{path}/a\" }}\n\
         [[service]]\nname = \"b\"\nheartbeat = {{ file = \"{path}/b\" }}\n\
         [[service]]\nname = \"c\"\nheartbeat = {{ log = \"{path}/b\" }}\n"
    ))
    .unwrap();
    let mut heartbeats = Heartbeats::new(&config).unwrap();
    let mut beats = BTreeMap::new();
    let mut put = |what| {
        if let What::Heartbeat { service, beat } = what {
            beats.insert(service, beat);
        }
    };
    heartbeats.initial(clock::now(), &mut put);
    std::fs::write(dir.path().join("b"), "x").unwrap();
    heartbeats.drain(clock::now(), &mut put);
    let has: Vec<_> = beats.iter().map(|(s, b)| (s.as_str(), b.is_some())).collect();
    assert_eq!(has, [("a", false), ("b", true), ("c", true)]);
}
