//! `crashed`: the main process ended unasked, whatever the code or signal.

use super::{
    super::{
        finding::Kind,
        show::{describe, ended},
        socket::IN_FLIGHT,
        state::EndKind,
        verdict::Verdict,
    },
    View, after_end, is_replaced,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let Some(end) = service.last_end.as_ref().filter(|e| e.kind == EndKind::Crash) else {
        return;
    };
    // Whether another process goes on with its sockets is being looked at.
    let settled_by = end.at + IN_FLIGHT;
    if !end.unsettled.is_empty() && view.now < settled_by {
        verdict.again_at(settled_by);
        return;
    }
    if is_replaced(service, end) || service.was_named_instead(end) {
        return;
    }
    let lived = end.at.since(end.process.start).as_secs_f64();
    let fault = end
        .killer
        .as_ref()
        .and_then(|k| k.fault_addr)
        .map_or(String::new(), |a| format!(" at address {a:#x}"));
    let summary = format!(
        "{} {}{fault} after {lived:.3} s",
        describe(&end.process),
        ended(end)
    );
    verdict
        .conditions
        .push(after_end(Kind::Crashed, service, end, summary));
}
