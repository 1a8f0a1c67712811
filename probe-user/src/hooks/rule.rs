//! Which findings a hook is told of.

use std::time::Duration;

use crate::{
    config::{After, Hook, HookState, WebhookFormat},
    engine::finding::{Finding, Kind, Severity},
};

/// What a router needs of a hook's declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub kinds: Vec<Kind>,
    pub severity: Option<Severity>,
    pub gave_up: bool,
    pub services: Vec<String>,
    pub states: Vec<HookState>,
    pub after: After,
    pub group_wait: Duration,
    pub at_most: After,
    /// The receiver groups by itself: it is told of every finding's every turn.
    pub each: bool,
    /// The receiver forgets what it isn't told again.
    pub resend_every: Option<Duration>,
}

/// An Alertmanager forgets after five minutes what it isn't told again; Prometheus does so every minute.
pub(super) const RESEND_EVERY: Duration = Duration::from_secs(60);

impl From<&Hook> for Rule {
    fn from(h: &Hook) -> Self {
        let each = h.format == Some(WebhookFormat::Alertmanager);
        Self {
            kinds: h.on.clone(),
            severity: h.severity,
            gave_up: h.gave_up,
            services: h.services.clone(),
            states: h.states.clone(),
            after: h.after,
            group_wait: h.group_wait,
            at_most: h.at_most,
            each,
            resend_every: each.then(|| h.resend_every.map_or(RESEND_EVERY, |s| s.0)),
        }
    }
}

impl Rule {
    /// By service, and by kind or severity. Where only `gave_up` is asked for, kind and severity don't matter.
    pub fn matches(&self, f: &Finding) -> bool {
        let service = self.services.is_empty() || self.services.contains(&f.service);
        let any = self.kinds.is_empty() && self.severity.is_none();
        let kind = any || self.kinds.contains(&f.kind) || self.severity.is_some_and(|s| f.severity >= s);
        service && kind && (!self.gave_up || gave_up(f))
    }

    pub fn tells(&self, state: HookState) -> bool {
        self.states.contains(&state)
    }
}

/// Whether it says that somebody does not try any more.
pub fn gave_up(f: &Finding) -> bool {
    f.facts.get("gave_up").is_some_and(|v| v == true)
}
