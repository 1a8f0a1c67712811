//! What systemd says of declared units, over D-Bus: main process, jobs, restarts, start limits, the watchdog's stamp.
//!
//! Signals are hints. They only tell which unit to look at again, so neither their order nor a forged one matters; what
//! is handed on was asked of systemd itself. Each service manager (the system's, and one for each user that a service
//! names) is followed by a task of its own, which connects again after a pause that doubles.

mod bus;
mod proxy;
mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    clock::{self, Nanos},
    config::Config,
    event::{Event, Process, TimeSource, UnitState, What},
};
use bus::Bus;
use session::Session;

/// The longest that one call may take. systemd answers from memory; more means that it or the bus is stuck.
const CALL_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted this long was good: the next one is tried without a long pause.
const LASTING: Duration = Duration::from_secs(10);
/// Events that wait for [`Units::next`]; further ones wait in systemd's hands, merged to one look for each unit.
const WAITING: usize = 64;
/// Shortest time between two looks at a watchdog's stamp, for which systemd sends no signal.
const SHORTEST_BEAT: Duration = Duration::from_secs(1);

/// Reads a live process; `None` where there is none of this pid.
pub type ReadProcess = fn(u32) -> Option<Process>;

#[derive(Debug, thiserror::Error)]
pub enum UnitsError {
    #[error("no user {user:?}")]
    NoSuchUser { user: String },
    #[error("cannot look up user {user:?}: {error}")]
    UserDatabase { user: String, error: io::Error },
    #[error("cannot connect to {}: {error}", path.display())]
    Connect { path: PathBuf, error: io::Error },
    #[error("the bus did not answer within {CALL_WITHIN:?}")]
    Silent,
    #[error("systemd has left the bus")]
    Left,
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Bus(#[from] zbus::Error),
}

/// What came of [`Units::connect`].
#[derive(Debug)]
pub struct Connected {
    /// `None`: no service declares a unit that somebody could be asked about.
    pub units: Option<Units>,
    /// Why the unit of a service can't be followed now, by the service's name.
    pub cannot_see: BTreeMap<String, String>,
}

/// Follows the declared units until it is dropped.
#[derive(Debug)]
pub struct Units {
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

/// A unit that services declare.
#[derive(Debug, Clone, Default)]
struct Declared {
    unit: String,
    user: Option<String>,
    /// Services whose heartbeat is the unit's watchdog, and how often to look at its stamp.
    beating: Vec<String>,
    look_every: Option<Duration>,
}

impl Units {
    /// Begins to follow every declared unit. To be called within a Tokio runtime with time and I/O enabled.
    ///
    /// `address`: a D-Bus address to use in place of the system's and the users' buses. The system bus must be there
    /// now: a host does not begin to be systemd's later. A user's may come.
    pub fn connect(config: &Config, address: Option<&str>, read: ReadProcess) -> Connected {
        let mut cannot_see = BTreeMap::new();
        let mut by_user: BTreeMap<Option<&str>, BTreeMap<&str, Declared>> = BTreeMap::new();
        for s in &config.services {
            let Some(unit) = &s.unit else { continue };
            let declared = by_user
                .entry(s.user.as_deref())
                .or_default()
                .entry(unit)
                .or_default();
            declared.unit.clone_from(unit);
            declared.user.clone_from(&s.user);
            if let Some(h) = s.heartbeat.as_ref().filter(|h| h.notify == Some(true)) {
                let every = (h.stale_after / 3).max(SHORTEST_BEAT);
                declared.beating.push(s.name.clone());
                declared.look_every = Some(declared.look_every.map_or(every, |e| e.min(every)));
            }
        }
        let (tell, events) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        for (user, units) in by_user {
            let bus = Bus::of(user, address);
            let absent = match &bus {
                Ok(bus) => bus.absent(),
                Err(e) => Some(e.to_string()),
            };
            if let Some(why) = &absent {
                let concerned = |s: &&crate::config::Service| s.unit.is_some() && s.user.as_deref() == user;
                let names = config.services.iter().filter(concerned);
                cannot_see.extend(names.map(|s| (s.name.clone(), why.clone())));
            }
            if let Ok(bus) = bus
                && (absent.is_none() || bus.may_come())
            {
                let units: Vec<Declared> = units.into_values().collect();
                tasks.spawn(Follower::new(bus, units, tell.clone(), read).run());
            }
        }
        let units = (!tasks.is_empty()).then_some(Self {
            events,
            _tasks: tasks,
        });
        Connected { units, cannot_see }
    }

    /// The next [`What::Unit`] or [`What::Heartbeat`]: first how each declared unit is, then each change. Nothing is
    /// lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

/// Follows the units of one service manager over one connection after the other.
struct Follower {
    bus: Bus,
    units: Vec<Declared>,
    /// What was last told of each unit, and the watchdog's stamp (microseconds).
    told: Vec<Option<UnitState>>,
    beats: Vec<Option<u64>>,
    tell: mpsc::Sender<Event>,
    read: ReadProcess,
}

impl Follower {
    fn new(bus: Bus, units: Vec<Declared>, tell: mpsc::Sender<Event>, read: ReadProcess) -> Self {
        Self {
            bus,
            told: vec![None; units.len()],
            beats: vec![None; units.len()],
            units,
            tell,
            read,
        }
    }

    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = clock::now();
            let error = match Session::open(&self.bus, &self.units).await {
                Ok(session) => session.run(&mut self).await,
                Err(error) => error,
            };
            tracing::debug!(bus = ?self.bus, %error, "systemd can't be asked");
            self.tell_unknown(&error.to_string()).await;
            if clock::now().since(began) >= LASTING {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Said once for each time that a unit is lost from sight, whatever else goes wrong until it is seen again.
    async fn tell_unknown(&mut self, why: &str) {
        let at = clock::now();
        let blind: BTreeSet<usize> = (0..self.units.len())
            .filter(|i| self.told[*i].as_ref().is_none_or(|s| s.error.is_none()))
            .collect();
        for i in blind {
            let state = self.unknown(i, why);
            self.tell_state(i, at, state).await;
        }
    }

    fn unknown(&self, i: usize, why: &str) -> UnitState {
        UnitState {
            unit: self.units[i].unit.clone(),
            user: self.units[i].user.clone(),
            error: Some(why.to_owned()),
            ..UnitState::default()
        }
    }

    /// Hands on what has changed.
    async fn tell_state(&mut self, i: usize, at: Nanos, state: UnitState) {
        if self.told[i].as_ref() == Some(&state) {
            return;
        }
        self.told[i] = Some(state.clone());
        self.tell(at, What::Unit(state)).await;
    }

    async fn tell_beat(&mut self, i: usize, stamp: u64) {
        if self.beats[i] == Some(stamp) {
            return;
        }
        self.beats[i] = Some(stamp);
        let at = clock::now();
        let beat = (stamp > 0).then(|| clock::from_monotonic(Duration::from_micros(stamp)).min(at));
        for service in self.units[i].beating.clone() {
            self.tell(at, What::Heartbeat { service, beat }).await;
        }
    }

    async fn tell(&self, at: Nanos, what: What) {
        let event = Event {
            at,
            time_source: TimeSource::Observed,
            what,
        };
        // Nobody listens any more only when this task is about to be ended.
        _ = self.tell.send(event).await;
    }
}
