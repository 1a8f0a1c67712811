//! Looks at what the engine wants to know: addresses, PID files, executables, everything.

use std::collections::BTreeSet;

use super::{Runtime, exe_ids, observed, wanted};
use crate::{
    address::{Address, Site},
    clock,
    event::{AddressState, ProcId, Process, SnapshotReason, What},
    sources::{
        close_watch::CloseWatchError,
        declared_paths::{Declared, PidFile},
        directory_watch::Mode,
        pid_file, process,
    },
};

impl Runtime {
    /// Main processes that began or ended may have other roots and network namespaces than those before them.
    pub(super) fn follow_mains(&mut self) {
        // Before the first snapshot nobody has joined anything.
        if self.resync == Some(SnapshotReason::Start) {
            return;
        }
        let changed = self.views.follow(self.engine.mains());
        for i in changed {
            self.watch_paths(i);
            self.settle.extend(self.views.sites(i));
            for declared in self.paths.of_service(i).to_vec() {
                self.look_again(declared);
            }
        }
    }

    /// The service's main process may have changed its root directory since its paths were looked at.
    pub(super) fn refresh(&mut self, service: Option<usize>) {
        if let Some(i) = service
            && self.views.refresh(i)
        {
            self.watch_paths(i);
        }
    }

    /// Watches the paths of a service where they are now.
    pub(super) fn watch_paths(&mut self, i: usize) {
        let moved = self.paths.update(i, self.views.service(i));
        if moved.gone.is_empty() && moved.new.is_empty() {
            return;
        }
        for place in &moved.gone {
            self.files.forget(place);
        }
        self.directories.remove_all(moved.gone);
        self.directories.add_all(moved.new);
        self.follow_changers();
        self.log_unwatched();
    }

    fn log_unwatched(&mut self) {
        let now = self.unwatched();
        for (what, why) in &now {
            if self.unwatched_logged.get(what) != Some(why) {
                tracing::warn!("{what} will be noticed late: {why}");
            }
        }
        for what in self
            .unwatched_logged
            .keys()
            .filter(|what| !now.contains_key(*what))
        {
            tracing::info!("{what} will be noticed at once again");
        }
        self.unwatched_logged = now;
    }

    /// Watches again what could not be watched.
    fn watch_again(&mut self) {
        self.directories.retry();
        let pid_files: Vec<PidFile> = self.paths.pid_files().map(|(file, _)| file.clone()).collect();
        for file in &pid_files {
            self.watch_pid_file(file);
        }
    }

    /// Where a directory refuses fanotify, trampolines tell who changed a path in it.
    pub(super) fn follow_changers(&mut self) {
        let mut paths = self.paths.all();
        // Almost everywhere no directory refuses it, and there may be ten thousand paths.
        let needed = self.directories.mode() != Mode::Fanotify
            && paths.any(|path| self.directories.is_without_actor(path));
        drop(paths);
        self.kernel.follow_changers(needed);
    }

    pub(super) fn look_again(&mut self, declared: Declared) {
        match declared {
            Declared::Socket(site) => {
                self.settle.insert(site);
            }
            Declared::PidFile(file) => {
                self.read_pid_files.insert(file);
            }
        }
    }

    pub(super) fn watch_pid_file(&mut self, file: &PidFile) {
        let Some(owner) = self.paths.owner(file) else {
            return;
        };
        for place in self.views.service(owner).places(file.path.as_ref()) {
            let what = format!("what is written to {place}");
            match self.files.watch(&place) {
                Ok(()) => _ = self.unwatched.remove(&what),
                Err(e) => _ = self.unwatched.insert(what, e.to_string()),
            }
        }
    }

    pub(super) fn read_pid_file(&mut self, file: &PidFile) {
        let Some(owner) = self.paths.owner(file) else {
            return;
        };
        self.refresh(Some(owner));
        // Watched first: what is written after this reading is told.
        self.watch_pid_file(file);
        let at = clock::now();
        let view = self.views.service(owner);
        let state = pid_file::read(file.path.as_ref(), file.of.as_deref(), view);
        self.tell_level(at, What::PidFile(state));
    }

    pub(super) fn look_at(&mut self, site: &Site) {
        self.refresh(self.views.owner(site));
        let at = clock::now();
        let state = self.observer.site(site, &self.views.of(site));
        self.follow_sockets(&state);
        self.tell_level(at, What::Address(state));
    }

    /// An upgrade puts another file under the path of an executable: the kernel must report what runs that one.
    pub(super) fn look_at_executables(&mut self) {
        let now = exe_ids(&self.config);
        if now == self.exes {
            return;
        }
        if let Err(e) = self.kernel.want(&wanted(&self.config, &now)) {
            tracing::warn!("a replaced executable cannot be followed: {e}");
        }
        let paths: BTreeSet<String> = now.keys().chain(self.exes.keys()).cloned().collect();
        for path in paths {
            let id = now.get(&path).copied();
            if self.exes.get(&path).copied() != id {
                self.queue.push_back(observed(What::Executable { path, id }));
            }
        }
        self.exes = now;
    }

    pub(super) fn look_at_all(&mut self, reason: SnapshotReason) {
        self.kernel.renew_pins();
        self.watch_again();
        // A link to an executable may lead elsewhere without a change of the name itself.
        self.look_at_executables();
        let queue = &mut self.queue;
        self.heartbeats
            .initial(clock::now(), |what| queue.push_back(observed(what)));
        for i in 0..self.config.services.len() {
            self.refresh(Some(i));
        }
        let mut snapshot = self.observer.snapshot(&self.config, &self.views, reason);
        // Members stay members for as long as they live, whether or not a declaration still selects them.
        let listed: BTreeSet<ProcId> = snapshot.processes.iter().map(|p| p.id).collect();
        let others: Vec<Process> = self
            .engine
            .members()
            .filter(|id| !listed.contains(id))
            .filter_map(|id| process::read(id.pid).ok().flatten().filter(|p| p.id == id))
            .collect();
        snapshot.processes.extend(others);
        for state in &snapshot.addresses {
            self.follow_sockets(state);
        }
        self.log_unwatched();
        let at = snapshot.began;
        self.timings.snapshot(clock::now().since(at));
        self.tell_level(at, What::Snapshot(snapshot));
    }

    /// Watches for the last close of every live socket of a declared address.
    pub(super) fn follow_sockets(&mut self, state: &AddressState) {
        let what = format!("the close of a socket of {}", state.address);
        self.unwatched.remove(&what);
        for socket in &state.sockets {
            self.names.note(socket.inode, &state.address);
            match &state.address {
                // The kernel reports its end by the port.
                Address::Udp(_) => {}
                // That of a TCP listener too, but not where the kernel chose the port.
                Address::Tcp(_) | Address::Unix(_) | Address::Abstract(_) => {
                    let mut watched = socket.holders.is_empty();
                    for h in &socket.holders {
                        match self.closes.watch(socket.inode, h.process.pid, h.fd) {
                            Ok(()) => {
                                watched = true;
                                break;
                            }
                            // The descriptor is gone or another one by now; another holder's may serve, and if none
                            // does, the holders have changed: look again.
                            Err(CloseWatchError::AlreadyClosed { .. }) => {}
                            Err(e) => {
                                self.unwatched.insert(what.clone(), e.to_string());
                                watched = true;
                                break;
                            }
                        }
                    }
                    if !watched && self.follow_rounds > 0 {
                        self.follow_rounds -= 1;
                        self.settle.insert(state.site());
                    }
                }
            }
        }
    }
}
