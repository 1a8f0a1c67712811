//! Where the declared paths are, and whose they are.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    root::Rooted,
    view::{View, Views},
};
use crate::{address::Site, config::Config};

/// What is declared by a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Declared {
    Socket(Site),
    PidFile(PidFile),
}

/// A declared PID file; `of`: the service, where another one may mean another file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PidFile {
    pub path: String,
    pub of: Option<String>,
}

#[derive(Debug)]
pub struct DeclaredPaths {
    /// What each service declares, in the order of the configuration.
    services: Vec<Vec<Declared>>,
    /// Where that is now.
    places: Vec<BTreeSet<Rooted>>,
    at: BTreeMap<Rooted, BTreeSet<Declared>>,
    pid_files: BTreeMap<PidFile, usize>,
}

/// What a change of a service's view leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub new: Vec<Rooted>,
    /// Places where nothing is declared any more.
    pub gone: Vec<Rooted>,
}

impl DeclaredPaths {
    pub fn new(config: &Config, views: &Views) -> Self {
        let mut services: Vec<Vec<Declared>> = config
            .sites()
            .into_iter()
            .map(|sites| {
                let paths = sites.into_iter().filter(|s| s.address.path().is_some());
                paths.map(Declared::Socket).collect()
            })
            .collect();
        let mut pid_files = BTreeMap::new();
        for (i, path, of) in config.pid_files() {
            let file = PidFile {
                path: path.to_owned(),
                of: of.map(str::to_owned),
            };
            pid_files.insert(file.clone(), i);
            services[i].push(Declared::PidFile(file));
        }
        let mut paths = Self {
            places: vec![BTreeSet::new(); services.len()],
            services,
            at: BTreeMap::new(),
            pid_files,
        };
        for i in 0..paths.services.len() {
            paths.update(i, views.service(i));
        }
        paths
    }

    /// Every place where something is declared.
    pub fn all(&self) -> impl Iterator<Item = &Rooted> {
        self.at.keys()
    }

    pub fn at(&self, place: &Rooted) -> impl Iterator<Item = &Declared> {
        self.at.get(place).into_iter().flatten()
    }

    pub fn of_service(&self, i: usize) -> &[Declared] {
        self.services.get(i).map_or(&[], Vec::as_slice)
    }

    /// The service that declares a PID file.
    pub fn owner(&self, file: &PidFile) -> Option<usize> {
        self.pid_files.get(file).copied()
    }

    pub fn pid_files(&self) -> impl Iterator<Item = (&PidFile, usize)> {
        self.pid_files.iter().map(|(file, i)| (file, *i))
    }

    /// Service `i` sees its paths elsewhere than before.
    pub fn update(&mut self, i: usize, view: &View) -> Moved {
        let now: Vec<(Rooted, Declared)> = self
            .of_service(i)
            .iter()
            .flat_map(|declared| {
                let path = match declared {
                    Declared::Socket(site) => site.address.path().unwrap_or("/".as_ref()),
                    Declared::PidFile(file) => file.path.as_ref(),
                };
                let places = view.places(path);
                places.into_iter().map(|place| (place, declared.clone()))
            })
            .collect();
        let mut moved = Moved::default();
        let before = std::mem::take(&mut self.places[i]);
        let mine: BTreeSet<&Declared> = self.services[i].iter().collect();
        for place in &before {
            if let Some(there) = self.at.get_mut(place) {
                there.retain(|d| !mine.contains(d));
            }
        }
        for (place, declared) in now {
            if !before.contains(&place) {
                moved.new.push(place.clone());
            }
            self.at.entry(place.clone()).or_default().insert(declared);
            self.places[i].insert(place);
        }
        for place in before {
            if self.at.get(&place).is_some_and(BTreeSet::is_empty) {
                self.at.remove(&place);
                moved.gone.push(place);
            }
        }
        moved
    }
}
