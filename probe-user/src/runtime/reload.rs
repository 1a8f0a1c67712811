//! Another configuration takes the place of the present one, while everything goes on.

use std::collections::BTreeSet;

use super::{Runtime, RuntimeError, Sink, declared_exes, exe_ids, observed, wanted};
use crate::{
    config::Config,
    event::What,
    sources::{
        declared_paths::{DeclaredPaths, PidFile},
        heartbeat::Heartbeats,
        root::Rooted,
        socket_names::SocketNames,
        view::Views,
    },
};

impl Runtime {
    /// Takes over what is declared now; what is declared as before keeps its state. The descriptors may be others
    /// afterwards.
    ///
    /// # Errors
    /// If the kernel cannot be told what is wanted, or gives no descriptors. Then nothing has changed.
    pub fn reload(&mut self, config: Config, sink: &mut Sink<'_>) -> Result<(), RuntimeError> {
        let exes = exe_ids(&config);
        let heartbeats = match beats(&config).eq(beats(&self.config)) {
            true => None,
            false => Some(Heartbeats::new(&config).map_err(RuntimeError::Heartbeats)?),
        };
        if let Err(e) = self.kernel.want(&wanted(&config, &exes)) {
            // What was wanted had room.
            self.kernel.want(&wanted(&self.config, &self.exes))?;
            return Err(e.into());
        }
        // From here on nothing fails. What happened until now was meant for what was declared until now.
        self.drain(sink);
        let before: BTreeSet<Rooted> = self.places().collect();
        self.config = config;
        self.exes = exes;
        if let Some(heartbeats) = heartbeats {
            self.heartbeats = heartbeats;
        }
        self.queue.push_back(observed(What::Reload {
            config: Box::new(self.config.clone()),
            exes: self.exes.clone(),
        }));
        // The engine first: it knows whose main processes stay, and so what the names mean.
        self.feed_queue(sink);
        self.views = Views::new(&self.config);
        self.views.follow(self.engine.mains());
        self.paths = DeclaredPaths::new(&self.config, &self.views);
        self.names = SocketNames::of(&self.config);
        self.settle.clear();
        self.read_pid_files.clear();
        self.unwatched.clear();
        let now: BTreeSet<Rooted> = self.places().collect();
        for gone in before.difference(&now) {
            self.files.forget(gone);
        }
        self.directories.remove_all(before.difference(&now).cloned());
        self.directories.add_all(now.difference(&before).cloned());
        self.follow_changers();
        let pid_files: Vec<PidFile> = self.paths.pid_files().map(|(file, _)| file.clone()).collect();
        for file in &pid_files {
            self.watch_pid_file(file);
        }
        self.run(sink);
        Ok(())
    }

    /// Everything that is watched by its path.
    fn places(&self) -> impl Iterator<Item = Rooted> + '_ {
        self.paths.all().cloned().chain(declared_exes(&self.config))
    }
}

/// What heartbeats are declared, and all that they depend on.
fn beats(config: &Config) -> impl Iterator<Item = impl PartialEq + '_> {
    let services = config.services.iter();
    services.filter_map(|s| Some((&s.name, s.heartbeat.as_ref()?, &s.netns, &s.unit, &s.user)))
}
