//! `duplicate-instance`: more than `max_instances` instances live longer than `overlap`.

use crate::event::ProcId;

use super::{
    super::{
        finding::Kind,
        show::describe,
        state::Instance,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let mut instances: Vec<_> = service
        .qualified()
        .map(|(_, i)| i)
        .filter(|i| !is_remainder(view, i))
        .collect();
    let max = service.decl.max_instances as usize;
    if instances.len() <= max {
        return;
    }
    instances.sort_by_key(|i| (i.root.start, i.root.id));
    // They are too many since the first one over the limit counts.
    let mut since: Vec<_> = instances.iter().filter_map(|i| i.qualified).collect();
    since.sort_unstable();
    let Some(since) = since.get(max).copied() else {
        return;
    };
    let key = Key {
        kind: Kind::DuplicateInstance,
        subject: service.decl.name.clone(),
        detail: String::new(),
    };
    let patience = since + service.decl.overlap;
    if view.now < patience && !view.is_open(&key) {
        verdict.again_at(patience);
        return;
    }
    // What each holds besides what is declared, such as a lock file, is looked at once.
    let leads = instances.iter().map(|i| service.lead(i).id);
    let fresh = |id: &ProcId| {
        service
            .members
            .get(id)
            .is_some_and(|m| m.seen.as_ref().is_some_and(|(_, at)| *at >= since))
    };
    let unseen: Vec<ProcId> = leads.filter(|id| !fresh(id)).collect();
    if !unseen.is_empty() && !view.is_open(&key) {
        verdict.looks.extend(unseen);
        return;
    }
    let each: Vec<String> = instances
        .iter()
        .map(|i| {
            let holds: Vec<String> = view
                .addresses()
                .filter(|(_, l)| {
                    l.live
                        .values()
                        .any(|e| e.socket.holders.iter().any(|h| i.living.contains(&h.process)))
                })
                .map(|(a, _)| a.to_string())
                .chain(
                    service
                        .named_by_pid_file()
                        .filter(|id| i.living.contains(id))
                        .and(service.decl.pid_file.clone()),
                )
                .collect();
            let lead = service.lead(i);
            let seen = service.members.get(&lead.id).and_then(|m| m.seen.as_ref());
            let locks = seen.map_or(&[][..], |(seen, _)| &seen.locks);
            let holds: Vec<String> = holds
                .into_iter()
                .chain(locks.iter().map(|l| format!("the lock {l}")))
                .collect();
            let parent = lead
                .parent
                .map_or(String::new(), |p| format!(", parent {}", p.pid));
            let unit = lead.unit.as_ref().map_or(String::new(), |u| format!(", {u}"));
            let holds = if holds.is_empty() {
                "nothing".to_owned()
            } else {
                holds.join(" and ")
            };
            format!("{}{parent}{unit} holds {holds}", describe(lead))
        })
        .collect();
    verdict.conditions.push(Condition {
        severity: None,
        key,
        at: since,
        cause: format!("duplicate {}", since.0),
        actor: None,
        summary: format!(
            "{} instances live side by side, {max} declared: {}",
            instances.len(),
            each.join("; ")
        ),
        evidence: instances.iter().map(|i| i.seq).filter(|s| *s > 0).collect(),
    });
}

/// What is left of an instance whose root has ended, such as the sessions of a server that was restarted, is none where
/// others tell what one is: an address, the PID file or the unit. Whether it handed anything over shows in these.
fn is_remainder(view: &View<'_>, instance: &Instance) -> bool {
    let service = view.service;
    let plain = service.decl.listen.is_empty() && service.decl.pid_file.is_none();
    if plain || service.members.contains_key(&instance.root.id) {
        return false;
    }
    let lives = |id: &ProcId| instance.living.contains(id);
    let named = service
        .named_by_pid_file()
        .into_iter()
        .chain(service.named_by_unit());
    let mut live = view.addresses().flat_map(|(_, ledger)| ledger.live.values());
    !named.into_iter().any(|id| lives(&id))
        && !live.any(|e| e.socket.holders.iter().any(|h| lives(&h.process)))
}
