//! The daemon: start, main loop, stops.

use std::{fs, io, os::fd::AsFd, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::read,
};

use crate::clock::Deadline;

use super::{
    heartbeat::{self, Beat},
    lifecycle::{self, leave},
    options::{Daemonize, On, Reaction, Serve},
    peer::Peer,
    say,
    signals::{self, Caught},
    sockets::Sockets,
};

pub(super) struct Daemon {
    pub(super) sockets: Sockets,
    pub(super) pid_file: Option<PathBuf>,
    reactions: Vec<On>,
    pub(super) peer: Peer,
    beat: Option<Beat>,
    pub(super) muted: bool,
    caught: Caught,
    /// Bytes of a line that has not ended yet.
    partial: Vec<u8>,
}

pub(super) fn run(options: &Serve) -> Result<()> {
    let caught = signals::install(&options.on)?;
    if options.daemonize == Some(Daemonize::Early) {
        lifecycle::daemonize()?;
    }
    if let Some(dir) = &options.chroot {
        lifecycle::chroot(dir)?;
    }
    let sockets = open(options)?;
    if options.daemonize == Some(Daemonize::Late) {
        lifecycle::daemonize()?;
    }
    let mut daemon = Daemon {
        sockets,
        pid_file: options.pid_file.clone(),
        reactions: options.on.clone(),
        peer: Peer::default(),
        beat: options.beat.clone(),
        muted: false,
        caught,
        partial: Vec::new(),
    };
    daemon.write_pid_file()?;
    let mut ready = format!("ready pid={}", std::process::id());
    for address in daemon.sockets.addresses() {
        ready.push(' ');
        ready.push_str(address);
    }
    say(&ready);
    daemon.serve()
}

fn open(options: &Serve) -> Result<Sockets> {
    let mut sockets = Sockets::new(options.reuse_port);
    for item in &options.inherit {
        sockets.inherit(item)?;
    }
    for path in &options.unix {
        if options.take_over
            && let Err(e) = fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(e).with_context(|| format!("unlink {}", path.display()));
        }
        sockets.listen(&format!("unix:{}", path.display()))?;
    }
    for address in &options.tcp {
        sockets.listen(&format!("tcp:{address}"))?;
    }
    for address in &options.udp {
        sockets.listen(&format!("udp:{address}"))?;
    }
    Ok(sockets)
}

impl Daemon {
    fn serve(&mut self) -> Result<()> {
        let stdin = io::stdin();
        let mut end: Option<Deadline> = None;
        loop {
            if end.is_some_and(|e| e.left().is_none()) {
                leave(0)
            }
            let beat = self.beat.as_ref().filter(|_| !self.muted);
            if let Some(beat) = beat {
                beat.beat()?;
            }
            let waits = beat.map(|_| heartbeat::EVERY);
            let waits = waits.into_iter().chain(end.and_then(Deadline::left)).min();
            let timeout = match waits {
                // Rounded up, so that it has passed when poll returns.
                Some(d) => PollTimeout::try_from(d + Duration::from_millis(1))?,
                None => PollTimeout::NONE,
            };
            let mut fds = [
                PollFd::new(self.caught.pipe.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.caught.signal_fd.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(0) => continue,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ready = |n: usize| fds[n].any().unwrap_or(false);
            let (signalled, input) = (ready(0) || ready(1), ready(2));
            if signalled {
                for signal in self.caught.drain() {
                    if let Some(secs) = self.react(signal)? {
                        end = Some(Deadline::after(Duration::from_secs(secs.into())));
                    }
                }
            }
            if input {
                self.read_lines(&stdin)?;
            }
        }
    }

    /// Does what was declared for a caught signal. `Some`: end in so many seconds.
    fn react(&mut self, signal: Signal) -> Result<Option<u16>> {
        say(&format!("signal {}", signal.as_str().trim_start_matches("SIG")));
        let Some(on) = self.reactions.iter().find(|on| on.signal == signal) else {
            return Ok(None);
        };
        match on.reaction {
            Reaction::Exit(code) => leave(code),
            Reaction::Clean => self.stop_cleanly(),
            Reaction::Unlink => {
                self.sockets.unlink_all();
                leave(0)
            }
            Reaction::Slow(secs) => Ok(Some(secs)),
            Reaction::Reraise => signals::die_of(signal).map(|()| None),
            Reaction::Catch | Reaction::Ignore | Reaction::Block | Reaction::SignalFd => Ok(None),
        }
    }

    fn read_lines(&mut self, stdin: &io::Stdin) -> Result<()> {
        let mut bytes = [0; 4096];
        match read(stdin, &mut bytes)? {
            0 => leave(0),
            n => self.partial.extend_from_slice(&bytes[..n]),
        }
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.obey(String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    }

    pub(super) fn write_pid_file(&self) -> Result<()> {
        match &self.pid_file {
            Some(path) => lifecycle::write_pid_file(path, &std::process::id().to_string()),
            None => Ok(()),
        }
    }

    /// What a well-behaved daemon does at its end.
    pub(super) fn stop_cleanly(&mut self) -> ! {
        self.sockets.unlink_all();
        self.sockets.close_all();
        if let Some(path) = &self.pid_file {
            let _ = fs::remove_file(path);
        }
        leave(0)
    }
}
