//! What probe's own healing says of itself.

use serde_json::json;

use super::{Engine, finding::EventKind};
use crate::clock::Nanos;

/// It has stopped trying.
#[derive(Debug, Clone, Copy)]
pub(super) struct GaveUp {
    pub(super) at: Nanos,
    pub(super) seq: u64,
    pub(super) attempts: u32,
}

impl Engine {
    pub(super) fn on_gave_up(&mut self, service: &str, attempts: Option<u32>) {
        let Some(&s) = self.by_name.get(service) else {
            return;
        };
        self.services[s].gave_up = attempts.map(|attempts| {
            let facts = json!({ "what": "heal", "outcome": "gave_up", "attempts": attempts });
            let summary =
                format!("probe stops trying to heal {service}: {attempts} attempts in a row did not help");
            GaveUp {
                at: self.at,
                seq: self.show(s, EventKind::Action, None, None, None, facts, summary),
                attempts,
            }
        });
        self.touched.insert(s);
    }
}
