//! What only a machine of its own can be put through: its clock is set, it sleeps, its limits are taken away. `cargo xtask vm`
//! runs this; elsewhere everybody would feel it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use probe_tests::{Daemon, Probed, Sandbox, run, table::row, until};
use serde_json::{Value, json};

const TABLE: &str = "faults";
const NAME: &str = "annad";
const DAY: i64 = 86_400;

/// Whether the machine is this test's.
fn is_own() -> bool {
    let own = env::var_os("PROBE_TEST_MACHINE").is_some();
    if !own {
        eprintln!("skipped: it would disturb everybody on this machine; `cargo xtask vm` has one for it");
    }
    own
}

/// Writes to a file twice a second, until it is dropped.
struct Beat {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    fn start(path: &Path) -> Self {
        let (path, ends) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let of_thread = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !of_thread.load(Ordering::Relaxed) {
                fs::write(&path, "").expect("the heartbeat");
                thread::sleep(Duration::from_millis(500));
            }
        });
        Self {
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A service with everything that a clock can be wrong about.
struct Scene {
    probed: Probed,
    daemon: Daemon,
    by_file: Daemon,
    beat: Option<Beat>,
    exe: PathBuf,
    sandbox: Sandbox,
}

impl Scene {
    fn new(stale_after: &str) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, NAME);
        let beat = sandbox.path("beat");
        let daemon = start(&exe, &sandbox);
        let more = format!(
            "listen = [\"unix:{}\"]\npid_file = {:?}\nheartbeat = {{ file = {beat:?}, stale_after = {stale_after:?} }}\n",
            sandbox.path("annad.sock").display(),
            sandbox.path("annad.pid"),
        );
        // Known by nothing but its file, whose time must not come before its process's.
        let file = sandbox.path("by-file.pid");
        let by_file = Daemon::at(&Daemon::install(&sandbox, "by-file"))
            .pid_file(&file)
            .start();
        let other = format!("[[service]]\nname = \"by-file\"\npid_file = {file:?}\n");
        let config = format!("{}{other}", Daemon::service(NAME, &exe, &more));
        let beat = Some(Beat::start(&beat));
        let scene = Self {
            probed: Probed::with(&sandbox, "settle_every = \"1s\"\n", &config),
            daemon,
            by_file,
            beat,
            exe,
            sandbox,
        };
        scene.expect_well();
        scene
    }

    #[track_caller]
    fn expect_well(&self) {
        until(&format!("it is well\n{}", self.probed.log()), || {
            let s = self.probed.service(NAME);
            let other = self.probed.service("by-file");
            s["main"]["pid"] == self.daemon.pid()
                && s["ready"] == true
                && s["verdict"] == "ok"
                && other["main"]["pid"] == self.by_file.pid()
                && other["verdict"] == "ok"
        });
    }

    /// Waits until it has looked at everything a few times.
    #[track_caller]
    fn until_settled(&self) {
        let snapshots = || {
            let metrics = self.probed.metrics();
            let count = metrics
                .lines()
                .find_map(|l| l.strip_prefix("probe_snapshot_seconds_count"));
            let count = count.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
            count.expect("the number of snapshots")
        };
        let before = snapshots();
        until("everything was looked at", || snapshots() >= before + 3.0);
    }

    /// Every finding that was ever opened, as `SERVICE KIND`.
    fn opened(&self) -> Vec<String> {
        let output = self.probed.ask(&["history", "--json", "--only", "finding"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let lines = output.stdout.lines().map(|l| {
            let line: Value = serde_json::from_str(l).expect("JSON");
            line
        });
        let opened = lines.filter(|l| l["state"] == "opened");
        let text = |l: &Value, name: &str| l[name].as_str().unwrap_or_default().to_owned();
        let mut all: Vec<_> = opened
            .map(|l| format!("{} {}", text(&l, "service"), text(&l, "kind")))
            .collect();
        all.sort();
        all
    }

    #[track_caller]
    fn expect(&self, kind: &str) -> Value {
        self.probed.finding(NAME, kind)
    }
}

fn start(exe: &Path, sandbox: &Sandbox) -> Daemon {
    let path = sandbox.path("annad.sock");
    _ = fs::remove_file(&path);
    Daemon::at(exe)
        .unix(&path)
        .pid_file(&sandbox.path("annad.pid"))
        .start()
}

fn date(args: &[&str]) -> String {
    let output = run(Command::new("date").arg("-u").args(args));
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout.trim().to_owned()
}

#[test]
fn a_machine_whose_clock_is_set_by_a_day_makes_no_finding_and_hides_none() {
    if !is_own() {
        return;
    }
    let mut scene = Scene::new("20s");
    let mut expected = Vec::new();
    for step in [DAY, -DAY, -DAY, DAY] {
        let now: i64 = date(&["+%s"]).parse().expect("a number");
        date(&["-s", &format!("@{}", now + step)]);
        scene.until_settled();
        assert_eq!(
            scene.opened(),
            expected,
            "after a step by {step} s\n{}",
            scene.probed.log()
        );
        scene.expect_well();
        // What happens now is found, at the time that it is now.
        let before = date(&["+%Y-%m-%d"]);
        let killer = scene.daemon.kill("KILL");
        scene.daemon.wait_gone();
        let crashed = scene.expect("crashed");
        assert_eq!(crashed["actor"]["pid"], killer, "{crashed:#}");
        let at = crashed["at"].as_str().unwrap_or_default();
        let days = [before, date(&["+%Y-%m-%d"])];
        assert!(days.iter().any(|day| at.starts_with(day)), "{at} {days:?}");
        for kind in ["not-running", "stale-pid-file", "stale-socket"] {
            scene.expect(kind);
        }
        expected = scene.opened();
        scene.daemon = start(&scene.exe, &scene.sandbox);
        scene.expect_well();
    }
    // A beat that does not come is missed all the same.
    scene.beat = None;
    scene.expect("stale-heartbeat");
    row(
        TABLE,
        &[
            "clock set by a day, forward and back",
            "nothing: every age is of the boot clock",
            "a crash and a missing heartbeat are found, with the new time",
        ],
    );
}

#[test]
fn a_machine_that_has_slept_is_told_the_truth_of_and_hides_nothing() {
    const SECONDS: u32 = 12;
    if !is_own() {
        return;
    }
    let alarm = Path::new("/sys/class/rtc/rtc0/wakealarm");
    let states = fs::read_to_string("/sys/power/state").unwrap_or_default();
    if !alarm.exists() || !states.contains("mem") {
        return eprintln!("skipped: this machine can't sleep: {states:?}");
    }
    let mut scene = Scene::new("6s");
    let boot = || Duration::from_nanos(probe_user::clock::now().0);
    let before = boot();
    fs::write(alarm, format!("+{SECONDS}")).expect("an alarm");
    fs::write("/sys/power/state", "mem").expect("it sleeps");
    let slept = boot() - before;
    assert!(slept.as_secs() + 2 >= u64::from(SECONDS), "it slept {slept:?}");
    scene.until_settled();
    // The boot clock went on, and nobody could beat.
    scene.expect_well();
    assert_eq!(scene.opened(), [""; 0], "{}", scene.probed.log());
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    assert_eq!(scene.expect("crashed")["actor"]["pid"], killer);
    scene.daemon = start(&scene.exe, &scene.sandbox);
    scene.expect_well();
    scene.beat = None;
    scene.expect("stale-heartbeat");
    row(
        TABLE,
        &[
            &format!("suspend to memory for {SECONDS} s, longer than a heartbeat may be late"),
            "nothing: time asleep counts for no heartbeat",
            "a crash and a missing heartbeat are found",
        ],
    );
}

#[test]
fn a_machine_without_inotify_watches_says_what_is_noticed_late_and_recovers() {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
    if !is_own() {
        return;
    }
    let old = fs::read_to_string(LIMIT).expect("the limit");
    fs::write(LIMIT, "0").expect("no watches");
    let scene = Scene::new("20s");
    let unwatched = || scene.probed.status()["probe"]["unwatched"].take();
    let said = unwatched();
    let (what, why) = said
        .as_object()
        .and_then(|said| said.iter().next())
        .unwrap_or_else(|| panic!("it says nothing: {said}\n{}", scene.probed.log()));
    assert!(what.starts_with("the close of a socket of"), "{what}: {said}");
    let said = format!(
        "{what} will be noticed late: {}",
        why.as_str().unwrap_or_default()
    );
    let status = scene.probed.ask(&["status"]);
    assert!(status.stdout.contains("will be noticed late"), "{status:?}");
    // The kernel's programs tell all the same.
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    assert_eq!(scene.expect("crashed")["actor"]["pid"], killer);
    fs::write(LIMIT, old.trim()).expect("watches");
    until("everything is watched again", || unwatched() == json!({}));
    row(
        TABLE,
        &[
            "inotify watches used up",
            &said,
            "watched again with the next snapshot",
        ],
    );
}
