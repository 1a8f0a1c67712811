//! How events are put into words and fields.

use std::fmt;

use crate::event::{Actor, ExitStatus, Process};

use super::{
    Engine,
    facts::Facts,
    finding::{Effect, EventKind, Shown},
    state::End,
};

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "each is a field of the event")]
    pub(super) fn show(
        &mut self,
        s: usize,
        kind: EventKind,
        subject: Option<String>,
        process: Option<&Actor>,
        actor: Option<&Actor>,
        facts: impl Into<Facts>,
        summary: String,
    ) -> u64 {
        let seq = self.next_seq();
        self.show_at(s, seq, kind, subject, process, actor, facts, summary);
        seq
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the event")]
    pub(super) fn show_at(
        &mut self,
        s: usize,
        seq: u64,
        kind: EventKind,
        subject: Option<String>,
        process: Option<&Actor>,
        actor: Option<&Actor>,
        facts: impl Into<Facts>,
        summary: String,
    ) {
        self.effects.push(Effect::Show(Box::new(Shown {
            seq,
            at: self.at,
            time_source: self.time_source,
            service: self.services[s].decl.name.clone(),
            kind,
            subject,
            process: process.cloned(),
            actor: actor.cloned(),
            facts: facts.into(),
            summary,
        })));
    }
}

/// `redis-server (812)`: the command name as `ps` shows it; the executable's file name where that is the same cut short,
/// or where nothing else is known.
pub(crate) fn describe(p: &Process) -> String {
    Described(p).to_string()
}

/// As [`describe`] says it, for what is said with each event.
pub(super) struct Described<'a>(pub(super) &'a Process);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(p) = self;
        let exe = p.exe.as_deref().map(file_name).filter(|n| !n.is_empty());
        let comm = Some(p.comm.as_str()).filter(|c| !c.is_empty());
        let name = match (comm, exe) {
            (Some(comm), Some(exe)) if exe.starts_with(comm) => Some(exe),
            (comm, exe) => comm.or(exe),
        };
        match name {
            Some(name) => write!(f, "{name} ({})", p.id.pid),
            None => write!(f, "process {}", p.id.pid),
        }
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `nginx (812), /usr/sbin/nginx of nginx.service`: enough to find out what a process is that nobody declared, also later.
pub(super) fn introduce(p: &Process) -> String {
    let mut text = describe(p);
    if let Some(exe) = &p.exe {
        text.push_str(", ");
        text.push_str(exe);
        if p.exe_deleted {
            text.push_str(" (deleted)");
        }
    }
    if let Some(unit) = &p.unit {
        text.push_str(" of ");
        text.push_str(unit);
    }
    text
}

/// `was killed by KILL from kill (990)`, `exited with code 1`.
pub(super) fn ended(end: &End) -> String {
    let mut text = match end.status {
        ExitStatus::Code(c) => format!("exited with code {c}"),
        ExitStatus::Signal { signal, core } => {
            let core = if core { " and dumped core" } else { "" };
            match &end.killer {
                Some(k) => match &k.actor {
                    Some(a) => format!("was killed by {signal} from {}{core}", describe(a)),
                    None => format!("was killed by {signal} from the kernel{core}"),
                },
                None => format!("was killed by {signal}{core}"),
            }
        }
        ExitStatus::Unknown => "is gone, nobody saw how".to_owned(),
    };
    if end.oom.is_some() {
        text.push_str(", chosen by the OOM killer");
    }
    text
}
