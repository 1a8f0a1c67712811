//! What goes on meanwhile, and is nobody's fault: children, connections, sockets of strangers, signals that are caught.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use probe_tests::{Daemon, Sandbox};

pub(crate) const NAME: &str = "churned";
const PAUSE: Duration = Duration::from_millis(60);
const FORKS: u64 = 10;
const SIGNALS: u64 = 5;

/// What has happened so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) forks: u64,
    pub(crate) strangers: u64,
    pub(crate) signals: u64,
    pub(crate) connections: u64,
    pub(crate) sockets: u64,
}

/// Everything under one lock: whoever has it has stopped the churn.
struct Churned {
    daemon: Daemon,
    path: PathBuf,
    beat: PathBuf,
    directory: PathBuf,
    counts: Counts,
}

pub(crate) struct Churn {
    inner: Arc<Mutex<Churned>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(sandbox: &Sandbox) -> (Self, String) {
        let exe = Daemon::install(sandbox, NAME);
        let path = sandbox.path("churned.sock");
        let beat = sandbox.write("beat", "");
        let more = format!(
            "listen = [\"unix:{}\"]\nheartbeat = {{ file = {beat:?}, stale_after = \"60s\" }}\n",
            path.display()
        );
        let toml = Daemon::service(NAME, &exe, &more);
        let daemon = Daemon::at(&exe)
            .unix(&path)
            .on("USR1=catch")
            .on("USR2=catch")
            .start();
        let inner = Arc::new(Mutex::new(Churned {
            daemon,
            path,
            beat,
            directory: sandbox.dir().to_owned(),
            counts: Counts::default(),
        }));
        let end = Arc::new(AtomicBool::new(false));
        let (of_thread, ends) = (Arc::clone(&inner), Arc::clone(&end));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                of_thread.lock().unwrap_or_else(PoisonError::into_inner).round();
                thread::sleep(PAUSE);
            }
        });
        let churn = Self {
            inner,
            end,
            thread: Some(thread),
        };
        (churn, toml)
    }

    /// Does something while nothing else goes on.
    pub(crate) fn while_still<T>(&self, f: impl FnOnce(&mut Daemon, &mut Counts) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Churned { daemon, counts, .. } = &mut *inner;
        f(daemon, counts)
    }

    /// Ends it; fails where a round has.
    pub(crate) fn end(mut self) -> Counts {
        self.end.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the churn went on to the end");
        self.while_still(|_, counts| *counts)
    }
}

impl Churned {
    fn round(&mut self) {
        self.daemon.tell(&format!("burst {FORKS}"));
        self.counts.forks += FORKS;
        assert!(Command::new("/bin/true").status().expect("true").success());
        self.counts.strangers += 1;
        let pid = Pid::from_raw(self.daemon.pid().cast_signed());
        for _ in 0..SIGNALS {
            kill(pid, Signal::SIGUSR1).expect("a signal");
            self.counts.signals += 1;
        }
        let mut client = UnixStream::connect(&self.path).expect("connect");
        self.daemon.tell(&format!("accept unix:{}", self.path.display()));
        _ = client.write(b"x");
        self.counts.connections += 1;
        self.strange_sockets();
        fs::write(&self.beat, "x").expect("beat");
    }

    /// Sockets that nobody declared, beside those that somebody did.
    fn strange_sockets(&mut self) {
        let path: &Path = &self.directory.join("stranger.sock");
        drop(UnixListener::bind(path).expect("bind"));
        fs::remove_file(path).expect("unlink");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        drop((listener.accept().expect("accept"), client));
        self.counts.sockets += 2;
    }
}
