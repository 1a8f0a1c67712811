//! Looks at a process: only when a rule has a reason to know more.

use crate::event::{ProcId, ProcessState, RunState};

use super::{Effect, Engine};

impl Engine {
    pub(super) fn look(&mut self, id: ProcId) {
        let services = self.member_of.services_of(&id);
        let mut asked = false;
        for s in services {
            if let Some(m) = self.services[s].members.get_mut(&id) {
                asked |= m.looking;
                m.looking = true;
            }
        }
        if !asked {
            self.effects.push(Effect::Look(id));
        }
    }

    pub(super) fn on_process_state(&mut self, state: ProcessState) {
        let at = self.at;
        if state.run == RunState::Gone {
            self.forget_refused(state.process);
        }
        for s in self.member_of.services_of(&state.process) {
            let Some(m) = self.services[s].members.get_mut(&state.process) else {
                continue;
            };
            m.looking = false;
            if m.seen.as_ref().is_some_and(|(_, known)| *known > at) {
                continue;
            }
            // What is not stopped any more was continued, whether or not that was told.
            if !matches!(state.run, RunState::Stopped | RunState::Gone) {
                m.stopped = None;
            }
            m.seen = Some((state.clone(), at));
            self.touched.insert(s);
        }
    }
}
