//! PID files: what stands in them, and whom it names.

use serde_json::json;

use crate::event::{Actor, PathChange, PidFileContent, PidFileState};

use super::{Effect, Engine, finding::EventKind, process::Met, state::ServiceState};

impl Engine {
    pub(super) fn on_pid_file_path(
        &mut self,
        path: &str,
        of: Option<String>,
        change: PathChange,
        actor: Option<Actor>,
    ) {
        let writes = matches!(change, PathChange::Created | PathChange::RenamedTo);
        for s in self.index.of_pid_file(path, of.as_deref()) {
            // Also one that ends before anybody reads whom it names.
            if let (true, Some(a)) = (writes, &actor) {
                self.services[s].wrote_pid_file(a.id);
                self.qualify(s);
                self.touched.insert(s);
            }
            if let Some(a) = &actor
                && let Some(m) = self.services[s].members.get_mut(&a.id)
            {
                // What it removed before it wrote its own was an earlier life's.
                m.cleaned_up = matches!(change, PathChange::Removed | PathChange::RenamedAway);
            }
        }
        self.effects.push(Effect::ReadPidFile(path.to_owned(), of));
    }

    /// A level: how the PID file was at `self.at`. `true` when its process joined a service.
    pub(super) fn on_pid_file(&mut self, state: PidFileState) {
        if self.take_pid_file(state) && self.joined {
            self.effects
                .push(Effect::Resync(crate::event::SnapshotReason::Interval));
        }
    }

    pub(super) fn take_pid_file(&mut self, state: PidFileState) -> bool {
        let at = self.at;
        let mut joined = false;
        for s in self.index.of_pid_file(&state.path, state.of.as_deref()) {
            let mut state = state.clone();
            // The number means the same process as before, though nobody can say so any more: it has ended.
            if let Some((known, ..)) = &self.services[s].pid_file
                && state.process.is_none()
                && state.local.is_some()
                && (known.local, known.modified) == (state.local, state.modified)
            {
                state.content = known.content.clone();
            }
            if self.services[s]
                .pid_file
                .as_ref()
                .is_some_and(|(_, known, _)| *known > at)
            {
                continue;
            }
            if let Some((known, read_at, _)) = &mut self.services[s].pid_file
                && *known == state
                && self.joined
                && state
                    .process
                    .as_ref()
                    .is_none_or(|p| self.member_of.get(&p.id).is_some_and(|v| v.contains(&s)))
            {
                *read_at = at;
                if let Some(p) = state.process.clone() {
                    joined |= self.meet(p, Met::Level);
                }
                continue;
            }
            let before = self.services[s]
                .pid_file
                .as_ref()
                .map(|(p, ..)| p.content.clone());
            let changed = before.as_ref() != Some(&state.content);
            let seq = if changed {
                self.next_seq()
            } else {
                self.services[s].pid_file.as_ref().map_or(0, |p| p.2)
            };
            if let Some(p) = state.process.clone() {
                joined |= self.meet(p.clone(), Met::Level);
                if !self.services[s].decl.has_selector() && ServiceState::pid_file_is_about(&state, &p) {
                    joined |= self.join(s, p, Met::Level);
                }
            }
            self.services[s].pid_file = Some((state.clone(), at, seq));
            if changed && self.joined {
                let (facts, says) = match &state.content {
                    PidFileContent::Pid(p) => match state.local {
                        None => (json!({ "pid": p }), format!("says {p}")),
                        Some(local) => (
                            json!({ "pid": state.process.as_ref().map(|_| p), "local_pid": local }),
                            match state.process {
                                Some(_) => format!("says {local} in its pid namespace, which is {p}"),
                                None => format!("says {local}, and its pid namespace has no such process"),
                            },
                        ),
                    },
                    PidFileContent::Absent => (json!({}), "is gone".to_owned()),
                    PidFileContent::Empty => (json!({}), "is empty".to_owned()),
                    PidFileContent::Garbage(g) => (json!({ "garbage": g }), format!("says {g:?}")),
                    PidFileContent::Unreadable(e) => (json!({ "error": e }), format!("cannot be read: {e}")),
                };
                let summary = format!("{} {says}", state.path);
                let subject = Some(state.path.clone());
                self.show_at(
                    s,
                    seq,
                    EventKind::PidFile,
                    subject,
                    state.process.as_ref(),
                    None,
                    facts,
                    summary,
                );
            }
            self.qualify(s);
            self.touched.insert(s);
        }
        joined
    }
}
