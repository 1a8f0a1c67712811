//! A bus of our own, and a peer in systemd's place with as much of its interface as is used.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use zbus::{Connection, connection::Builder, fdo, interface, wire::OwnedObjectPath};

pub(super) const UNIT: &str = "d@1.service";
/// systemd's own name of the unit; [`UNIT`] is an alias of it.
pub(super) const ID: &str = "real.service";
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/real_2eservice";
const JOB_PATH: &str = "/org/freedesktop/systemd1/job/812";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A `dbus-daemon` at a path of its own; ends with the value.
pub(super) struct TestBus {
    directory: PathBuf,
    daemon: Option<Child>,
}

impl TestBus {
    /// `None`: there is no `dbus-daemon` here.
    pub(super) fn start() -> Option<Self> {
        if let Err(e) = Command::new("dbus-daemon")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
        {
            eprintln!("skipped: dbus-daemon: {e}: apt-get install dbus-daemon");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("probe-bus-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut bus = Self {
            directory,
            daemon: None,
        };
        let config = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>",
            bus.path().display()
        );
        std::fs::write(bus.config(), config).unwrap();
        bus.run();
        Some(bus)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("bus")
    }

    fn config(&self) -> PathBuf {
        self.directory.join("bus.conf")
    }

    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.path().display())
    }

    pub(super) fn run(&mut self) {
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", self.config().display()))
            .args(["--nofork", "--print-address"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It complains of limits that it may not raise.
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("dbus-daemon: {e}: apt-get install dbus-daemon"));
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        self.daemon = Some(daemon);
        assert!(address.starts_with("unix:"), "dbus-daemon listens: {address:?}");
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        self.kill();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// How the peer's one unit is.
#[derive(Debug, Clone)]
pub(super) struct UnitNow {
    pub(super) active_state: &'static str,
    pub(super) sub_state: &'static str,
    pub(super) main_pid: u32,
    pub(super) result: &'static str,
    pub(super) n_restarts: u32,
    pub(super) job: Option<&'static str>,
    pub(super) watchdog: u64,
}

impl UnitNow {
    pub(super) fn running() -> Self {
        Self {
            active_state: "active",
            sub_state: "running",
            main_pid: std::process::id(),
            result: "success",
            n_restarts: 0,
            job: None,
            watchdog: 0,
        }
    }
}

type Now = Arc<Mutex<UnitNow>>;

pub(super) struct Systemd {
    connection: Connection,
    now: Now,
}

impl Systemd {
    pub(super) async fn start(bus: &TestBus, now: UnitNow) -> Self {
        Self::start_as(bus, now, Kind::Service).await
    }

    pub(super) async fn start_as(bus: &TestBus, now: UnitNow, kind: Kind) -> Self {
        let now = Arc::new(Mutex::new(now));
        let mut builder = Builder::address(bus.address().as_str())
            .serve_at(
                MANAGER_PATH,
                Manager {
                    answers: kind != Kind::Stuck,
                },
            )
            .serve_at(UNIT_PATH, Unit(now.clone()))
            .serve_at(JOB_PATH, Job(now.clone()));
        if kind != Kind::Socket {
            builder = builder.serve_at(UNIT_PATH, Service(now.clone()));
        }
        let connection = builder.name("org.freedesktop.systemd1").build();
        let connection = tokio::time::timeout(super::LIMIT, connection)
            .await
            .unwrap()
            .unwrap();
        Self { connection, now }
    }

    pub(super) fn set_silently(&self, change: impl FnOnce(&mut UnitNow)) {
        change(&mut self.now.lock().unwrap());
    }

    /// Changes the unit, and says that it has changed.
    pub(super) async fn set(&self, change: impl FnOnce(&mut UnitNow)) {
        self.set_silently(change);
        let nothing: std::collections::HashMap<&str, &str> = [].into();
        let interface = "org.freedesktop.systemd1.Unit";
        // systemd, too, invalidates rather than tells some of its properties.
        let body = (interface, nothing, ["ActiveState", "SubState"].as_slice());
        let properties = "org.freedesktop.DBus.Properties";
        self.signal(UNIT_PATH, properties, "PropertiesChanged", &body)
            .await;
    }

    pub(super) async fn job_new(&self, kind: &'static str) {
        self.set_silently(|u| u.job = Some(kind));
        self.signal(MANAGER_PATH, MANAGER, "JobNew", &(812_u32, job_path(), ID))
            .await;
    }

    pub(super) async fn job_removed(&self) {
        self.set_silently(|u| u.job = None);
        let body = (812_u32, job_path(), ID, "done");
        self.signal(MANAGER_PATH, MANAGER, "JobRemoved", &body).await;
    }

    pub(super) async fn reload(&self) {
        self.signal(MANAGER_PATH, MANAGER, "Reloading", &true).await;
        self.signal(MANAGER_PATH, MANAGER, "Reloading", &false).await;
    }

    pub(super) async fn unit_new(&self) {
        let path = OwnedObjectPath::try_from(UNIT_PATH).unwrap();
        self.signal(MANAGER_PATH, MANAGER, "UnitNew", &(ID, path)).await;
    }

    async fn signal<B>(&self, path: &str, interface: &str, name: &str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .emit_signal(None::<&str>, path, interface, name, body)
            .await
            .unwrap();
    }

    /// Gives up the name, as when systemd executes itself anew.
    pub(super) async fn leave(self) {
        self.connection
            .release_name("org.freedesktop.systemd1")
            .await
            .unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Service,
    /// A unit that is no service.
    Socket,
    /// systemd that answers no call.
    Stuck,
}

fn job_path() -> OwnedObjectPath {
    OwnedObjectPath::try_from(JOB_PATH).unwrap()
}

struct Manager {
    answers: bool,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    async fn load_unit(&self, name: &str) -> fdo::Result<OwnedObjectPath> {
        if !self.answers {
            std::future::pending::<()>().await;
        }
        match name {
            UNIT | ID => Ok(OwnedObjectPath::try_from(UNIT_PATH).unwrap()),
            _ => Err(fdo::Error::InvalidArgs(format!("unit name {name} is not valid"))),
        }
    }
}

struct Unit(Now);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn id(&self) -> String {
        ID.into()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.lock().unwrap().active_state.into()
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.0.lock().unwrap().sub_state.into()
    }

    #[zbus(property)]
    fn job(&self) -> (u32, OwnedObjectPath) {
        match self.0.lock().unwrap().job {
            Some(_) => (812, job_path()),
            None => (0, OwnedObjectPath::try_from("/").unwrap()),
        }
    }
}

struct Service(Now);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0.lock().unwrap().main_pid
    }

    #[zbus(property, name = "ExecMainPID")]
    fn exec_main_pid(&self) -> u32 {
        std::process::id()
    }

    #[zbus(property)]
    fn result(&self) -> String {
        self.0.lock().unwrap().result.into()
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.0.lock().unwrap().n_restarts
    }

    #[zbus(property)]
    fn watchdog_timestamp_monotonic(&self) -> u64 {
        self.0.lock().unwrap().watchdog
    }
}

struct Job(Now);

#[interface(name = "org.freedesktop.systemd1.Job")]
impl Job {
    #[zbus(property)]
    fn job_type(&self) -> fdo::Result<String> {
        let kind = self.0.lock().unwrap().job;
        kind.map(str::to_owned)
            .ok_or_else(|| fdo::Error::UnknownObject("no such job".into()))
    }
}

/// Listens where a user's bus would.
pub(super) fn listener(directory: &Path) -> std::os::unix::net::UnixListener {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("bus");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    listener
}
