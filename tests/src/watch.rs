//! A running `probe watch --json --record`.

use std::{
    cell::Cell,
    collections::BTreeSet,
    env, fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::process::Signal;

use crate::{
    ask,
    binaries::{probe_binary, test_name},
    clock::{Deadline, patience},
    daemon::Daemon,
    log::{Finding, Line, Log, NotSeen},
    process::{self, Proc},
    sandbox::Sandbox,
    sentinel::{self, Sentinel},
    stage::MARK,
};

/// `probe watch`, running. A test ends with [`Watch::stop`], which also replays the recording.
#[derive(Debug)]
pub struct Watch {
    proc: Proc,
    log: Arc<Log>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    trace: PathBuf,
    sentinel: Option<Sentinel>,
    /// Lines before this one do not count any more.
    from: Cell<usize>,
    ended: bool,
    /// Keeps the directory as long as it records there.
    _sandbox: Sandbox,
}

impl Watch {
    /// Watches what `config`, the text of a configuration file, declares. Returns once probe says that it watches.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, config: &str) -> Self {
        Self::declared(sandbox, config, Sentinel::new(sandbox, None), &tier())
    }

    /// The same in this tier, whatever the others run in.
    #[track_caller]
    pub fn start_in(tier: &str, sandbox: &Sandbox, config: &str) -> Self {
        let tier = ["--tier".to_owned(), tier.to_owned()];
        Self::declared(sandbox, config, Sentinel::new(sandbox, None), &tier)
    }

    /// For a configuration whose thresholds are longer than usual, but shorter than this time.
    #[track_caller]
    pub fn start_within(sandbox: &Sandbox, config: &str, longer: &str) -> Self {
        Self::declared(sandbox, config, Sentinel::new(sandbox, Some(longer)), &tier())
    }

    #[track_caller]
    fn declared(sandbox: &Sandbox, config: &str, sentinel: Sentinel, tier: &[String]) -> Self {
        let config = format!("{config}{}", sentinel.toml());
        let services = config.matches("[[service]]").count();
        let file = sandbox.write("probe.toml", &config);
        let mut watch = Self::spawn(sandbox, tier, &["--config", &file.display().to_string()]);
        watch.sentinel = Some(sentinel);
        watch.wait_ready(services);
        watch
    }

    /// Watches what the command line declares.
    #[track_caller]
    pub fn with(sandbox: &Sandbox, args: &[&str]) -> Self {
        let watch = Self::spawn(sandbox, &tier(), args);
        watch.wait_ready(1);
        watch
    }

    fn spawn(sandbox: &Sandbox, tier: &[String], args: &[&str]) -> Self {
        let trace = sandbox.path("trace.jsonl");
        let mut command = Command::new(probe_binary());
        command
            .args(["watch", "--json", "--record"])
            .arg(&trace)
            .args(tier)
            .args(args);
        let mut proc = Proc::spawn(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let out = proc.child().stdout.take().expect("piped");
        let mut err = proc.child().stderr.take().expect("piped");
        let (log, stderr) = (Arc::new(Log::default()), Arc::new(Mutex::new(String::new())));
        let (log2, stderr2) = (Arc::clone(&log), Arc::clone(&stderr));
        let readers = vec![
            thread::spawn(move || log2.fill(out)),
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = err.read(&mut bytes) {
                    let mut text = stderr2.lock().unwrap_or_else(PoisonError::into_inner);
                    text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                }
            }),
        ];
        Self {
            proc,
            log,
            stderr,
            readers,
            trace,
            sentinel: None,
            from: Cell::new(0),
            ended: false,
            _sandbox: sandbox.clone(),
        }
    }

    #[track_caller]
    fn wait_ready(&self, services: usize) {
        self.wait(&format!("{services} line(s) of type watching"), |lines| {
            (lines.iter().filter(|l| l.kind() == "watching").count() >= services).then_some(())
        });
    }

    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    /// Where it records.
    pub fn trace(&self) -> &Path {
        &self.trace
    }

    /// Waits for a finding to open.
    #[track_caller]
    pub fn expect(&self, kind: &str, service: &str) -> Finding {
        self.expect_where(kind, service, "of any kind", |_| true)
    }

    /// Waits for a finding to open for which `test` holds; `what` says in words what that is.
    #[track_caller]
    pub fn expect_where(
        &self,
        kind: &str,
        service: &str,
        what: &str,
        test: impl Fn(&Finding) -> bool,
    ) -> Finding {
        self.wait(&format!("{kind} for {service} ({what})"), |lines| {
            findings(lines).find(|f| f.state == "opened" && f.kind == kind && f.service == service && test(f))
        })
    }

    /// Waits for a finding of whatever service to open; for services that probe named itself.
    #[track_caller]
    pub fn expect_any(&self, kind: &str, what: &str, test: impl Fn(&Finding) -> bool) -> Finding {
        self.wait(&format!("{kind} ({what})"), |lines| {
            findings(lines).find(|f| f.state == "opened" && f.kind == kind && test(f))
        })
    }

    /// Waits for a finding to be resolved.
    #[track_caller]
    pub fn expect_resolved(&self, kind: &str, service: &str) -> Finding {
        self.wait(&format!("the end of {kind} for {service}"), |lines| {
            findings(lines).find(|f| f.state == "resolved" && f.kind == kind && f.service == service)
        })
    }

    /// Waits for an event.
    #[track_caller]
    pub fn expect_event(&self, kind: &str, service: &str, what: &str, test: impl Fn(&Line) -> bool) -> Line {
        self.wait(&format!("an event {kind} of {service} ({what})"), |lines| {
            let mut events = lines.iter().filter(|l| l.kind() == "event");
            events
                .find(|l| l.value["kind"] == kind && l.value["service"] == service && test(l))
                .cloned()
        })
    }

    /// Waits for a line of this type: `lost`, `watching`.
    #[track_caller]
    pub fn expect_line(&self, kind: &str, what: &str, test: impl Fn(&Line) -> bool) -> Line {
        self.wait(&format!("a line of type {kind} ({what})"), |lines| {
            lines.iter().find(|l| l.kind() == kind && test(l)).cloned()
        })
    }

    /// Everything printed so far that still counts.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lines().split_off(self.from.get())
    }

    /// From here on only what comes later counts.
    pub fn forget(&self) {
        self.from.set(self.log.len());
    }

    /// Shows that no finding opened, and that nothing was lost: waits until the sentinel's has come.
    #[track_caller]
    pub fn expect_nothing(&self) {
        self.expect_exactly(&[]);
    }

    /// Starts the sentinel, for a test that goes on doing something until its finding has come.
    #[track_caller]
    pub fn begin_sentinel(&self) -> Daemon {
        let sentinel = self.sentinel.as_ref().expect("a watch from a configuration file");
        sentinel.start()
    }

    /// Whether the finding of that sentinel has come.
    pub fn sentinel_came(&self, sentinel: &Daemon) -> bool {
        self.sentinel_at(sentinel).is_some()
    }

    /// The findings that opened before that sentinel's came.
    pub fn opened_before(&self, sentinel: &Daemon) -> Vec<Finding> {
        let end = self
            .sentinel_at(sentinel)
            .expect("the sentinel's finding has come");
        findings(&self.lines()[..end])
            .filter(|f| f.state == "opened")
            .collect()
    }

    fn sentinel_at(&self, sentinel: &Daemon) -> Option<usize> {
        // An earlier sentinel's finding names an earlier process.
        let pid = sentinel.pid().to_string();
        self.lines().iter().position(|l| {
            l.finding().is_some_and(|f| {
                f.service == sentinel::SERVICE && f.kind == "not-listening" && f.summary.contains(&pid)
            })
        })
    }

    /// Shows that exactly these findings (kind, service) opened since [`Self::forget`], in any order, however often, and
    /// that nothing was lost.
    #[track_caller]
    pub fn expect_exactly(&self, expected: &[(&str, &str)]) {
        let silent = self.begin_sentinel();
        let pid = silent.pid();
        self.expect_where(
            "not-listening",
            sentinel::SERVICE,
            &format!("process {pid}"),
            |f| f.summary.contains(&pid.to_string()),
        );
        silent.kill("TERM");
        silent.wait_gone();
        let lines = self.lines();
        let opened: BTreeSet<_> = findings(&lines)
            .filter(|f| f.state == "opened" && f.service != sentinel::SERVICE)
            .map(|f| (f.kind, f.service))
            .collect();
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|(k, s)| ((*k).to_owned(), (*s).to_owned()))
            .collect();
        if opened != expected {
            self.fail(&format!(
                "expected exactly these findings: {expected:?}\nbut these opened: {opened:?}"
            ));
        }
        if lines.iter().any(|l| l.kind() == "lost") {
            self.fail("events were lost");
        }
    }

    /// Does something while probe is stopped, so that it looks only afterwards.
    #[track_caller]
    pub fn while_paused<T>(&self, f: impl FnOnce() -> T) -> T {
        self.proc.signal(Signal::STOP);
        crate::until("probe is stopped", || process::state(self.pid()) == Some('T'));
        let result = f();
        self.proc.signal(Signal::CONT);
        result
    }

    /// Ends probe with SIGTERM, replays its recording, and compares the findings byte for byte.
    #[track_caller]
    pub fn stop(mut self) {
        self.proc.signal(Signal::TERM);
        self.finish(|_| true);
    }

    /// The same for a watch that was told to print only some findings.
    #[track_caller]
    pub fn stop_filtered(mut self, printed: impl Fn(&Finding) -> bool) {
        self.proc.signal(Signal::TERM);
        self.finish(printed);
    }

    /// Waits for the end of a watch that ends by itself.
    #[track_caller]
    pub fn ends_by_itself(mut self) {
        self.finish(|_| true);
    }

    #[track_caller]
    fn finish(&mut self, printed: impl Fn(&Finding) -> bool) {
        if !self.proc.ends_in_time() {
            self.fail(&format!(
                "probe still runs {:?} after it should have ended",
                patience()
            ));
        }
        let status = self.proc.wait();
        self.ended = true;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if status.code() != Some(0) {
            self.fail(&format!(
                "probe ended with {}, expected exit code 0",
                process::describe(status)
            ));
        }
        if let Some(line) = self.log.lines().iter().find(|l| l.kind().is_empty()) {
            self.fail(&format!("this line is no JSON object with a type: {}", line.raw));
        }
        let watched: Vec<String> = finding_lines(&self.log.lines());
        self.keep();
        self.tell_findings();
        let replayed = replay(&self.trace);
        let replayed: Vec<String> = replayed
            .into_iter()
            .filter(|l| l.finding().is_some_and(|f| printed(&f)))
            .map(|l| l.raw)
            .collect();
        assert_eq!(
            replayed, watched,
            "left: findings of `probe replay`; right: what `probe watch` printed"
        );
    }

    /// Keeps the recording where `PROBE_KEEP_TRACES` says, under the test's name: a fixture for `replay.rs`.
    fn keep(&self) {
        let Some(dir) = env::var_os("PROBE_KEEP_TRACES").map(PathBuf::from) else {
            return;
        };
        let name = test_name();
        let kept = dir.join(format!("{name}.jsonl"));
        fs::create_dir_all(&dir)
            .and_then(|()| fs::read_to_string(&self.trace))
            .and_then(|trace| fs::write(&kept, without_machine_paths(trace)))
            // A finding's id comes from its content, so other paths make other ids.
            .map(|()| text(&finding_lines(&replay(&kept))))
            .and_then(|findings| fs::write(dir.join(format!("{name}.expected.jsonl")), findings))
            .unwrap_or_else(|e| panic!("cannot keep the recording in {}: {e}", dir.display()));
    }

    /// Adds what it found to the file that `PROBE_TEST_FINDINGS` names: whoever runs the same tests on several tiers or
    /// kernels compares.
    fn tell_findings(&self) {
        let Some(file) = env::var_os("PROBE_TEST_FINDINGS") else {
            return;
        };
        let found: BTreeSet<String> = findings(&self.log.lines())
            // The mark's file is stale from the end of its socket until the test removes it.
            .filter(|f| f.state == "opened" && f.service != MARK)
            .map(|f| format!("{} {}", f.kind, f.service))
            .collect();
        let found: Vec<String> = found.into_iter().collect();
        let line = format!("{}: {}\n", test_name(), found.join(", "));
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
    }

    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, find: impl Fn(&[Line]) -> Option<T>) -> T {
        match self.log.wait(self.from.get(), Deadline::after(patience()), find) {
            Ok(found) => found,
            Err(NotSeen::InTime) => self.fail(&format!("waited {:?} in vain for {what}", patience())),
            Err(NotSeen::BeforeTheEnd) => self.fail(&format!("probe ended before {what}")),
        }
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.everything())
    }

    /// All that probe said.
    fn everything(&self) -> String {
        let lines: Vec<String> = self.log.lines().into_iter().map(|l| l.raw).collect();
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        // What a failure needs most, and the sandbox takes with it.
        if let Some(dir) = env::var_os("PROBE_KEEP_TRACES").map(PathBuf::from) {
            let kept = dir.join(format!("failed.{}.{}.jsonl", test_name(), self.pid()));
            // It is written in pieces; the last one when probe ends.
            self.proc.signal(Signal::TERM);
            self.proc.ends_in_time();
            if let Err(e) = fs::copy(&self.trace, &kept) {
                eprintln!("the recording cannot be kept as {}: {e}", kept.display());
            }
        }
        format!(
            "--- probe printed:\n{}--- and on standard error:\n{stderr}---",
            text(&lines)
        )
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        assert!(
            self.ended || thread::panicking(),
            "a test must end with Watch::stop, which replays the recording"
        );
    }
}

/// The tier that `PROBE_TEST_TIER` asks for.
pub(crate) fn tier() -> Vec<String> {
    env::var("PROBE_TEST_TIER").map_or(Vec::new(), |tier| vec!["--tier".to_owned(), tier])
}

/// Nothing of the machine that recorded it stands in a fixture.
fn without_machine_paths(trace: String) -> String {
    let test = env::current_exe().expect("path of the test executable");
    let target = test.ancestors().nth(3).map(Path::to_owned);
    let named = |name: &str| env::var_os(name).map(PathBuf::from);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let replacements = [
        (named("CARGO"), "/usr/bin/cargo"),
        (target, "/build/target"),
        (source.parent().map(Path::to_owned), "/build"),
        (named("CARGO_HOME"), "/home/.cargo"),
        (named("HOME"), "/home"),
    ];
    replacements
        .into_iter()
        .filter_map(|(path, to)| Some((path?.to_str()?.to_owned(), to)))
        .filter(|(path, _)| path.len() > 1)
        .fold(trace, |text, (path, to)| {
            text.replace(&format!("\"{path}"), &format!("\"{to}"))
        })
}

/// The lines of `probe replay --json FILE`.
pub fn replay(trace: &Path) -> Vec<Line> {
    let output = ask::run(ask::probe(&["replay", "--json"]).arg(trace));
    assert_eq!(
        output.code,
        Some(0),
        "probe replay --json {}: {}",
        trace.display(),
        output.stderr
    );
    output.stdout.lines().map(|l| Line::parse(l.to_owned())).collect()
}

/// The finding lines, as they were printed.
pub fn finding_lines(lines: &[Line]) -> Vec<String> {
    lines
        .iter()
        .filter(|l| l.kind() == "finding")
        .map(|l| l.raw.clone())
        .collect()
}

fn findings(lines: &[Line]) -> impl Iterator<Item = Finding> {
    lines.iter().filter_map(Line::finding)
}

fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|l| [l.as_str(), "\n"]).collect()
}
