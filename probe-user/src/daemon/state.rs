//! Its own state, for the log: SIGUSR1.

use std::fs;

use super::{Daemon, engine::Handle};
use crate::{
    clock::{self, Nanos},
    config::Config,
    history::{Health, Store},
    stream::Stream,
};

impl Daemon {
    /// Writes what probe knows of itself.
    pub(super) async fn tell_state(&self) {
        let config = self.tell_config.borrow().clone();
        process(self.since);
        kept(&self.stream, &self.store);
        for hook in self.acts.hooks().await {
            let r = hook.results;
            tracing::info!(
                "state: hook {}: {} wait, told {} times, failed {}, timed out {}, dropped {}{}",
                hook.hook,
                hook.waiting,
                r.ok,
                r.failed,
                r.timeout,
                r.dropped,
                hook.not_kept.map_or(String::new(), |why| format!("; {why}"))
            );
        }
        services(&self.handle, &config).await;
    }
}

fn process(since: Nanos) {
    let kb = |name: &str| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("?".to_owned(), |l| l.trim().to_owned())
    };
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    tracing::info!(
        "state: version {}, process {}, running for {:?}, resident {}, {} threads, {descriptors} descriptors",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        clock::now().since(since),
        kb("VmRSS"),
        kb("Threads"),
    );
}

fn kept(stream: &Stream, store: &Store) {
    let figures = stream.figures();
    tracing::info!(
        "state: stream {} holds lines {} to {}, about {} bytes, for {} readers",
        stream.epoch(),
        figures.oldest,
        figures.newest,
        figures.bytes,
        figures.readers
    );
    let history = store.status();
    tracing::info!(
        "state: history is {}, {} lines written, {} lost, {} wait, about {} bytes",
        match &history.health {
            Health::Opening => "being checked".to_owned(),
            Health::Writing => "written".to_owned(),
            Health::Failing { why, .. } => format!("not written: {why}"),
        },
        history.written,
        history.lost,
        history.waiting,
        history.bytes
    );
}

async fn services(engine: &Handle, config: &Config) {
    let picture = match engine.picture(None).await {
        Ok(Some(picture)) => picture,
        Ok(None) => return,
        Err(e) => {
            tracing::error!("state: {e}");
            return;
        }
    };
    tracing::info!(
        "state: {} services declared, {} hooks, verdicts are {}, {} records of the kernel, lost: {:?}, tiers: {:?}",
        config.services.len(),
        config.hooks.len(),
        if picture.can_judge { "known" } else { "unknown" },
        picture.records,
        picture.lost,
        picture.tier
    );
    for (s, _) in &picture.services {
        let main = s
            .main
            .as_ref()
            .map_or("none".to_owned(), |(p, _)| p.id.pid.to_string());
        tracing::info!(
            "state: service {}: main process {main}, generation {}, {} instances, {} members, {} open findings",
            s.service,
            s.generation,
            s.instances,
            s.members,
            s.findings.len()
        );
    }
}
