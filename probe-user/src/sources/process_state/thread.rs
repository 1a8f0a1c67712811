//! The threads of a process: state, signal sets, and the system call that each is in.

use std::{
    fs::{self, File},
    io::{self, Read},
};

use super::syscall::{self, Call};
use crate::event::SignalMasks;

/// Most threads that are looked at.
const THREADS: usize = 1024;
/// Most bytes of one `status` file: one with a thousand supplementary groups has some 12 KiB.
const STATUS_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Thread {
    pub(super) tid: u32,
    /// `R`, `S`, `D`, `T` and so on.
    pub(super) state: u8,
    /// The system call before `status` was read, and after.
    pub(super) call_before: Call,
    pub(super) call: Call,
    sets: Sets,
}

/// The signal sets in `status`; `pending` is the thread's, `shared`, `ignored` and `caught` are the process's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pending: u64,
    shared: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Thread {
    /// # Errors
    /// When the thread has ended, or its files can't be read or understood.
    pub(super) fn read(pid: u32, tid: u32) -> io::Result<Self> {
        let call_before = syscall::current(pid, tid);
        let mut status = Vec::with_capacity(2048);
        File::open(format!("/proc/{pid}/task/{tid}/status"))?
            .take(STATUS_BYTES)
            .read_to_end(&mut status)?;
        let (state, sets) = parse(&status)
            .ok_or_else(|| io::Error::other(format!("status of thread {tid} has no signal sets")))?;
        Ok(Self {
            tid,
            state,
            call_before,
            call: syscall::current(pid, tid),
            sets,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

pub(super) fn parse(status: &[u8]) -> Option<(u8, Sets)> {
    let (mut state, mut sets, mut found) = (0, Sets::default(), 0);
    for line in status.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else {
            // `Name:` may hold any bytes.
            continue;
        };
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let set = match key {
            "State" => {
                state = *value.as_bytes().first()?;
                continue;
            }
            "SigPnd" => &mut sets.pending,
            "ShdPnd" => &mut sets.shared,
            "SigBlk" => &mut sets.blocked,
            "SigIgn" => &mut sets.ignored,
            "SigCgt" => &mut sets.caught,
            _ => continue,
        };
        *set = u64::from_str_radix(value, 16).ok()?;
        found += 1;
    }
    (state != 0 && found == 5).then_some((state, sets))
}

#[derive(Debug, Default)]
pub(super) struct Threads {
    /// The first thread first.
    pub(super) list: Vec<Thread>,
    /// Whether every thread was read.
    whole: bool,
}

impl Threads {
    pub(super) fn read(pid: u32) -> Self {
        let mut threads = Self::default();
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return threads;
        };
        threads.whole = true;
        for entry in entries {
            if threads.list.len() == THREADS {
                threads.whole = false;
                break;
            }
            let tid = entry
                .ok()
                .and_then(|e| e.file_name().to_str().and_then(|n| n.parse().ok()));
            let Some(tid) = tid else {
                threads.whole = false;
                continue;
            };
            match Thread::read(pid, tid) {
                Ok(thread) => threads.list.push(thread),
                // It has ended meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => threads.whole = false,
            }
        }
        threads
    }

    #[cfg(test)]
    pub(super) fn of(list: Vec<Thread>) -> Self {
        Self { list, whole: true }
    }

    pub(super) fn masks(&self) -> Option<SignalMasks> {
        let known = |t: &&Thread| t.call != Call::Unknown || !t.is_alive();
        if !self.whole || self.list.is_empty() || !self.list.iter().all(|t| known(&t)) {
            return None;
        }
        let mut masks = SignalMasks::default();
        for thread in &self.list {
            masks.caught |= thread.sets.caught;
            masks.ignored |= thread.sets.ignored;
            masks.pending |= thread.sets.pending | thread.sets.shared;
            // A first thread that has ended blocks nothing for anybody.
            if thread.is_alive() {
                masks.blocked |= thread.sets.blocked;
                masks.waiting |= thread.waits_for_signals();
            }
        }
        Some(masks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_whatever_the_name_is() {
        let text = b"Name:\t\xff\nState:\tS (sleeping)\nSigQ:\t0/1\nSigPnd:\t0000000000000001\nShdPnd:\t2\nSigBlk:\t4\n\
            SigIgn:\t8\nSigCgt:\t8000000000000000\n";
        let (state, sets) = parse(text).unwrap();
        assert_eq!(state, b'S');
        assert_eq!(
            sets,
            Sets {
                pending: 1,
                shared: 2,
                blocked: 4,
                ignored: 8,
                caught: 1 << 63
            }
        );
        for text in [&b""[..], b"State:\tS\n", b"State:\n", b"\xff", b"SigPnd:\tx\n"] {
            assert_eq!(parse(text), None);
        }
    }
}
