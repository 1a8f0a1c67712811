//! A journal entry as a sign of life. `journalctl` follows the journal, because its files are systemd's to read; it says
//! nothing when nothing is written, so nobody wakes up.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::epoll::{EpollEvent, EpollFlags},
};
use serde::Deserialize;

use super::Epoll;
use crate::{
    clock::{self, Nanos},
    config::Service,
    spawner,
};

/// Where Debian and others have it. No search path is asked: this runs as root.
const PROGRAMS: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
/// Entries of before that are looked at when it begins.
const SEED_ENTRIES: &str = "--lines=200";
/// Most bytes taken in one step; the rest stays ready.
const READ_BYTES: usize = 1024 * 1024;
/// A longer entry is passed over.
const ENTRY_BYTES: usize = 256 * 1024;
/// The pause before it is started again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A clock that was set may put an entry a little ahead of now.
const AHEAD: Duration = Duration::from_secs(1);

pub(super) struct Journal {
    text: String,
    arguments: Vec<String>,
    child: Option<Follow>,
    start_at: Nanos,
    pause: Duration,
    failure: Option<String>,
}

struct Follow {
    out: Output,
    entry: Vec<u8>,
    /// The entry is too long, and its rest is passed over.
    skip: bool,
}

/// Where `journalctl` writes. Dropped, it is ended.
enum Output {
    Own(Child, ChildStdout),
    /// It is the spawner's child, which ends it once this is closed.
    Spawner(UnixStream),
}

/// Of an entry; `MESSAGE` is an array of numbers where it is no UTF-8.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    microseconds: String,
    #[serde(rename = "MESSAGE")]
    message: Option<serde_json::Value>,
}

impl Journal {
    /// Entries of the service's unit, else of its executable, else all.
    pub(super) fn new(service: &Service, text: &str, directory: Option<&Path>) -> Self {
        let fixed = [
            "--follow",
            SEED_ENTRIES,
            "--output=json",
            "--output-fields=MESSAGE",
            "--no-pager",
            "--quiet",
        ];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
        arguments.extend(directory.map(|d| format!("--directory={}", d.display())));
        arguments.extend(match (&service.unit, &service.user, &service.exe) {
            (Some(unit), None, _) => Some(format!("_SYSTEMD_UNIT={unit}")),
            (Some(unit), Some(_), _) => Some(format!("_SYSTEMD_USER_UNIT={unit}")),
            (None, _, Some(exe)) => Some(format!("_EXE={exe}")),
            (None, _, None) => None,
        });
        Self {
            text: text.to_owned(),
            arguments,
            child: None,
            start_at: Nanos::ZERO,
            pause: FIRST_PAUSE,
            failure: None,
        }
    }

    /// Why nothing is read now.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// When it must be started (again). `None`: it runs.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.child.is_none().then_some(self.start_at)
    }

    /// Starts it where it is due, and takes what it has said. The newest beat.
    pub(super) fn step(&mut self, now: Nanos, epoll: &Epoll, token: u64) -> Option<Nanos> {
        if self.child.is_none() {
            if now < self.start_at {
                return None;
            }
            match start(&self.arguments, epoll, token) {
                Ok(child) => self.child = Some(child),
                Err(e) => self.fail(now, format!("journalctl can't be run: {e}")),
            }
        }
        let follow = self.child.as_mut()?;
        let (beat, ended) = follow.read(&self.text, now);
        if beat.is_some() {
            self.pause = FIRST_PAUSE;
            self.failure = None;
        }
        if let Some(why) = ended {
            // Dropped, it is killed and reaped.
            self.child = None;
            self.fail(now, why);
        }
        beat
    }

    fn fail(&mut self, now: Nanos, why: String) {
        self.failure = Some(why);
        self.start_at = now + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

fn start(arguments: &[String], epoll: &Epoll, token: u64) -> io::Result<Follow> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|p| p.exists());
    let program =
        program.ok_or_else(|| io::Error::other(format!("none of {} exists", PROGRAMS.join(", "))))?;
    let out = if spawner::is_there() {
        let program = program.to_string_lossy().into_owned();
        Output::Spawner(spawner::follow([&[program], arguments].concat())?)
    } else {
        start_here(&program, arguments)?
    };
    let follow = Follow {
        out,
        entry: Vec::new(),
        skip: false,
    };
    epoll.add(follow.out.fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
    Ok(follow)
}

fn start_here(program: &Path, arguments: &[String]) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(out) = child.stdout.take() else {
        return Err(io::Error::other("it has no output"));
    };
    fcntl(out.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Output::Own(child, out))
}

impl Output {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(_, out) => out.as_fd(),
            Self::Spawner(out) => out.as_fd(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Own(_, out) => out.read(buffer),
            Self::Spawner(out) => out.read(buffer),
        }
    }
}

impl Follow {
    /// The newest beat among what can be read without waiting; and why nothing more will come.
    fn read(&mut self, text: &str, now: Nanos) -> (Option<Nanos>, Option<String>) {
        let mut beat = None;
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        while taken < READ_BYTES {
            let bytes = match self.out.read(&mut buffer) {
                Ok(0) => return (beat, Some("journalctl has ended".to_owned())),
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return (beat, Some(format!("journalctl can't be read: {e}"))),
            };
            taken += bytes.len();
            for piece in bytes.split_inclusive(|b| *b == b'\n') {
                if !self.skip {
                    self.entry.extend_from_slice(piece);
                }
                self.skip |= self.entry.len() > ENTRY_BYTES;
                if piece.ends_with(b"\n") {
                    if !std::mem::take(&mut self.skip) {
                        beat = beat.max(parse(&self.entry, text, now));
                    }
                    self.entry.clear();
                }
            }
        }
        (beat, None)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::Own(child, _) = self {
            // Not yet reaped, so the number is still its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// When the entry was written, if it contains the text.
pub(super) fn parse(line: &[u8], text: &str, now: Nanos) -> Option<Nanos> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let says = match entry.message? {
        serde_json::Value::String(message) => message.contains(text),
        serde_json::Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes
                .iter()
                .filter_map(|b| u8::try_from(b.as_u64()?).ok())
                .collect();
            String::from_utf8_lossy(&bytes).contains(text)
        }
        _ => false,
    };
    let wall = entry.microseconds.parse::<i64>().ok()?.checked_mul(1000)?;
    let at = clock::since_boot(wall);
    (says && at <= now + AHEAD).then_some(at.min(now))
}
