//! What `probe hook test` sends.

use super::notification::{Alert, Notification, State};
use crate::{
    clock,
    config::Hook,
    engine::finding::{Finding, FindingState, Kind},
};

/// A finding as the hook would be told of it, and that says it is none: `"test": true`.
pub(super) fn notification(label: &str, hook: &Hook) -> Notification {
    let (now, offset) = (clock::now(), clock::wall_offset());
    let wall = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_add(offset);
    let kind = match hook.on.first() {
        Some(kind) => *kind,
        None if hook.gave_up => Kind::CrashLoop,
        None => Kind::StaleSocket,
    };
    let service = hook.services.first().map_or("probe-test", String::as_str);
    let mut facts = serde_json::Map::new();
    facts.insert("test".into(), true.into());
    if hook.gave_up {
        facts.insert("gave_up".into(), true.into());
    }
    let id = format!("test-{:016x}", now.0);
    let finding = Finding {
        id: id.clone(),
        state: FindingState::Opened,
        kind,
        service: service.to_owned(),
        severity: kind.severity(),
        subject: service.to_owned(),
        cause: id.clone(),
        at: now,
        detected_after_ns: 0,
        actor: None,
        summary: format!("this is a test of the hook {label}; nothing is wrong"),
        resolution: None,
        evidence: Vec::new(),
        facts,
    };
    Notification {
        state: State::Opened,
        cause: id,
        alerts: vec![Alert {
            finding,
            wall_offset_ns: offset,
            started_ns: wall,
            // An Alertmanager forgets it by itself a little later.
            ended_ns: None,
        }],
        made_ns: wall,
        suppressed: 0,
    }
}
