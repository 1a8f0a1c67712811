//! What a service means by its addresses and paths: its network namespace, and its main process's root directory.

use std::{collections::BTreeMap, path::Path};

use super::{
    namespace::{self, NetNamespace},
    path::{self, Stamp},
    pid_file, pid_namespace,
    root::{Root, Rooted},
};
use crate::{
    address::Site,
    config::{Config, Netns, Service},
    engine::selectors::Selectors,
    event::{PathState, ProcId, Process},
};

/// Of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    pub netns: Netns,
    /// The main process, once there is one.
    pub process: Option<ProcId>,
    /// Its root directory; that of the last one while there is none, where that is still a directory of the host.
    pub root: Root,
    /// Its pids are not the host's; those of the last main process were not, while there is none.
    pub foreign_pids: bool,
}

impl View {
    /// Looks at the main process's root directory again: chroot(2) and unshare(2) tell nobody. `true`: it is another.
    pub fn refresh(&mut self) -> bool {
        let root = match (self.process.map(Root::of), &self.root) {
            (Some(Ok(root)), _) => root,
            (_, Root::Directory(_)) => return false,
            _ => Root::Host,
        };
        let changed = self.root != root;
        self.root = root;
        changed
    }

    /// Where `path` is to be looked for, in this order. A daemon that changed its root after it had bound a path of the
    /// host's still means that one.
    pub fn places(&self, path: &Path) -> Vec<Rooted> {
        let place = Rooted::new(&self.root, path);
        match &place.root {
            Root::Directory(_) => vec![place, Rooted::host(path)],
            Root::Host | Root::Process(_) => vec![place],
        }
    }

    /// The first of [`Self::places`] where something is, or else the first one, and how it is there.
    pub fn find(&self, path: &Path) -> (Rooted, Stamp) {
        let mut found: Vec<(Rooted, Stamp)> = Vec::new();
        for place in self.places(path) {
            let stamp = path::stamp_at(&place);
            let is_there = stamp.state != PathState::Absent;
            found.push((place, stamp));
            if is_there {
                return found.swap_remove(found.len() - 1);
            }
        }
        found.swap_remove(0)
    }

    /// The network namespace that the service's ports and abstract names are in. `None`: that of a main process that
    /// there is not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn net_namespace(&self) -> Result<Option<NetNamespace>, String> {
        match (&self.netns, self.process) {
            (Netns::Host, _) => Ok(Some(NetNamespace::Own)),
            (Netns::Path(path), _) => namespace::of_path(path.as_ref())
                .map(Some)
                .map_err(|e| format!("network namespace {path}: {e}")),
            (Netns::Main, None) => Ok(None),
            (Netns::Main, Some(id)) => Ok(namespace::of_process(id).ok()),
        }
    }
}

/// Of every service.
#[derive(Debug, Default)]
pub struct Views {
    /// In the order of the configuration.
    views: Vec<View>,
    /// Sites and PID files that are meant differently by each service, and those of one service, by who declares them.
    owners: BTreeMap<Site, usize>,
    sites: Vec<Vec<Site>>,
}

impl Views {
    pub fn new(config: &Config) -> Self {
        let views = config
            .services
            .iter()
            .map(|s| View {
                netns: s.netns.clone(),
                ..View::default()
            })
            .collect();
        let mut owners = BTreeMap::new();
        let sites = config.sites();
        for (i, sites) in sites.iter().enumerate() {
            for site in sites {
                owners.entry(site.clone()).or_insert(i);
            }
        }
        Self { views, owners, sites }
    }

    /// Takes over who the main processes are, in the order of the configuration. Returns the services that mean something
    /// else by their names now.
    pub fn follow(&mut self, mains: Vec<Option<ProcId>>) -> Vec<usize> {
        let mut changed = Vec::new();
        for (i, (view, main)) in self.views.iter_mut().zip(mains).enumerate() {
            if view.process != main {
                view.process = main;
                let before = view.foreign_pids;
                if let Some(id) = main {
                    view.foreign_pids = pid_namespace::is_foreign(id.pid);
                }
                // Each main process may have a pid namespace of its own.
                let pids = before || view.foreign_pids;
                if view.refresh() || view.netns == Netns::Main || pids {
                    changed.push(i);
                }
            }
        }
        changed
    }

    /// Who will be the main processes, before anybody has joined a service: the PID file's, or the oldest process that
    /// the declaration selects. Without it the first look would mean the host's names.
    ///
    /// `processes`: all, or those that the declarations select; not asked for where no declaration selects any.
    pub fn guess(&mut self, config: &Config, processes: impl FnOnce() -> Vec<Process>) {
        let selects = |s: &Service| s.has_selector() || s.pid_file.is_some();
        if !config.services.iter().any(selects) {
            return;
        }
        let all = processes();
        let selectors = Selectors::new(&config.services, |path| path::file_id(path.as_ref()).ok());
        let mut by_service: BTreeMap<usize, BTreeMap<ProcId, &Process>> = BTreeMap::new();
        for process in &all {
            for i in selectors.selecting(&config.services, process) {
                by_service.entry(i).or_default().insert(process.id, process);
            }
        }
        for (i, selected) in by_service {
            let (Some(view), Some(service)) = (self.views.get_mut(i), config.services.get(i)) else {
                continue;
            };
            let is_root = |p: &&&Process| p.parent.is_none_or(|parent| !selected.contains_key(&parent));
            let oldest = selected.values().filter(is_root).min_by_key(|p| (p.start, p.id));
            let Some(id) = oldest.map(|p| p.id) else { continue };
            view.process = Some(id);
            view.refresh();
            // The file may name another of them.
            let named = service.pid_file.as_deref();
            let named = named.and_then(|file| pid_file::read(file.as_ref(), None, view).process);
            if let Some(named) = named.filter(|p| selected.contains_key(&p.id)) {
                view.process = Some(named.id);
                view.refresh();
            }
            view.foreign_pids = view.process.is_some_and(|id| pid_namespace::is_foreign(id.pid));
        }
    }

    /// The addresses of a service.
    pub fn sites(&self, i: usize) -> Vec<Site> {
        self.sites.get(i).cloned().unwrap_or_default()
    }

    pub fn service(&self, i: usize) -> &View {
        &self.views[i]
    }

    /// [`View::refresh`] of a service.
    pub fn refresh(&mut self, i: usize) -> bool {
        self.views.get_mut(i).is_some_and(View::refresh)
    }

    /// The service whose view a site is seen with.
    pub fn owner(&self, site: &Site) -> Option<usize> {
        self.owners.get(site).copied()
    }

    pub fn of(&self, site: &Site) -> View {
        self.owner(site)
            .and_then(|i| self.views.get(i))
            .cloned()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
