//! A running `probe watch` that a daemon tells what happens.

use std::{
    path::Path,
    process::{ChildStderr, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::process::Signal;

use crate::{
    ask,
    clock::{Deadline, patience},
    log::{Line, Log},
    process::Proc,
};

/// `probe watch`, attached. It is killed when this is dropped.
#[derive(Debug)]
pub struct Attached {
    proc: Proc,
    log: Arc<Log>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Attached {
    /// Returns once it has said what it watches.
    #[track_caller]
    pub fn to(socket: &Path, args: &[&str]) -> Self {
        Self::start(socket, &[&["--json"], args].concat())
    }

    /// The same with lines for a person.
    #[track_caller]
    pub fn for_people(socket: &Path, args: &[&str]) -> Self {
        Self::start(socket, args)
    }

    #[track_caller]
    fn start(socket: &Path, args: &[&str]) -> Self {
        let mut proc = Proc::spawn(
            ask::probe(&["watch", "--socket"])
                .arg(socket)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let out = proc.child().stdout.take().expect("piped");
        let err = proc.child().stderr.take().expect("piped");
        let (log, stderr) = (Arc::new(Log::default()), Arc::default());
        let filled = Arc::clone(&log);
        let readers = vec![
            thread::spawn(move || filled.fill(out)),
            collect(err, Arc::clone(&stderr)),
        ];
        let attached = Self {
            proc,
            log,
            stderr,
            readers,
        };
        attached.expect("its first line", |_| true);
        attached
    }

    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.proc.signal(signal);
    }

    pub fn lines(&self) -> Vec<Line> {
        self.log.lines()
    }

    /// Waits for a line.
    #[track_caller]
    pub fn expect(&self, what: &str, test: impl Fn(&Line) -> bool) -> Line {
        self.wait(what, |lines| lines.iter().find(|l| test(l)).cloned())
    }

    /// Waits until something can be made of all lines so far.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, find: impl Fn(&[Line]) -> Option<T>) -> T {
        match self.log.wait(0, Deadline::after(patience()), find) {
            Ok(found) => found,
            Err(e) => panic!(
                "{e:?}: {what}\n--- it printed:\n{}--- and on standard error:\n{}",
                self.lines()
                    .iter()
                    .flat_map(|l| [&l.raw, "\n"])
                    .collect::<String>(),
                self.said()
            ),
        }
    }

    /// What it said on standard error so far.
    pub fn said(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it with SIGTERM. Returns all lines.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Line> {
        self.proc.signal(Signal::TERM);
        let status = self.proc.wait();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader");
        }
        assert!(status.success(), "{status}: {}", self.said());
        self.lines()
    }
}

fn collect(mut from: ChildStderr, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    use std::io::Read;
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            let mut text = to.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    })
}
