//! Hooks on a real stream, with real programs and servers.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use tokio::time::sleep;

use super::{
    pending::{InMemory, NoSilences},
    testing::{Silenced, finding, on_runtime},
    *,
};
use crate::{
    clock,
    engine::finding::FindingState,
    stream::{Action, Limits, Next, Outcome, Said, Subscription},
};

/// What is open, as the engine would say.
#[derive(Debug, Default)]
struct Open(Mutex<Vec<Finding>>);

impl OpenFindings for Open {
    fn open(&self) -> Pin<Box<dyn Future<Output = Option<Vec<Finding>>> + Send + '_>> {
        let open = self.0.lock().unwrap().clone();
        Box::pin(async move { Some(open) })
    }
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("probe-hooks-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn world() -> World {
    World {
        stream: Stream::new("e", Limits::default()),
        pending: Arc::new(InMemory::default()),
        silences: Arc::new(NoSilences),
        open: Arc::new(Open::default()),
    }
}

fn config(text: &str) -> Config {
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(crate::config::check::check(&config, true), []);
    config
}

fn say(world: &World, f: &Finding) {
    world.stream.push(Said::Finding(Box::new(f.clone())));
}

fn resolved(f: &Finding) -> Finding {
    Finding {
        state: FindingState::Resolved,
        resolution: Some("it runs".into()),
        ..f.clone()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}

/// The `state` of each finding that a file has got.
fn states(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let state = |l: &str| {
        let value: serde_json::Value = serde_json::from_str(l).unwrap();
        value["state"].as_str().unwrap().to_owned()
    };
    text.lines().map(state).collect()
}

fn actions(world: &World) -> Subscription {
    world.stream.subscribe(Start::Oldest, filter())
}

async fn next_action(sub: &mut Subscription) -> Action {
    loop {
        let next = timeout(Duration::from_secs(20), sub.next())
            .await
            .expect("in time");
        if let Next::Line(line) = next
            && let Said::Action(action) = &line.said
        {
            return (**action).clone();
        }
    }
}

#[test]
fn a_finding_is_told_once_when_it_opens_and_once_when_it_ends() {
    on_runtime(async {
        let (world, dir) = (world(), Dir::new());
        let (file, second) = (dir.path("one"), dir.path("two"));
        let config = config(&format!(
            "[[hook]]\nname = \"one\"\non = [\"stale-socket\"]\ngroup_wait = \"100ms\"\nexec = [\"/usr/bin/tee\", \"-a\", \"{file}\"]\n\
             [[hook]]\non = [\"crashed\"]\ngroup_wait = \"100ms\"\nexec = [\"/usr/bin/tee\", \"-a\", \"{second}\"]\n"
        ));
        let hooks = Hooks::start(&config, world.clone(), Start::Oldest);
        let mut sub = actions(&world);
        let f = finding("1", Kind::StaleSocket, "c", clock::now());
        say(&world, &f);
        say(&world, &f);
        let told = next_action(&mut sub).await;
        assert_eq!((told.outcome, told.cause.as_deref()), (Outcome::Ok, Some("1")));
        assert_eq!(told.subject.as_deref(), Some("one"));
        assert_eq!(told.facts["exit_code"], 0);
        say(&world, &resolved(&f));
        next_action(&mut sub).await;
        assert_eq!(states(&file), ["opened", "resolved"]);
        assert!(!Path::new(&second).exists(), "the other one is not about it");
        let status = hooks.status();
        assert_eq!(status[0].results.ok, 2);
        assert_eq!(status[0].last.as_ref().unwrap().outcome, "ok");
        assert_eq!(
            (status[1].hook.as_str(), status[1].last.clone()),
            ("hook-2", None)
        );
        hooks.stop(Duration::from_secs(1)).await;
        assert_eq!(world.pending.load().unwrap(), [], "nothing is left of it");
    });
}

#[test]
fn a_hook_that_hangs_delays_nobody_and_neither_does_it_delay_the_stop() {
    on_runtime(async {
        let (world, dir) = (world(), Dir::new());
        let (pid, file) = (dir.path("pid"), dir.path("told"));
        let config = config(&format!(
            "[[hook]]\nname = \"hangs\"\nseverity = \"critical\"\ngroup_wait = \"1ms\"\ntimeout = \"1h\"\n\
             exec = [\"/bin/sh\", \"-c\", \"echo $$ > {pid}; sleep 1000\"]\n\
             [[hook]]\nseverity = \"critical\"\ngroup_wait = \"1ms\"\nexec = [\"/usr/bin/tee\", \"-a\", \"{file}\"]\n"
        ));
        let hooks = Hooks::start(&config, world.clone(), Start::Oldest);
        let mut all = Vec::new();
        for n in 0..3 {
            let f = finding(&n.to_string(), Kind::StaleSocket, &n.to_string(), clock::now());
            say(&world, &f);
            until("it is told", || states(&file).len() == n + 1).await;
            all.push(f);
        }
        until("the first one hangs", || Path::new(&pid).exists()).await;
        let status = &hooks.status()[0];
        assert!(status.busy && status.waiting == 3, "{status:?}");
        let leader = fs::read_to_string(&pid).unwrap();
        let began = clock::now();
        hooks.stop(Duration::from_secs(5)).await;
        let took = clock::now().since(began);
        assert!(took < Duration::from_secs(2), "{took:?}");
        until("what it was doing is killed", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", leader.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        })
        .await;
        // All three wait for the next start, and that they were told stays known.
        let kept = world.pending.load().unwrap();
        let waiting = kept.iter().filter(|e| e.key.starts_with("waiting/")).count();
        assert_eq!(waiting, 3, "{kept:?}");
    });
}

/// A server that answers with these, one a connection, and tells what it got.
fn server(listener: TcpListener, answers: Vec<u16>) -> std::sync::mpsc::Receiver<serde_json::Value> {
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for status in answers {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").unwrap();
            send.send(serde_json::from_slice(&body).unwrap()).unwrap();
        }
    });
    receive
}

#[test]
fn a_webhook_that_fails_is_tried_again() {
    on_runtime(async {
        let world = world();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = server(listener, vec![500, 503, 200]);
        let config = config(&format!(
            "[[hook]]\nseverity = \"critical\"\ngroup_wait = \"1ms\"\nwebhook = \"http://{address}/\"\n"
        ));
        let hooks = Hooks::start(&config, world.clone(), Start::Oldest);
        let mut sub = actions(&world);
        say(&world, &finding("1", Kind::StaleSocket, "c", clock::now()));
        let told = next_action(&mut sub).await;
        assert_eq!(told.outcome, Outcome::Ok);
        assert_eq!(told.facts["attempts"], 3);
        assert!(
            told.facts["took_ns"].as_u64().unwrap() > 2_000_000_000,
            "it pauses: {:?}",
            told.facts
        );
        assert_eq!(got.iter().count(), 3);
        hooks.stop(Duration::from_secs(1)).await;
    });
}

#[test]
fn what_waits_and_what_was_told_survives_a_restart() {
    on_runtime(async {
        let world = world();
        // Taken, and nobody listens: every attempt is refused.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let text = format!(
            "[[hook]]\nseverity = \"critical\"\ngroup_wait = \"1ms\"\nwebhook = \"http://{address}/\"\n"
        );
        let config = config(&text);
        let hooks = Hooks::start(&config, world.clone(), Start::Oldest);
        let f = finding("1", Kind::StaleSocket, "c", clock::now());
        say(&world, &f);
        until("the first attempt failed", || {
            hooks.status()[0].failed_attempts > 0
        })
        .await;
        hooks.stop(Duration::from_secs(1)).await;

        let got = server(TcpListener::bind(address).unwrap(), vec![200, 200]);
        // Another daemon: another stream, the same database.
        let again = World {
            stream: Stream::new("f", Limits::default()),
            ..world.clone()
        };
        let hooks = Hooks::start(&config, again.clone(), Start::Oldest);
        let mut sub = actions(&again);
        assert_eq!(next_action(&mut sub).await.outcome, Outcome::Ok);
        // It finds the same again, and then it ends.
        let found_again = Finding {
            id: "2".into(),
            cause: "d".into(),
            ..f
        };
        say(&again, &found_again);
        say(&again, &resolved(&found_again));
        next_action(&mut sub).await;
        let told: Vec<String> = got
            .iter()
            .map(|v| v["state"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told, ["opened", "resolved"]);
        hooks.stop(Duration::from_secs(1)).await;
        assert_eq!(again.pending.load().unwrap(), []);
    });
}

#[test]
fn a_reload_leaves_alone_what_is_declared_as_before() {
    on_runtime(async {
        let (world, dir) = (world(), Dir::new());
        let (a, b) = (dir.path("a"), dir.path("b"));
        let hook = |name: &str, file: &str| {
            format!(
                "[[hook]]\nname = \"{name}\"\nseverity = \"critical\"\ngroup_wait = \"1ms\"\nexec = [\"/usr/bin/tee\", \"-a\", \"{file}\"]\n"
            )
        };
        let mut hooks = Hooks::start(&config(&hook("a", &a)), world.clone(), Start::Oldest);
        let f = finding("1", Kind::StaleSocket, "c", clock::now());
        say(&world, &f);
        until("it is told", || states(&a).len() == 1).await;
        let engine = Open(Mutex::new(vec![f.clone()]));
        hooks.world.open = Arc::new(engine);
        hooks.reload(&config(&(hook("b", &b) + &hook("a", &a)))).await;
        until("the new one is told what is open", || states(&b).len() == 1).await;
        say(&world, &resolved(&f));
        until("both are told of the end", || {
            states(&a).len() == 2 && states(&b).len() == 2
        })
        .await;
        let names: Vec<String> = hooks.status().into_iter().map(|s| s.hook).collect();
        assert_eq!(names, ["b", "a"]);
        // A program is counted once it has ended, which is after it has written.
        until("it is counted together with what came before", || {
            hooks.status().get(1).is_some_and(|s| s.results.ok == 2)
        })
        .await;
        hooks.reload(&config("")).await;
        assert!(hooks.status().is_empty());
    });
}

#[test]
fn nothing_runs_under_a_silence() {
    on_runtime(async {
        let dir = Dir::new();
        let silences = Arc::new(Silenced::default());
        let world = World {
            silences: Arc::clone(&silences) as Arc<dyn Silences>,
            ..world()
        };
        let file = dir.path("told");
        let config = config(&format!(
            "[[hook]]\nseverity = \"critical\"\ngroup_wait = \"1ms\"\nexec = [\"/usr/bin/tee\", \"-a\", \"{file}\"]\n"
        ));
        silences.set("annad", Some(clock::now() + Duration::from_millis(400)));
        let hooks = Hooks::start(&config, world.clone(), Start::Oldest);
        let over = finding("1", Kind::Crashed, "a", clock::now());
        say(&world, &over);
        say(&world, &finding("2", Kind::StaleSocket, "b", clock::now()));
        say(&world, &resolved(&over));
        let until_then = silences.until("annad").unwrap();
        until("what is still wrong is told", || states(&file).len() == 1).await;
        assert!(clock::now() >= until_then, "only after the silence");
        assert_eq!(hooks.status()[0].results.silenced, 1);
        hooks.stop(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_sample_goes_through_the_hook() {
    on_runtime(async {
        let dir = Dir::new();
        let file = dir.path("told");
        let config = config(&format!(
            "[[hook]]\nname = \"page\"\non = [\"crashed\"]\nexec = [\"/usr/bin/tee\", \"-a\", \"{file}\"]\n"
        ));
        let attempt = test_directly(&config, "page").await.unwrap();
        assert_eq!((attempt.outcome, attempt.exit_code), (Outcome::Ok, Some(0)));
        let sample: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(
            (&sample["kind"], &sample["test"]),
            (&"crashed".into(), &true.into())
        );
        let error = test_directly(&config, "pag").await.unwrap_err();
        assert_eq!(error.to_string(), "no hook is named \"pag\"; there is page");
        let hooks = Hooks::start(&config, world(), Start::Oldest);
        let test = hooks.test("page").unwrap();
        assert_eq!(test.await.outcome, Outcome::Ok);
        assert_eq!(hooks.status()[0].results.ok, 0, "a test is no notification");
        hooks.stop(Duration::from_secs(1)).await;
    });
}

#[test]
fn the_journal_gets_an_entry() {
    on_runtime(async {
        let dir = Dir::new();
        let path = dir.path("journal");
        let journald = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let journal = journal::Journal {
            socket: path.into(),
            units: BTreeMap::new(),
            limit: Duration::from_secs(5),
        };
        let n = testing::notification("why");
        journal.send("log", &n).await.unwrap();
        let mut entry = vec![0; 65536];
        let length = journald.recv(&mut entry).unwrap();
        assert!(entry[..length].starts_with(b"MESSAGE=annad stale-socket: why\nPRIORITY=2\n"));
        // Nobody reads: the limit holds.
        let full = journal::Journal {
            limit: Duration::from_millis(200),
            ..journal
        };
        let mut failed = None;
        for _ in 0..100_000 {
            if let Err(e) = full.send("log", &n).await {
                failed = Some(e);
                break;
            }
        }
        assert_eq!(failed.unwrap().kind(), std::io::ErrorKind::TimedOut);
        drop(journald);
        let error = full.send("log", &n).await.unwrap_err().to_string();
        assert!(error.contains("cannot write to journald at"), "{error}");
    });
}
