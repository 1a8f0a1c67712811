//! Healing on a real stream, with real programs and processes.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;
use crate::{
    clock::Nanos,
    engine::{finding::Finding, view::InstanceView},
    hooks::testing::{Silenced, finding, on_runtime},
    sources::process,
    stream::{Limits, Outcome},
};

/// An engine that says what the test wants.
#[derive(Debug)]
struct Told {
    view: Mutex<Option<ServiceView>>,
    gave_up: Mutex<Vec<Option<u32>>>,
}

impl Engine for Told {
    fn look(&self, _: &str) -> Answer<'_, Option<ServiceView>> {
        let view = self.view.lock().unwrap().clone();
        Box::pin(async move { view })
    }

    fn gave_up(&self, _: &str, attempts: Option<u32>) -> Answer<'_, ()> {
        self.gave_up.lock().unwrap().push(attempts);
        Box::pin(async {})
    }
}

fn view(findings: Vec<Finding>) -> ServiceView {
    ServiceView {
        service: "annad".into(),
        expected: true,
        fits: true,
        main: None,
        instances: 0,
        members: 0,
        generation: 1,
        ready: false,
        listeners: Vec::new(),
        pid_file: None,
        unit: None,
        beat: None,
        stopping: None,
        last_end: None,
        gave_up: false,
        unit_is_changing: false,
        lives: Vec::new(),
        findings,
    }
}

struct Scene {
    world: World,
    engine: Arc<Told>,
    silences: Arc<Silenced>,
    dir: PathBuf,
    actions: Subscription,
    healing: Healing,
}

/// `%` stands for the directory.
fn config(dir: &Path, service: &str) -> Config {
    let at = dir.display().to_string();
    let text =
        format!("[probe]\nstate_dir = \"%\"\n[[service]]\nname = \"annad\"\n{service}").replace('%', &at);
    let config: Config = toml::from_str(&text).unwrap();
    assert_eq!(crate::config::check::check(&config, true), []);
    config
}

impl Scene {
    /// `%` stands for the directory.
    fn new(service: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("probe-heal-{}-{n}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let config = config(&dir, service);
        let engine = Arc::new(Told {
            view: Mutex::new(Some(view(Vec::new()))),
            gave_up: Mutex::default(),
        });
        let silences = Arc::new(Silenced::default());
        let world = World {
            stream: Stream::new("e", Limits::default()),
            silences: Arc::clone(&silences) as Arc<dyn Silences>,
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
        };
        let actions = world
            .stream
            .subscribe(Start::Oldest, filter(vec!["annad".into()]));
        let healing = Healing::start(&config, world.clone(), Start::Oldest);
        Self {
            world,
            engine,
            silences,
            dir,
            actions,
            healing,
        }
    }

    fn open(&self, kind: Kind) -> Finding {
        let f = finding("1", kind, "c", clock::now());
        self.see(|v| v.findings.push(f.clone()));
        self.world.stream.push(Said::Finding(Box::new(f.clone())));
        f
    }

    fn see(&self, change: impl FnOnce(&mut ServiceView)) {
        if let Some(view) = &mut *self.engine.view.lock().unwrap() {
            change(view);
        }
    }

    async fn action(&mut self) -> Action {
        loop {
            let next = timeout(Duration::from_secs(20), self.actions.next())
                .await
                .expect("in time");
            if let Next::Line(line) = next
                && let Said::Action(action) = &line.said
                && action.what != ActionKind::Silence
            {
                return (**action).clone();
            }
        }
    }

    /// The times at which the program ran, in the order of attempts.
    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn end(self) {
        self.healing.stop(Duration::from_secs(5)).await;
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

const RESTART: &str = "restart = [\"/bin/sh\", \"-c\", \"echo $PROBE_ATTEMPT $PROBE_KIND >> %/ran\"]";

#[test]
fn nothing_is_done_where_nothing_is_declared_until_it_is() {
    on_runtime(async {
        let mut scene = Scene::new("pid_file = \"%/d.pid\"\n");
        scene.open(Kind::StaleSocket);
        scene.healing.reload(&config(
            &scene.dir,
            &format!("pid_file = \"%/d.pid\"\nheal = {{ {RESTART}, backoff = \"10ms..1s\" }}\n"),
        ));
        assert_eq!(scene.action().await.what, ActionKind::Restart);
        assert_eq!(scene.ran(), ["1 stale-socket"]);
        scene.end().await;
    });
}

#[test]
fn the_program_runs_again_and_again_until_the_budget_is_spent() {
    on_runtime(async {
        let mut scene = Scene::new(&format!(
            "pid_file = \"%/d.pid\"\nheal = {{ {RESTART}, backoff = \"100ms..400ms\", give_up_after = 3 }}\n"
        ));
        let f = scene.open(Kind::StaleSocket);
        let mut times = vec![clock::now()];
        for attempt in 1..=3 {
            let action = scene.action().await;
            assert_eq!(
                (action.what, action.outcome),
                (ActionKind::Restart, Outcome::Ok),
                "{action:?}"
            );
            assert_eq!(action.cause.as_deref(), Some(f.id.as_str()));
            assert_eq!(action.facts["attempt"], attempt);
            times.push(clock::now());
        }
        // The pauses grow; a busy machine only makes them longer.
        for (pair, at_least) in times.windows(2).zip([75, 150, 300]) {
            let pause = pair[1].since(pair[0]);
            assert!(pause >= Duration::from_millis(at_least), "{pause:?}");
        }
        while scene.engine.gave_up.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(*scene.engine.gave_up.lock().unwrap(), [Some(3)]);
        assert_eq!(
            scene.ran(),
            ["1 stale-socket", "2 stale-socket", "3 stale-socket"]
        );
        scene.end().await;
    });
}

/// What must keep a restart from happening: each for itself, and then not any more.
#[test]
fn nothing_is_done_while_something_speaks_against_it() {
    on_runtime(async {
        type Change = fn(&Scene);
        let blind = |state| {
            let mut f = finding("b", Kind::Blind, "b", clock::now());
            f.service = "probe".into();
            f.state = state;
            Said::Finding(Box::new(f))
        };
        let cases: [(&str, Change, Change); 4] = [
            (
                "it is silenced",
                |s| {
                    s.silences
                        .set("annad", Some(clock::now() + Duration::from_secs(3600)))
                },
                |s| {
                    s.silences.set("annad", None);
                    s.world.stream.push(Said::Action(Box::new(Action {
                        at: clock::now(),
                        service: Some("annad".into()),
                        what: ActionKind::Silence,
                        subject: None,
                        cause: None,
                        outcome: Outcome::Ok,
                        summary: String::new(),
                        facts: Map::new(),
                    })));
                },
            ),
            (
                "systemd is at the unit",
                |s| s.see(|v| v.unit_is_changing = true),
                |s| s.see(|v| v.unit_is_changing = false),
            ),
            (
                "somebody has asked it to stop",
                |s| s.see(|v| v.stopping = Some((Nanos(1), "with TERM".into()))),
                |s| s.see(|v| v.stopping = None),
            ),
            ("events were lost", |_| {}, |_| {}),
        ];
        for (what, begin, end) in cases {
            let mut scene = Scene::new(&format!(
                "pid_file = \"%/d.pid\"\nheal = {{ {RESTART}, backoff = \"20ms..40ms\" }}\n"
            ));
            begin(&scene);
            let lost = what == "events were lost";
            if lost {
                scene.world.stream.push(blind(FindingState::Opened));
            }
            scene.open(Kind::StaleSocket);
            sleep(Duration::from_millis(300)).await;
            assert!(scene.ran().is_empty(), "{what}");
            end(&scene);
            if lost {
                scene.world.stream.push(blind(FindingState::Resolved));
            }
            assert_eq!(scene.action().await.facts["attempt"], 1, "{what}");
            scene.end().await;
        }
    });
}

#[test]
fn nothing_is_done_because_of_what_is_unknown_or_over() {
    on_runtime(async {
        let service = format!("pid_file = \"%/d.pid\"\nheal = {{ {RESTART}, backoff = \"20ms..40ms\" }}\n");
        // The engine does not answer.
        let scene = Scene::new(&service);
        scene.open(Kind::StaleSocket);
        *scene.engine.view.lock().unwrap() = None;
        sleep(Duration::from_millis(300)).await;
        assert!(scene.ran().is_empty());
        scene.end().await;
        // The line that it is over is still on its way.
        let scene = Scene::new(&service);
        scene.open(Kind::StaleSocket);
        scene.see(|v| v.findings.clear());
        sleep(Duration::from_millis(300)).await;
        assert!(scene.ran().is_empty());
        scene.end().await;
    });
}

#[test]
fn a_reclaim_removes_what_is_stale_before_the_restart() {
    on_runtime(async {
        let mut scene = Scene::new(&format!(
            "listen = [\"unix:%/d.sock\"]\nheal = {{ reclaim = true, {RESTART}, backoff = \"20ms..40ms\" }}\n"
        ));
        let path = scene.dir.join("d.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        scene.open(Kind::StaleSocket);
        let action = scene.action().await;
        assert_eq!(
            (action.what, action.outcome),
            (ActionKind::Reclaim, Outcome::Ok),
            "{action:?}"
        );
        assert!(!path.exists());
        let action = scene.action().await;
        assert_eq!(
            (action.what, action.outcome),
            (ActionKind::Restart, Outcome::Ok),
            "{action:?}"
        );
        scene.end().await;
    });
}

#[test]
fn what_is_in_the_way_keeps_the_restart_from_happening() {
    on_runtime(async {
        let mut scene = Scene::new(&format!(
            "listen = [\"unix:%/d.sock\"]\nheal = {{ reclaim = true, {RESTART}, backoff = \"20ms..40ms\" }}\n"
        ));
        let path = scene.dir.join("d.sock");
        let _live = UnixListener::bind(&path).unwrap();
        scene.open(Kind::AcceptStall);
        let action = scene.action().await;
        // Here the test itself holds it, which reclaim takes for the one that starts it: so it may start, but the live
        // socket is left alone.
        assert_eq!(action.what, ActionKind::Reclaim, "{action:?}");
        assert!(path.exists(), "a live socket is never touched");
        scene.end().await;
    });
}

/// Killed when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").spawn().unwrap())
    }

    fn instance(&self) -> InstanceView {
        InstanceView {
            lead: process::read(self.0.id()).unwrap().unwrap(),
            is_named_by_pid_file: false,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn of_duplicates_the_declared_one_stays() {
    on_runtime(async {
        let mut scene = Scene::new(
            "pid_file = \"%/d.pid\"\nkeep_instance = \"oldest\"\nstop_within = \"5s\"\nheal = { backoff = \"20ms..40ms\" }\n",
        );
        let (mut first, mut second) = (Daemon::start(), Daemon::start());
        let lives = vec![first.instance(), second.instance()];
        scene.see(|v| v.lives = lives);
        scene.open(Kind::DuplicateInstance);
        let action = scene.action().await;
        assert_eq!(
            (action.what, action.outcome),
            (ActionKind::Reclaim, Outcome::Ok),
            "{action:?}"
        );
        assert!(second.0.wait().unwrap().code().is_none(), "by a signal");
        assert!(first.0.try_wait().unwrap().is_none(), "the oldest lives");
        scene.end().await;
    });
}

#[test]
fn a_process_that_has_another_start_is_not_touched() {
    let mut daemon = Daemon::start();
    let mut id = daemon.instance().lead.id;
    id.start_ticks -= 1;
    let decl = Service::named("d");
    let ended = duplicates::end(&decl, &[id]).unwrap();
    assert_eq!(ended, ["nobody: they had ended by themselves"]);
    assert!(daemon.0.try_wait().unwrap().is_none());
    let me = process::identity(std::process::id()).unwrap();
    let error = duplicates::end(&decl, &[me]).unwrap_err();
    assert!(error.contains("it is this process itself"), "{error}");
}
