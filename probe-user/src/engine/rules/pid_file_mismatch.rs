//! `pid-file-mismatch`: the PID file names a live member that isn't of the instance that holds the addresses.

use super::{
    super::{
        finding::Kind,
        show::describe,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let Some((state, read_at, seq)) = &service.pid_file else {
        return;
    };
    let Some(named) = service
        .named_by_pid_file()
        .and_then(|id| service.members.get(&id))
    else {
        return;
    };
    let holds = |instance: u32| {
        let living = service.instances.get(&instance).map(|i| &i.living);
        view.addresses().any(|(_, l)| {
            l.serving()
                .any(|e| living.is_some_and(|l| e.socket.holders.iter().any(|h| l.contains(&h.process))))
        })
    };
    // More instances than declared are `duplicate-instance`, and that is why the file names another one.
    if holds(named.instance) || service.qualified().count() > service.decl.max_instances as usize {
        return;
    }
    let Some((_, holder)) = service.qualified().find(|(n, _)| holds(*n)) else {
        return;
    };
    let key = Key {
        kind: Kind::PidFileMismatch,
        subject: state.path.clone(),
        detail: String::new(),
    };
    // A new instance writes its PID file before or after it takes the addresses over.
    let patience = *read_at + service.decl.overlap;
    if view.now < patience && !view.is_open(&key) {
        verdict.again_at(patience);
        return;
    }
    verdict.conditions.push(Condition {
        severity: None,
        at: *read_at,
        cause: format!("pid file {} {}", state.path, named.process.id.pid),
        actor: None,
        summary: format!(
            "{} names {}, but {} holds the addresses",
            state.path,
            describe(&named.process),
            describe(service.lead(holder))
        ),
        evidence: [*seq, holder.seq].into_iter().filter(|s| *s > 0).collect(),
        key,
    });
}
