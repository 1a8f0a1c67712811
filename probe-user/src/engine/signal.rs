//! Signals: who sent what to whom, and whether that asked a service to stop.

use std::borrow::Cow;

use serde_json::json;

use crate::{
    clock::Nanos,
    event::{Disposition, ProcId, Process, SignalSent},
    signal::{DefaultAction, Signal},
};

use super::{
    Engine,
    facts::Facts,
    finding::EventKind,
    process::Met,
    show::{Described, describe},
    state::{Ask, Asked, SIGNALS_KEPT, SignalFact, keep},
};

impl Engine {
    pub(super) fn on_signal(&mut self, sent: SignalSent) {
        // A signal can reach a child before the fork is told.
        self.meet(&sent.target, Met::Edge);
        let id = sent.target.id;
        for s in self.member_of.services_of(&id) {
            let seq = self.next_seq();
            self.note_signal(s, &id, &sent, seq);
            let Some(target) = self.services[s].member(&id).map(|m| m.process.clone()) else {
                continue;
            };
            let facts = Facts::new([
                ("signal", sent.signal.name().into()),
                ("code", code_name(sent.code).into()),
                ("result", sent.result.name().into()),
                ("disposition", sent.disposition.name().into()),
            ]);
            let (signal, whom) = (sent.signal, Described(&target));
            let summary = match &sent.actor {
                Some(by) => format!("{} sent {signal} to {whom}", Described(by)),
                None => format!("the kernel sent {signal} to {whom}"),
            };
            let actor = sent.actor.as_ref();
            self.show_at(
                s,
                seq,
                EventKind::Signal,
                None,
                Some(&target),
                actor,
                facts,
                summary,
            );
            self.touched.insert(s);
        }
    }

    fn note_signal(&mut self, s: usize, id: &ProcId, sent: &SignalSent, seq: u64) {
        let at = self.at;
        let service = &self.services[s];
        let Some(m) = service.members.get(id) else { return };
        // A member of another instance that counts has taken over, and stops its predecessor. One that runs by itself and
        // does not count is a tool of the same executable: `apache2 -k stop`.
        let from_outside = sent.actor.as_ref().is_some_and(|a| {
            service.members.get(&a.id).is_none_or(|sender| {
                let counts = || {
                    let instance = service.instances.get(&sender.instance);
                    instance.is_some_and(|i| i.qualified.is_some())
                };
                sender.instance != m.instance && (service.is_root(sender) || counts())
            })
        });
        // A signal that is ignored asks nothing: what ends the process later is something else.
        let heard = service.decl.stop_signals.contains(&sent.signal)
            && from_outside
            && sent.disposition != Disposition::Ignored;
        let is_main = || service.main.as_ref().is_some_and(|x| x.id == *id);
        // Its parent's end may have been told before this, and have come after it.
        let was_named = || {
            service.named_by_unit() == Some(*id)
                || service.named_by_pid_file() == Some(*id) && service.pid_file_written() <= at
        };
        let stop = heard && (service.is_root(m) || is_main()) && (m.orphaned <= at || was_named());
        let Some(m) = self.services[s].members.get_mut(id) else {
            return;
        };
        if m.signals.len() == SIGNALS_KEPT {
            m.signals.pop_front();
        }
        let fact = SignalFact {
            signal: sent.signal,
            at,
            seq,
            result: sent.result,
            disposition: sent.disposition,
            fault_addr: sent.fault_addr,
            actor: sent.actor.clone(),
        };
        match sent.disposition {
            Disposition::Ignored => {
                m.ignored.insert(sent.signal, fact.clone());
            }
            _ => {
                m.ignored.remove(&sent.signal);
            }
        }
        match sent.signal.default_action() {
            DefaultAction::Stop
                if sent.signal == Signal::STOP || sent.disposition == Disposition::Default =>
            {
                m.stopped.get_or_insert_with(|| fact.clone());
            }
            DefaultAction::Continue => m.stopped = None,
            _ => {}
        }
        m.signals.push_back(fact);
        if !heard {
            return;
        }
        let asked = Asked {
            how: Ask::Signal {
                signal: sent.signal,
                disposition: sent.disposition,
            },
            at,
            seq,
            actor: sent.actor.clone(),
        };
        keep(&mut m.heard, asked.clone());
        // A job leads to a signal, which says more.
        if stop && m.asked.as_ref().is_none_or(Asked::by_job) {
            self.services[s].ask(id, Some(asked));
        }
    }

    pub(super) fn on_oom(&mut self, victim: Process, rss: Option<u64>) {
        let at: Nanos = self.at;
        // The tracepoint may tell no more than a pid.
        let id = if self.member_of.contains(&victim.id) {
            victim.id
        } else {
            match self
                .member_of
                .ids()
                .into_iter()
                .find(|id| id.pid == victim.id.pid && victim.id.start_ticks == 0)
            {
                Some(id) => id,
                None => return,
            }
        };
        for s in self.member_of.services_of(&id) {
            let seq = self.next_seq();
            let Some(m) = self.services[s].members.get_mut(&id) else {
                continue;
            };
            m.oom = Some((rss, seq, at));
            let process = m.process.clone();
            let summary = format!("the kernel's OOM killer chose {}", describe(&process));
            self.show_at(
                s,
                seq,
                EventKind::Oom,
                None,
                Some(&process),
                None,
                json!({ "rss_bytes": rss }),
                summary,
            );
            self.touched.insert(s);
        }
    }
}

/// Names of `si_code` for signals that a process sent, and of the kernel's own.
fn code_name(code: i32) -> Cow<'static, str> {
    match code {
        libc::SI_USER => "SI_USER".into(),
        libc::SI_QUEUE => "SI_QUEUE".into(),
        libc::SI_TKILL => "SI_TKILL".into(),
        libc::SI_TIMER => "SI_TIMER".into(),
        libc::SI_MESGQ => "SI_MESGQ".into(),
        libc::SI_ASYNCIO => "SI_ASYNCIO".into(),
        libc::SI_SIGIO => "SI_SIGIO".into(),
        0x80 => "SI_KERNEL".into(),
        n => n.to_string().into(),
    }
}
