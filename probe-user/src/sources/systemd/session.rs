//! One connection to a service manager.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use zbus::{
    Connection, MatchRule, Message, MessageStream,
    export::futures_core::Stream,
    fdo::{self, DBusProxy},
    message::Type,
    proxy::CacheProperties,
    wire::{ObjectPath, OwnedObjectPath},
};

use super::{
    Declared, Follower, UnitsError,
    bus::Bus,
    proxy::{JobProxy, MANAGER, MANAGER_PATH, ManagerProxy, NAME, ServiceProxy, UnitProxy},
};
use crate::{
    clock::{self, Nanos},
    event::{UnitJob, UnitState},
};

const UNITS: &str = "/org/freedesktop/systemd1/unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const DBUS: &str = "org.freedesktop.DBus";
/// Up to so many units, each has a match rule of its own, and the others' changes wake nobody. A bus grants a
/// connection 512 rules.
const OWN_RULES: usize = 256;
/// An object's path is the unit's name with most characters as three.
const PATH_BYTES: usize = 1024;

pub(super) struct Session {
    connection: Connection,
    /// Everything that arrives, read all the time: a queue that fills up would hold up the answers to calls.
    messages: MessageStream,
    shared: Shared,
}

/// What the reader of signals and the asker have in common.
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Units to look at, by number.
    dirty: BTreeSet<usize>,
    /// systemd has read its files anew: names may lead elsewhere.
    reloaded: bool,
    by_path: BTreeMap<String, BTreeSet<usize>>,
    by_name: BTreeMap<String, BTreeSet<usize>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Connects and subscribes. What changes from here on is noticed.
    pub(super) async fn open(bus: &Bus, units: &[Declared]) -> Result<Self, UnitsError> {
        let connection = bus.connect().await?;
        let messages = MessageStream::from(&connection);
        let mut by_name: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (i, u) in units.iter().enumerate() {
            by_name.entry(u.unit.clone()).or_default().insert(i);
        }
        let session = Self {
            connection,
            messages,
            shared: Shared {
                state: Mutex::new(State {
                    reloaded: true,
                    by_name,
                    ..State::default()
                }),
                wake: Notify::new(),
            },
        };
        Ok(session)
    }

    /// Until the connection ends, or systemd leaves the bus.
    pub(super) async fn run(self, follower: &mut Follower) -> UnitsError {
        let Self {
            connection,
            messages,
            shared,
        } = self;
        tokio::select! {
            error = listen(messages, &shared) => error,
            result = ask(&connection, &shared, follower) => match result {
                Ok(never) => match never {},
                Err(error) => error,
            },
        }
    }
}

/// Notes which units signals are about.
async fn listen(mut messages: MessageStream, shared: &Shared) -> UnitsError {
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await;
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => return error.into(),
            None => return UnitsError::Closed,
        };
        if message.message_type() != Type::Signal {
            continue;
        }
        let mut state = shared.lock();
        match take(&message, &mut state) {
            Some(Heard::Left) => return UnitsError::Left,
            Some(Heard::Change) => shared.wake.notify_one(),
            None => {}
        }
    }
}

enum Heard {
    Change,
    Left,
}

/// What a signal means; `None` where it is of no interest, or no signal that one would send.
fn take(message: &Message, state: &mut State) -> Option<Heard> {
    let header = message.header();
    let body = message.body();
    let marked = match (header.interface()?.as_str(), header.member()?.as_str()) {
        (DBUS, "NameOwnerChanged") => {
            let (name, _, _): (&str, &str, &str) = body.deserialize().ok()?;
            // A new owner has to be subscribed to anew.
            return (name == NAME).then_some(Heard::Left);
        }
        (MANAGER, "JobNew") => {
            let (_, _, unit): (u32, ObjectPath<'_>, &str) = body.deserialize().ok()?;
            state.by_name.get(unit)
        }
        (MANAGER, "JobRemoved") => {
            let (_, _, unit, _): (u32, ObjectPath<'_>, &str, &str) = body.deserialize().ok()?;
            state.by_name.get(unit)
        }
        (MANAGER, "UnitNew" | "UnitRemoved") => {
            let (unit, _): (&str, ObjectPath<'_>) = body.deserialize().ok()?;
            state.by_name.get(unit)
        }
        (MANAGER, "Reloading") => {
            // `true` as it begins, `false` when it is over.
            let begins: bool = body.deserialize().ok()?;
            state.reloaded |= !begins;
            return (!begins).then_some(Heard::Change);
        }
        (PROPERTIES, "PropertiesChanged") => state.by_path.get(header.path()?.as_str()),
        _ => None,
    };
    let marked = marked?.clone();
    state.dirty.extend(marked);
    Some(Heard::Change)
}

enum Never {}

/// Asks systemd about units that something was heard of, and about stamps when they are due.
async fn ask(connection: &Connection, shared: &Shared, follower: &mut Follower) -> Result<Never, UnitsError> {
    let dbus = DBusProxy::new(connection).await?;
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(DBUS)
        .interface(DBUS)
        .member("NameOwnerChanged")
        .arg(0, NAME)
        .build()?;
    dbus.add_match_rule(owner).await.map_err(zbus::Error::from)?;
    let manager_signals = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(NAME)
        .interface(MANAGER)
        .path(MANAGER_PATH)
        .build()?;
    dbus.add_match_rule(manager_signals)
        .await
        .map_err(zbus::Error::from)?;
    let manager = ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    manager.subscribe().await?;
    let mut asker = Asker {
        connection,
        shared,
        dbus,
        manager,
        objects: vec![None; follower.units.len()],
        matched: BTreeSet::new(),
        beat_due: BTreeSet::new(),
    };
    for (i, u) in follower.units.iter().enumerate() {
        if u.look_every.is_some() {
            asker.beat_due.insert((clock::now(), i));
        }
    }
    loop {
        let (reloaded, dirty) = {
            let mut state = shared.lock();
            (
                std::mem::take(&mut state.reloaded),
                std::mem::take(&mut state.dirty),
            )
        };
        if reloaded {
            for i in 0..follower.units.len() {
                asker.load(i, follower).await?;
                asker.settle(i, follower).await?;
            }
            continue;
        }
        for i in &dirty {
            asker.settle(*i, follower).await?;
        }
        asker.look_at_beats(follower).await?;
        if dirty.is_empty() {
            asker.rest().await;
        }
    }
}

struct Asker<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    dbus: DBusProxy<'a>,
    manager: ManagerProxy<'a>,
    /// The object of each unit, or why it has none.
    objects: Vec<Option<Result<OwnedObjectPath, String>>>,
    /// Paths whose changes the bus was asked for; one that names all of them once they were too many.
    matched: BTreeSet<String>,
    beat_due: BTreeSet<(Nanos, usize)>,
}

impl Asker<'_> {
    /// Until something was heard, or a stamp is due.
    async fn rest(&self) {
        let heard = self.shared.wake.notified();
        match self.beat_due.first() {
            None => heard.await,
            Some((due, _)) => {
                // No more than that: on waking everything is looked at anyway.
                _ = tokio::time::timeout(due.since(clock::now()), heard).await;
            }
        }
    }

    /// Finds the unit's object, and has its changes sent before it is looked at.
    async fn load(&mut self, i: usize, follower: &Follower) -> Result<(), UnitsError> {
        let loaded = answered(self.manager.load_unit(&follower.units[i].unit).await)?;
        if let Ok(path) = &loaded {
            self.shared
                .lock()
                .by_path
                .entry(path.to_string())
                .or_default()
                .insert(i);
            self.match_changes(path, follower.units.len()).await?;
        }
        self.objects[i] = Some(loaded);
        Ok(())
    }

    async fn match_changes(&mut self, path: &OwnedObjectPath, units: usize) -> Result<(), UnitsError> {
        let all = units > OWN_RULES || self.matched.len() >= OWN_RULES;
        let wanted = if all { UNITS } else { path.as_str() };
        if wanted.len() > PATH_BYTES || self.matched.contains(UNITS) || self.matched.contains(wanted) {
            return Ok(());
        }
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(NAME)
            .interface(PROPERTIES)
            .member("PropertiesChanged");
        let rule = if all {
            rule.path_namespace(wanted)
        } else {
            rule.path(wanted)
        };
        self.dbus
            .add_match_rule(rule.build()?)
            .await
            .map_err(zbus::Error::from)?;
        self.matched.insert(wanted.to_owned());
        Ok(())
    }

    /// Looks at a unit and hands on how it is.
    async fn settle(&mut self, i: usize, follower: &mut Follower) -> Result<(), UnitsError> {
        let at = clock::now();
        let state = match self.objects[i].clone() {
            Some(Ok(path)) => answered(self.read(&path, i, follower).await)?,
            Some(Err(why)) => Err(why),
            None => return Ok(()),
        };
        let state = state.unwrap_or_else(|why| follower.unknown(i, &format!("systemd: {why}")));
        follower.tell_state(i, at, state).await;
        Ok(())
    }

    async fn read(&self, path: &OwnedObjectPath, i: usize, follower: &Follower) -> zbus::Result<UnitState> {
        let unit = UnitProxy::builder(self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let service = self.service(path).await?;
        let name = unit.id().await?;
        self.shared.lock().by_name.entry(name).or_default().insert(i);
        // The job first: when it is there and the main process after it, it came while that lived.
        let job = match unit.job().await? {
            (0, _) => None,
            (id, job) => self.job_kind(&job).await?.map(|kind| UnitJob { id, kind }),
        };
        let mut main_pid = main_pid(&service).await?;
        let mut process = main_pid.and_then(follower.read);
        // Of a process that was read between two answers that name it, the pid was its own all the time: systemd
        // collects it before the number is free.
        let again = self.main_pid_again(&service, main_pid).await?;
        if again != main_pid {
            main_pid = again;
            process = None;
        }
        Ok(UnitState {
            unit: follower.units[i].unit.clone(),
            user: follower.units[i].user.clone(),
            main_pid,
            exec_main_pid: of_service(service.exec_main_pid().await)?.filter(|pid| *pid > 0),
            process,
            active_state: unit.active_state().await?,
            sub_state: unit.sub_state().await?,
            result: of_service(service.result().await)?.unwrap_or_default(),
            n_restarts: of_service(service.n_restarts().await)?.unwrap_or_default(),
            job,
            error: None,
        })
    }

    async fn main_pid_again(
        &self,
        service: &ServiceProxy<'_>,
        before: Option<u32>,
    ) -> zbus::Result<Option<u32>> {
        match before {
            Some(_) => main_pid(service).await,
            None => Ok(None),
        }
    }

    async fn service<'p>(&self, path: &'p OwnedObjectPath) -> zbus::Result<ServiceProxy<'p>> {
        ServiceProxy::builder(self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// `None`: it was done meanwhile.
    async fn job_kind(&self, path: &OwnedObjectPath) -> zbus::Result<Option<String>> {
        let job = JobProxy::builder(self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        of_service(job.job_type().await)
    }

    async fn look_at_beats(&mut self, follower: &mut Follower) -> Result<(), UnitsError> {
        while let Some((due, i)) = self.beat_due.first().copied() {
            let now = clock::now();
            if due > now {
                break;
            }
            self.beat_due.pop_first();
            let every = follower.units[i].look_every.unwrap_or(Duration::MAX);
            self.beat_due.insert((now + every, i));
            let Some(Some(Ok(path))) = self.objects.get(i).cloned() else {
                continue;
            };
            let service = self.service(&path).await?;
            if let Ok(stamp) = answered(service.watchdog_timestamp_monotonic().await)? {
                follower.tell_beat(i, stamp).await;
            }
        }
        Ok(())
    }
}

async fn main_pid(service: &ServiceProxy<'_>) -> zbus::Result<Option<u32>> {
    let pid = of_service(service.main_pid().await)?;
    Ok(pid.filter(|pid| *pid > 0))
}

/// `None` where the object has no such property: not every unit is a service, and a job is gone when it is done.
fn of_service<T>(result: zbus::Result<T>) -> zbus::Result<Option<T>> {
    let unknown = [
        "org.freedesktop.DBus.Error.UnknownInterface",
        "org.freedesktop.DBus.Error.UnknownProperty",
        "org.freedesktop.DBus.Error.UnknownObject",
        "org.freedesktop.DBus.Error.UnknownMethod",
    ];
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error_name(&error).is_some_and(|name| unknown.contains(&name.as_str())) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells what systemd answered, be it that it refuses, from not having been answered.
fn answered<T>(result: zbus::Result<T>) -> Result<Result<T, String>, UnitsError> {
    // The bus says these in systemd's place.
    let nobody = [
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.Disconnected",
        "org.freedesktop.DBus.Error.Timeout",
        "org.freedesktop.DBus.Error.TimedOut",
    ];
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error_name(&error) {
            Some(name) if !nobody.contains(&name.as_str()) => Ok(Err(error.to_string())),
            _ => Err(error.into()),
        },
    }
}

/// The name of the error that a peer answered with.
fn error_name(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, ..) => Some(name.to_string()),
        zbus::Error::FDO(e) => match &**e {
            fdo::Error::ZBus(inner) => error_name(inner),
            e => Some(zbus::DBusError::name(e).to_string()),
        },
        _ => None,
    }
}
