//! What the kernel and the file system tell, in the order in which the engine must hear it.

use std::{
    cell::LazyCell,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{BATCH, Runtime, Sink, declared_exes, observed};
use crate::{
    address::Site,
    clock::{self, Nanos},
    event::{Actor, Event, PathChange, Process, TimeSource, What},
    kernel::Kernel,
    sources::{
        close_watch::Closed,
        declared_paths::{Declared, PidFile},
        directory_watch::DirectoryEvent,
        file_watch::FileEvent,
        path, process,
        root::Rooted,
    },
};

/// Events that may wait for the engine. In a storm that does not end, a level is told although more records wait.
pub(super) const QUEUE_LIMIT: usize = 64 * BATCH;
/// How long after the last record the kernel's counters of losses are read. Reading them costs more than a record.
const COUNT_LOSSES_AFTER: Duration = Duration::from_millis(100);

impl Runtime {
    /// Queues what the kernel and the file system have told, and gives the number of the kernel's records.
    pub(super) fn take_edges(&mut self) -> usize {
        let mut records = std::mem::take(&mut self.records);
        let mut taken = self.take_records(&mut records);
        // Notifications carry no time, and are read after the ring buffer: what came meanwhile is told with them.
        let mut noticed = self.apart(Self::take_notifications);
        let closed = self.apart(Self::take_closes);
        if taken < BATCH && !(noticed.is_empty() && closed.is_empty()) {
            taken += self.take_records(&mut records);
        }
        // They are told before the first exit among the kernel's records, because that a daemon removed its PID file before
        // it exited must be known then, and after what came before that exit.
        let exit = records.iter().position(|e| matches!(e.what, What::Exit { .. }));
        // What an end means can hang on what was lost before it.
        if exit.is_some() {
            for (source, count) in self.kernel.lost_records() {
                self.queue.push_back(observed(What::Lost { source, count }));
            }
        }
        for (i, mut event) in records.drain(..).enumerate() {
            if Some(i) == exit {
                self.queue.append(&mut noticed);
            }
            complete(&mut event);
            self.queue.push_back(event);
        }
        self.queue.append(&mut noticed);
        // The exit of a socket's owner says more.
        self.queue.extend(closed);
        self.records = records;
        if taken > 0 && self.count_losses_at.is_none() {
            self.count_losses_at = Some(clock::now() + COUNT_LOSSES_AFTER);
        }
        taken.min(BATCH)
    }

    /// What this queues, and not yet into the queue.
    fn apart(&mut self, take: impl FnOnce(&mut Self)) -> VecDeque<Event> {
        let queue = std::mem::take(&mut self.queue);
        take(self);
        std::mem::replace(&mut self.queue, queue)
    }

    /// Queues all that the sources hold, as far as the queue goes.
    pub(super) fn take_all_edges(&mut self) {
        while self.take_edges() == BATCH && self.queue.len() < QUEUE_LIMIT {}
    }

    /// At most [`BATCH`] of the kernel's records; gives how many there were.
    fn take_records(&mut self, records: &mut Vec<Event>) -> usize {
        let names = &mut self.names;
        let (taken, bytes) = self.ring.drain(BATCH, |mut event, file| {
            if names.resolve(&mut event.what, file) {
                records.push(event);
            }
        });
        self.ring_bytes += bytes;
        if taken > 0 {
            self.timings.ring(self.ring_bytes, self.ring.size());
        }
        if taken < BATCH {
            self.ring_bytes = 0;
        }
        taken
    }

    /// Queues a level behind every edge that happened before it was read: a level knows of children and exits that the
    /// ring buffer still holds.
    pub(super) fn tell_level(&mut self, at: Nanos, what: What) {
        self.take_all_edges();
        self.queue.push_back(Event {
            at,
            time_source: TimeSource::Observed,
            what,
        });
    }

    pub(super) fn count_losses(&mut self, sink: &mut Sink<'_>) {
        self.count_losses_at = None;
        for (source, count) in self.kernel.lost() {
            self.queue.push_back(observed(What::Lost { source, count }));
        }
        self.run(sink);
    }

    pub(super) fn take_notifications(&mut self) {
        let (queue, kernel, paths) = (&mut self.queue, &self.kernel, &self.paths);
        let mut appeared = Vec::new();
        let mut exes_changed = false;
        // Only where a name has changed: this is called for every event, and there may be ten thousand services.
        let config = &self.config;
        let exes = LazyCell::new(|| declared_exes(config).collect::<BTreeSet<Rooted>>());
        let is_exe = |path: &Rooted| exes.contains(path);
        self.directories.drain(|event| match event {
            DirectoryEvent::Name { path, change, pid } => {
                exes_changed |= is_exe(&path);
                let actor = match pid {
                    Some(pid) => who(kernel, pid),
                    None => changer(kernel, &path, change),
                };
                for declared in paths.at(&path) {
                    let actor = actor.clone();
                    queue.push_back(observed(match declared.clone() {
                        Declared::Socket(Site { address, of }) => What::Path {
                            address,
                            of,
                            change,
                            actor,
                        },
                        Declared::PidFile(PidFile { path, of }) => What::PidFilePath {
                            path,
                            of,
                            change,
                            actor,
                        },
                    }));
                }
            }
            DirectoryEvent::Appeared { path } => appeared.push(path),
            DirectoryEvent::Overflow => {
                queue.push_back(observed(What::Lost {
                    source: "directory notifications".into(),
                    count: 1,
                }));
            }
        });
        exes_changed |= appeared.iter().any(is_exe);
        if !appeared.is_empty() {
            self.follow_changers();
        }
        for path in appeared {
            for declared in self.paths.at(&path).cloned().collect::<Vec<_>>() {
                self.look_again(declared);
            }
        }
        if exes_changed {
            self.look_at_executables();
        }
        let mut lost = 0;
        let mut written = Vec::new();
        self.files.drain(|event| match event {
            FileEvent::Written(path) => written.push(path),
            FileEvent::Overflow => lost += 1,
        });
        for path in written {
            let pid_files = self.paths.at(&path).filter_map(|declared| match declared {
                Declared::PidFile(file) => Some(file.clone()),
                Declared::Socket(_) => None,
            });
            self.read_pid_files.extend(pid_files);
        }
        if lost > 0 {
            self.queue.push_back(observed(What::Lost {
                source: "file notifications".into(),
                count: lost,
            }));
        }
        let queue = &mut self.queue;
        self.heartbeats
            .drain(clock::now(), |what| queue.push_back(observed(what)));
    }

    fn take_closes(&mut self) {
        let queue = &mut self.queue;
        self.closes.drain(|closed| {
            queue.push_back(observed(match closed {
                Closed::Socket(inode) => What::SocketClosed { inode },
                Closed::Overflow => What::Lost {
                    source: "close notifications".into(),
                    count: 1,
                },
            }));
        });
    }
}

/// Who did that to a path whose directory tells only that it happened.
fn changer(kernel: &Kernel, path: &Rooted, change: PathChange) -> Option<Actor> {
    let parent = path.parent();
    let directory = path::file_id_at(&parent.root, &parent.path).ok()?;
    let by = kernel.changer(directory, path.path.file_name()?, change)?;
    // The pid may be another process's by now.
    match who(kernel, by.id.pid) {
        Some(known) if known.id == by.id => Some(known),
        _ => Some(Arc::new(by)),
    }
}

/// Who a pid is or was: the living from `/proc`, the dead from the kernel's memory of them.
fn who(kernel: &Kernel, pid: u32) -> Option<Actor> {
    let live = process::read(pid).ok().flatten();
    match live {
        Some(p) if p.exe.is_some() => Some(p),
        live => kernel.past(pid).map(|p| p.process).or(live),
    }
    .map(Arc::new)
}

/// Adds what the kernel's record leaves out and `/proc` still tells.
fn complete(event: &mut Event) {
    match &mut event.what {
        What::Exec { process }
        | What::Fork { child: process }
        | What::Bind { process, .. }
        | What::Listen { process, .. } => {
            complete_process(process);
        }
        What::Signal(sent) => {
            if let Some(actor) = &mut sent.actor
                && actor.exe.is_none()
            {
                complete_process(Arc::make_mut(actor));
            }
        }
        _ => {}
    }
}

/// A pid can be another process by now: then what `/proc` told is not about this one.
fn complete_process(p: &mut Process) {
    let before = p.clone();
    process::complete(p);
    if process::identity(p.id.pid) != Some(p.id) {
        *p = before;
    }
}
