//! A hundred readers, each of one of a hundred services, ten of them stopped, and 50,000 events a second: the real server
//! over a real stream, which is fed directly.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use probe_tests::{Attached, Sandbox, until_within};
use probe_user::{
    api::{Api, Is, Listeners, Server},
    clock,
    config::Config,
    daemon::{acts::Acts, engine},
    engine::finding::{EventKind, Shown},
    event::TimeSource,
    history::Store,
    kernel::LoadOptions,
    metrics::Metrics,
    silence::book::Book,
    stream::{Limits, Said, Stream},
};
use tokio::sync::{mpsc as channel, oneshot};

const SERVICES: u64 = 100;
const STOPPED: u64 = 10;
/// As many as come in a second.
const BURST: u64 = 50_000;
const BURSTS: u64 = 6;
/// What each reader is to be told.
const EACH: u64 = BURST * BURSTS / SERVICES;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn stopped_readers_slow_nobody_and_are_told_what_they_lost() {
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox);
    let stopped: Vec<Attached> = (0..STOPPED)
        .map(|n| Attached::to(&served.socket, &[&format!("s{n}")]))
        .collect();
    let readers: Vec<Reader> = (STOPPED..SERVICES)
        .map(|n| Reader::start(&served.socket, n))
        .collect();
    for watch in &stopped {
        watch.signal(rustix::process::Signal::STOP);
    }
    let before = resident();

    let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
    for burst in 0..BURSTS {
        let began = clock::now();
        for n in 0..BURST / SERVICES {
            let of = burst * (BURST / SERVICES) + n;
            served.stream.push_all((0..SERVICES).map(|s| event(s, of)));
        }
        slowest = slowest.max(clock::now().since(began));
        let so_far = (burst + 1) * (BURST / SERVICES);
        until_within(PATIENCE, "everybody who reads has everything", || {
            readers.iter().all(|r| r.told.load(Ordering::Relaxed) == so_far)
        });
        all += clock::now().since(began);
    }
    let figures = served.stream.figures();
    let grown = resident().saturating_sub(before);
    println!(
        "{BURSTS} bursts of {BURST} events, the slowest said in {slowest:?}, all read after {all:?}; {} lines and {} bytes are kept, memory has grown by {grown} KB",
        figures.lines, figures.bytes
    );
    let limits = Limits::default();
    assert!(
        figures.lines <= limits.lines && figures.bytes <= limits.bytes,
        "{figures:?}"
    );
    assert!(grown < 400 * 1024, "memory has grown by {grown} KB");
    for reader in &readers {
        assert_eq!(
            reader.lost.load(Ordering::Relaxed),
            0,
            "a reader that reads loses nothing"
        );
    }

    let mut least = u64::MAX;
    for watch in stopped {
        watch.signal(rustix::process::Signal::CONT);
        let lost = watch.wait("everything, or that it is lost", |lines| {
            let told = lines.iter().filter(|l| l.kind() == "event").count() as u64;
            let lost: u64 = lines
                .iter()
                .filter(|l| l.kind() == "lost")
                .filter_map(|l| l.value["count"].as_u64())
                .sum();
            assert!(told + lost <= EACH, "{told} told and {lost} lost of {EACH}");
            (told + lost == EACH).then_some(lost)
        });
        assert!(
            lost > 0,
            "a reader that was stopped for so long has lost something"
        );
        least = least.min(lost);
        watch.stop();
    }
    println!("of {EACH} events each, stopped readers lost {least} or more, and know exactly how many");
    served.stop();
}

fn event(service: u64, n: u64) -> Said {
    Said::Event(Box::new(Shown {
        seq: n,
        at: clock::now(),
        time_source: TimeSource::Kernel,
        service: format!("s{service}"),
        kind: EventKind::Signal,
        subject: None,
        process: None,
        actor: None,
        facts: serde_json::json!({ "n": n }).into(),
        summary: "a signal of the flood".into(),
    }))
}

/// KB of this process that are in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The server in a thread of its own, as in the daemon.
struct Served {
    stream: Stream,
    socket: PathBuf,
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Served {
    fn start(sandbox: &Sandbox) -> Self {
        let mut text = String::new();
        let socket = sandbox.path("probe.sock");
        let state = sandbox.path("state");
        let _ = writeln!(text, "probe = {{ socket = {socket:?}, state_dir = {state:?} }}");
        for n in 0..SERVICES {
            let exe = sandbox.path(&format!("s{n}"));
            let _ = write!(
                text,
                "[[service]]\nname = \"s{n}\"\nexe = {exe:?}\nexpected = false\n"
            );
        }
        let file = sandbox.write("flood.toml", &text);
        let config = probe_user::config::load::load(Some(&file), Path::new("/nowhere"))
            .expect("a configuration")
            .expect("a configuration")
            .config;
        let (tell, told) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(serve(config, tell, ended));
        });
        let stream = told.recv_timeout(PATIENCE).expect("it serves");
        Self {
            stream,
            socket,
            end,
            thread,
        }
    }

    fn stop(self) {
        self.end.send(()).expect("it waits");
        self.thread.join().expect("no panic");
    }
}

async fn serve(config: Config, tell: mpsc::Sender<Stream>, ended: oneshot::Receiver<()>) {
    let stream = Stream::new("flood", Limits::default());
    let listeners = Listeners::open(&config.probe).expect("a socket");
    let (store, _) =
        Store::open(Path::new(&config.probe.state_dir), config.probe.retention).expect("a thread");
    let started = engine::start(engine::Start {
        config: Some(config.clone()),
        remembered: Default::default(),
        stream: stream.clone(),
        realtime: false,
        load: LoadOptions::default(),
        timings: Arc::default(),
    })
    .await
    .expect("the engine");
    let engine = started.handle;
    let silences = Book::new(Vec::new(), store.clone(), stream.clone());
    let acts = Acts::start(&config, &engine, &stream, &store, &silences);
    let (reloads, _asked) = channel::channel(1);
    let api = Api::new(Is {
        engine: engine.clone(),
        stream: stream.clone(),
        reloads,
        since: clock::now(),
        store: store.clone(),
        notices: Vec::new(),
        silences,
        acts,
        metrics: Metrics::default(),
    });
    let server = Server::start(api, listeners, false).expect("it serves");
    tell.send(stream.clone()).expect("somebody waits");
    ended.await.expect("somebody ends it");
    engine.stop().expect("it listens");
    started.ended.await.expect("it ends").expect("well");
    stream.close();
    assert!(server.stop(PATIENCE).await);
    assert!(store.close(PATIENCE));
}

/// A client that only counts, and looks that nothing is missing or twice.
struct Reader {
    told: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Reader {
    fn start(socket: &Path, service: u64) -> Self {
        let mut stream = UnixStream::connect(socket).expect("the server");
        write!(
            stream,
            "GET /v1/events?service=s{service} HTTP/1.0\r\nhost: localhost\r\n\r\n"
        )
        .expect("asked");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        // What is said from the head of the answer on is told.
        assert!(lines.next().is_some_and(|l| l.contains(" 200 ")));
        assert!(lines.any(|l| l.is_empty()), "the head ends");
        let reader = Self {
            told: Arc::default(),
            lost: Arc::default(),
        };
        let (told, lost) = (Arc::clone(&reader.told), Arc::clone(&reader.lost));
        thread::spawn(move || {
            for line in lines {
                if line.contains("\"type\":\"lost\"") {
                    lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let expected = format!("\"n\":{}", told.load(Ordering::Relaxed));
                let at = line.find(&expected).map(|at| at + expected.len());
                let whole = at.is_some_and(|at| !line[at..].starts_with(|c: char| c.is_ascii_digit()));
                assert!(whole, "expected {expected}: {line}");
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        reader
    }
}
