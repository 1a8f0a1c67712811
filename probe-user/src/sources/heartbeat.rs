//! Signs of life: a file that is touched, a line in a log file or in the journal, an answer at an address.
//!
//! Files and logs are watched by inotify and never polled; an address is asked only for a service that declares it so.
//! Everything waits on one epoll descriptor, and nothing here blocks: files are opened only once they are known to be
//! regular, and sockets are non-blocking with a time limit each. A file on a network file system whose server is gone
//! is the exception that the kernel makes.

mod connect;
mod file;
mod journal;
mod log;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::{connect::Check, journal::Journal, log::Log, watch::FileWatch};
use crate::{
    clock::Nanos,
    config::{Config, Heartbeat, Netns, Service},
    event::What,
};

/// The token of the inotify descriptor; a check's is its index.
const FILES: u64 = u64::MAX;
/// Most readiness events taken in one drain; the rest stays ready.
const READY: usize = 64;

/// Reads a line as journalctl prints entries, for fuzzing. Whether it is a beat, and when.
pub(crate) fn read_journal_entry(line: &[u8], text: &str, now: Nanos) -> Option<Nanos> {
    journal::parse(line, text, now)
}

/// A declared heartbeat that this source can't see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    pub service: String,
    /// Which one, and who could: for `cannot_see`.
    pub what: &'static str,
}

/// All declared heartbeats but those that only systemd sees.
pub struct Heartbeats {
    epoll: Epoll,
    watch: FileWatch,
    sources: Vec<Source>,
    unsupported: Vec<Unsupported>,
    /// Where the journal lies, if not where systemd puts it.
    journal: Option<PathBuf>,
}

struct Source {
    service: String,
    /// The newest beat seen.
    beat: Option<Nanos>,
    /// Whether `beat` was told.
    told: bool,
    way: Way,
    /// Why beats may be missed.
    blind: Option<String>,
}

enum Way {
    File { target: usize },
    Log { target: usize, log: Log },
    Connect(Check),
    Journal(Journal),
}

impl Heartbeats {
    /// Declares what to watch, and begins to watch it. Files that do not exist yet are waited for.
    ///
    /// # Errors
    /// When the kernel gives no inotify or epoll descriptor.
    pub fn new(config: &Config) -> io::Result<Self> {
        Self::with_journal(config, None)
    }

    fn with_journal(config: &Config, journal: Option<PathBuf>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watch = FileWatch::new()?;
        epoll.add(&watch, EpollEvent::new(EpollFlags::EPOLLIN, FILES))?;
        let mut heartbeats = Self {
            epoll,
            watch,
            sources: Vec::new(),
            unsupported: Vec::new(),
            journal,
        };
        for service in &config.services {
            if let Some(heartbeat) = &service.heartbeat {
                heartbeats.add(service, heartbeat);
            }
        }
        Ok(heartbeats)
    }

    fn add(&mut self, service: &Service, heartbeat: &Heartbeat) {
        let way = if let Some(path) = &heartbeat.file {
            Ok(Way::File {
                target: self.watch.add(PathBuf::from(path)),
            })
        } else if let Some(path) = &heartbeat.log {
            Ok(Way::Log {
                target: self.watch.add(PathBuf::from(path)),
                log: Log::new(heartbeat.contains.as_deref().unwrap_or_default()),
            })
        } else if heartbeat.connect.is_some() && service.netns != Netns::Host {
            Err("heartbeats by `connect` in other network namespaces")
        } else if let Some(address) = &heartbeat.connect {
            Ok(Way::Connect(Check::new(address.clone(), heartbeat)))
        } else if heartbeat.notify == Some(true) {
            Err("heartbeats by `notify`, without systemd's D-Bus")
        } else if let Some(text) = &heartbeat.journal {
            Ok(Way::Journal(Journal::new(service, text, self.journal.as_deref())))
        } else {
            return;
        };
        match way {
            Ok(way) => self.sources.push(Source {
                service: service.name.clone(),
                beat: None,
                told: false,
                way,
                blind: None,
            }),
            Err(what) => self.unsupported.push(Unsupported {
                service: service.name.clone(),
                what,
            }),
        }
    }

    /// The declared heartbeats that nothing here sees.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// Why beats of a service may be missed, a line each: a path that can't be watched or read. Belongs into `blind`;
    /// empty again once a look succeeds.
    pub fn blind(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|s| s.blind.as_deref())
    }

    /// Why the last active check of each service that declares one failed: service, reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().filter_map(|s| match &s.way {
            Way::Connect(check) => Some((s.service.as_str(), check.failure()?)),
            _ => None,
        })
    }

    /// When [`Self::drain`] must be called though nothing is ready: an active check is due or out of time, or a log has
    /// more to read. `None`: never.
    pub fn deadline(&self) -> Option<Nanos> {
        self.sources
            .iter()
            .filter_map(|s| match &s.way {
                Way::Connect(check) => Some(check.deadline()),
                Way::Journal(journal) => journal.deadline(),
                Way::Log { log, .. } => log.has_more().then_some(Nanos::ZERO),
                Way::File { .. } => None,
            })
            .min()
    }

    /// Looks at everything anew, and tells the level of each service. For the start, after a loss, and as the slow net
    /// (`settle_every`): it also finds what inotify never tells, such as a file system mounted over a directory.
    pub fn initial(&mut self, now: Nanos, f: impl FnMut(What)) {
        for at in 0..self.sources.len() {
            self.settle(at, now);
            self.sources[at].told = false;
        }
        self.tell(f);
    }

    /// Takes what is ready and due, and tells each service whose newest beat is newer than told before. Never blocks;
    /// does a bounded amount of work, and stays ready or due where more is left.
    pub fn drain(&mut self, now: Nanos, f: impl FnMut(What)) {
        let mut ready = [EpollEvent::empty(); READY];
        let ready = match self.epoll.wait(&mut ready, EpollTimeout::ZERO) {
            Ok(n) => &ready[..n],
            // Interrupted: it stays ready.
            Err(_) => &[],
        };
        for event in ready {
            if event.data() == FILES {
                self.drain_files(now);
            } else if let Ok(at) = usize::try_from(event.data()) {
                self.check(at, now);
            }
        }
        for at in 0..self.sources.len() {
            match &self.sources[at].way {
                Way::Connect(check) if check.deadline() <= now => self.check(at, now),
                Way::Journal(journal) if journal.deadline().is_some_and(|due| due <= now) => {
                    self.check(at, now)
                }
                Way::Log { log, .. } if log.has_more() => self.read(at, now),
                _ => {}
            }
        }
        self.tell(f);
    }

    fn drain_files(&mut self, now: Nanos) {
        let changes = self.watch.drain();
        for at in 0..self.sources.len() {
            let (Way::File { target } | Way::Log { target, .. }) = self.sources[at].way else {
                continue;
            };
            if changes.overflow || changes.names.contains(&target) {
                self.settle(at, now);
            } else if changes.contents.contains(&target) {
                self.read(at, now);
            }
        }
    }

    /// Finds out where the path leads now, watches it, and reads it.
    fn settle(&mut self, at: usize, now: Nanos) {
        let source = &mut self.sources[at];
        let (target, keep) = match &source.way {
            Way::File { target } => (*target, Vec::new()),
            Way::Log { target, log } => (*target, log.files()),
            Way::Connect(_) | Way::Journal(_) => return,
        };
        let found = self.watch.find(target, &keep);
        source.blind = found.error;
        let read = match (&mut source.way, &found.file) {
            (Way::File { .. }, Some(file)) => file::beat(file, now),
            (Way::Log { log, .. }, file) => log.found(file.as_ref(), now),
            _ => Ok(None),
        };
        self.learn(at, read);
    }

    /// Reads what a path is known to lead to.
    fn read(&mut self, at: usize, now: Nanos) {
        match &mut self.sources[at].way {
            Way::Log { log, .. } => {
                let read = log.read(now);
                self.learn(at, read);
            }
            // A file is small: looking it up is as cheap as keeping it open, and never holds it.
            _ => self.settle(at, now),
        }
    }

    fn learn(&mut self, at: usize, read: io::Result<Option<Nanos>>) {
        let source = &mut self.sources[at];
        match read {
            Ok(beat) => source.learn(beat),
            Err(e) => {
                let path = match &source.way {
                    Way::File { target } | Way::Log { target, .. } => self.watch.path(*target).display(),
                    Way::Connect(_) | Way::Journal(_) => return,
                };
                source.blind = Some(format!(
                    "cannot read {path}, the heartbeat of {}: {e}",
                    source.service
                ));
            }
        }
    }

    fn check(&mut self, at: usize, now: Nanos) {
        let Some(source) = self.sources.get_mut(at) else {
            return;
        };
        let beat = match &mut source.way {
            Way::Connect(check) => check.step(now, &self.epoll, at as u64),
            Way::Journal(journal) => {
                let beat = journal.step(now, &self.epoll, at as u64);
                source.blind = journal
                    .failure()
                    .map(|why| format!("the heartbeat of {}: {why}", source.service));
                beat
            }
            _ => return,
        };
        source.learn(beat);
    }

    fn tell(&mut self, mut f: impl FnMut(What)) {
        for source in self.sources.iter_mut().filter(|s| !s.told) {
            source.told = true;
            f(What::Heartbeat {
                service: source.service.clone(),
                beat: source.beat,
            });
        }
    }
}

impl Source {
    fn learn(&mut self, beat: Option<Nanos>) {
        // `None` is less than any beat.
        if beat > self.beat {
            self.beat = beat;
            self.told = false;
        }
    }
}

/// Readable when something is ready. Check [`Heartbeats::deadline`] too.
impl AsFd for Heartbeats {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
