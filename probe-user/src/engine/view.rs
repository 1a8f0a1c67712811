//! What is known of each service now, for whoever asks. It changes nothing.

use crate::{
    address::Address,
    clock::Nanos,
    event::{PathState, ProcId, Process, SocketState},
};

use super::{
    Engine,
    finding::{Finding, FindingState, Kind},
    ledger::{AddressLedger, Entry},
    show,
    state::{End, ServiceState},
};

/// One service, as it is known now.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    pub service: String,
    /// There is no more of it than may be remembered, so that it can be judged.
    pub fits: bool,
    pub expected: bool,
    /// The living main process, and since when it is the main one.
    pub main: Option<(Process, Nanos)>,
    /// Living instances that count.
    pub instances: usize,
    pub members: usize,
    pub generation: u64,
    pub ready: bool,
    pub listeners: Vec<ListenerView>,
    pub pid_file: Option<String>,
    pub unit: Option<String>,
    /// The last sign of life.
    pub beat: Option<Nanos>,
    /// Since when it is being asked to stop, and how.
    pub stopping: Option<(Nanos, String)>,
    pub last_end: Option<EndView>,
    /// Whoever restarts it has stopped trying.
    pub gave_up: bool,
    /// systemd is about to start, stop or restart its unit, or will do so by itself.
    pub unit_is_changing: bool,
    /// Living instances that count, the oldest first.
    pub lives: Vec<InstanceView>,
    pub findings: Vec<Finding>,
}

/// One living instance that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// The process that leads it.
    pub lead: Process,
    pub is_named_by_pid_file: bool,
}

/// One declared address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerView {
    pub address: Address,
    pub state: ListenerState,
    pub holder: Option<Process>,
    pub inode: Option<u64>,
    pub queue: Option<u32>,
    pub limit: Option<u32>,
    /// Since when the socket is known.
    pub since: Option<Nanos>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    Socket(SocketState),
    /// It lives, and its path leads elsewhere.
    Orphaned,
    /// A socket file, and no socket.
    Stale,
    Absent,
    Unknown,
}

/// How the last main process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndView {
    pub process: Process,
    pub at: Nanos,
    pub how: String,
    pub asked: bool,
}

/// One life of a service's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    pub generation: u64,
    pub main: Option<ProcId>,
}

impl Engine {
    /// Whether verdicts can be given: the first snapshot is in, and nothing is missing.
    pub fn can_judge(&self) -> bool {
        self.joined && self.blind.is_none()
    }

    /// The first snapshot is in.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    pub fn config(&self) -> &crate::config::Config {
        &self.config
    }

    /// Every service, in the order of the configuration.
    pub fn views(&self) -> Vec<ServiceView> {
        (0..self.services.len()).map(|s| self.view(s)).collect()
    }

    /// One service, and its place in the configuration.
    pub fn view_of(&self, service: &str) -> Option<(usize, ServiceView)> {
        let s = *self.by_name.get(service)?;
        Some((s, self.view(s)))
    }

    /// What must be remembered of a service when probe ends.
    pub fn life(&self, service: &str) -> Option<Life> {
        let s = &self.services[*self.by_name.get(service)?];
        let remembered = s.remembered;
        Some(Life {
            generation: s.generation,
            main: match s.generation_instance {
                Some(_) => s.main.as_ref().map(|m| m.id),
                None => remembered,
            },
        })
    }

    /// That events were lost, while that is so.
    pub fn blind_finding(&self) -> Option<Finding> {
        let open = self.blind_open.as_ref()?;
        Some(self.finding("probe", &open.condition, &open.id, FindingState::Opened, None))
    }

    fn view(&self, s: usize) -> ServiceView {
        let service = &self.services[s];
        let main = service.main.as_ref().zip(service.main_member());
        let mut findings: Vec<Finding> = service
            .open
            .values()
            .map(|o| {
                self.finding(
                    &service.decl.name,
                    &o.condition,
                    &o.id,
                    FindingState::Opened,
                    None,
                )
            })
            .collect();
        findings.sort_by(|a, b| (&a.cause, a.at, a.kind).cmp(&(&b.cause, b.at, b.kind)));
        let gave_up = findings
            .iter()
            .any(|f| f.kind == Kind::CrashLoop && f.facts.get("gave_up").is_some_and(|g| g == true));
        ServiceView {
            service: service.decl.name.clone(),
            fits: !service.over,
            expected: service.decl.expected,
            main: main.map(|(m, member)| (Process::clone(&member.process), m.began)),
            instances: service.qualified().count(),
            members: service.members.len(),
            generation: service.generation,
            ready: service.ready,
            listeners: service
                .places
                .iter()
                .filter_map(|place| {
                    Some(self.listener(self.addresses.address(*place)?, self.addresses.get(*place)?))
                })
                .collect(),
            pid_file: service.decl.pid_file.clone(),
            unit: service.decl.unit.clone(),
            beat: service.beat.map(|(at, _)| at),
            stopping: service.stopping().map(|a| (a.at, a.words())),
            last_end: service.last_end.as_ref().map(|e| EndView {
                process: Process::clone(&e.process),
                at: e.at,
                how: show::ended(e),
                asked: End::explains_leftovers(e),
            }),
            gave_up,
            unit_is_changing: service.unit.as_ref().is_some_and(|u| u.state.is_changing()),
            lives: lives(service),
            findings,
        }
    }

    fn listener(&self, address: &Address, ledger: &AddressLedger) -> ListenerView {
        if ledger.read_at.is_none() || ledger.error.is_some() {
            return ListenerView::unknown(address);
        }
        // Whom somebody reaches counts for more than what is only there.
        let entry = ledger.serving().next().or_else(|| {
            let leads = ledger.live.values().filter(|e| ledger.leads_to(&e.socket));
            leads.chain(ledger.live.values()).next().map(Box::as_ref)
        });
        let Some(entry) = entry else {
            let state = match ledger.path {
                Some(PathState::Socket(_)) => ListenerState::Stale,
                Some(PathState::Unknown(_)) => ListenerState::Unknown,
                _ => ListenerState::Absent,
            };
            return ListenerView {
                state,
                ..ListenerView::unknown(address)
            };
        };
        let state = match ledger.leads_to(&entry.socket) {
            true => ListenerState::Socket(entry.socket.state),
            false => ListenerState::Orphaned,
        };
        ListenerView {
            address: address.clone(),
            state,
            holder: self.holder(ledger, entry),
            inode: Some(entry.socket.inode),
            queue: Some(entry.socket.queue),
            limit: Some(entry.socket.backlog),
            since: Some(entry.since),
        }
    }

    /// A member that holds it, or else whoever does.
    fn holder(&self, ledger: &AddressLedger, entry: &Entry) -> Option<Process> {
        let holders = entry.socket.holders.iter().map(|h| h.process);
        let member = |id: &ProcId| {
            let services = self.member_of.get(id)?;
            let member = services.iter().find_map(|s| self.services[*s].members.get(id))?;
            Some(Process::clone(&member.process))
        };
        holders
            .clone()
            .find_map(|id| member(&id))
            .or_else(|| holders.clone().find_map(|id| ledger.stranger(&id).cloned()))
    }
}

fn lives(service: &ServiceState) -> Vec<InstanceView> {
    let named = service.named_by_pid_file();
    let mut lives: Vec<InstanceView> = service
        .qualified()
        .map(|(_, i)| InstanceView {
            lead: Process::clone(service.lead(i)),
            is_named_by_pid_file: named.is_some_and(|id| i.living.contains(&id)),
        })
        .collect();
    lives.sort_by_key(|i| (i.lead.start, i.lead.id));
    lives
}

impl ListenerView {
    fn unknown(address: &Address) -> Self {
        Self {
            address: address.clone(),
            state: ListenerState::Unknown,
            holder: None,
            inode: None,
            queue: None,
            limit: None,
            since: None,
        }
    }
}
