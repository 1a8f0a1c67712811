//! What is remembered is bounded. What is beyond a bound is told as lost, and the services that it concerns are not judged
//! until a snapshot fits: what is wrong with them can't be known.

use crate::clock::Nanos;

use super::{Effect, Engine};

/// Sources of losses that are told by their names.
pub(super) const SOURCES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    Members,
    Sockets,
    Holders,
}

impl Engine {
    fn bound(&self, bound: Bound) -> (&'static str, u32) {
        let bounds = &self.config.probe.bounds;
        match bound {
            Bound::Members => ("probe.bounds.members", bounds.members.get()),
            Bound::Sockets => ("probe.bounds.sockets", bounds.sockets.get()),
            Bound::Holders => ("probe.bounds.holders", bounds.holders.get()),
        }
    }

    /// There is more of service `s` than may be remembered. Told once until the next snapshot.
    pub(super) fn overflow(&mut self, s: usize, bound: Bound) {
        self.services[s].over = true;
        if self.over.insert(bound, self.at).is_none() {
            let (source, _) = self.bound(bound);
            self.effects.push(Effect::Lost {
                source: source.to_owned(),
                count: 1,
            });
        }
    }

    pub(super) fn overflow_all(&mut self, services: &[usize], bound: Bound) {
        for s in services {
            self.overflow(*s, bound);
        }
    }

    /// A snapshot tells anew what there is.
    pub(super) fn forget_overflows(&mut self) {
        if self.over.is_empty() {
            return;
        }
        self.over.clear();
        for (i, s) in self.services.iter_mut().enumerate() {
            if std::mem::take(&mut s.over) {
                self.touched.insert(i);
            }
        }
    }

    /// Since when, and in words.
    pub(super) fn overflowed(&self) -> Option<(Nanos, String)> {
        let since = self.over.values().min()?;
        let names: Vec<String> = self
            .over
            .keys()
            .map(|b| {
                let (name, limit) = self.bound(*b);
                format!("{name} = {limit}")
            })
            .collect();
        let summary = format!(
            "there is more than may be remembered ({}); verdicts of the services concerned are unknown until a \
             snapshot fits",
            names.join(", ")
        );
        Some((*since, summary))
    }
}
