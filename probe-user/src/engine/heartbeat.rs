//! Signs of life.

use serde_json::json;

use crate::clock::Nanos;

use super::{Engine, finding::EventKind};

impl Engine {
    /// A level: the newest beat counts.
    pub(super) fn on_heartbeat(&mut self, service: &str, beat: Option<Nanos>) {
        let Some(&s) = self.by_name.get(service) else {
            return;
        };
        self.touched.insert(s);
        let Some(beat) = beat else { return };
        if self.services[s].beat.is_some_and(|(known, _)| known >= beat) {
            return;
        }
        let main = self.services[s].main_member().map(|m| m.process.clone());
        let summary = format!("{service} shows a sign of life");
        let facts = json!({ "beat_boot_ns": beat });
        let seq = self.show(s, EventKind::Heartbeat, None, main.as_ref(), None, facts, summary);
        self.services[s].beat = Some((beat, seq));
    }
}
