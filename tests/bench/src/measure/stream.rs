//! The stream as one client gets it.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use memchr::{memchr_iter, memmem};
use probe_tests::{Sandbox, probe_binary, until};
use probe_user::{
    api::{Api, Is, Listeners, Server},
    clock,
    config::Config,
    daemon::{acts::Acts, engine},
    engine::{
        facts::Facts,
        finding::{EventKind, Shown},
    },
    event::{ProcId, Process, TimeSource},
    history::Store,
    kernel::LoadOptions,
    metrics::Metrics,
    silence::book::Book,
    stream::{Limits, Said, Stream},
};
use tokio::sync::{mpsc as channel, oneshot};

use super::Measure;
use crate::{
    row::{Row, Unit},
    stats::Samples,
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "stream",
        "Events through `probe watch --json`, one client",
        "The daemon's stream and API, fed from memory with signals as the engine says them, never more than half of what the stream \
         keeps ahead of the client: a real `probe watch --json`, whose output is counted line by line.",
    )],
    run,
};

const RUNS: usize = 7;
const RUN: Duration = Duration::from_millis(1_500);
/// Lines that may be ahead of the client.
const AHEAD: u64 = 24_576;
const PORTION: u64 = 256;

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox)?;
    let readers = served.stream.figures().readers;
    let client = Client::start(&served.socket)?;
    until("the client follows", || served.stream.figures().readers > readers);
    let mut rates = Samples::default();
    let mut pushed = 0;
    for _ in 0..super::samples(RUNS) {
        let before = client.lines();
        let began = clock::now();
        while clock::now().since(began) < RUN {
            if pushed - client.lines() > AHEAD {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            served.stream.push_all((0..PORTION).map(|_| event()));
            pushed += PORTION;
        }
        let lines = client.lines() - before;
        rates.push(lines as f64 / clock::now().since(began).as_secs_f64());
    }
    let deadline = clock::now() + Duration::from_secs(10);
    while client.lines() < pushed && clock::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let (told, lost) = (client.lines(), client.lost.load(Ordering::Relaxed));
    row.figure("events printed", Unit::PerSecond, &rates);
    row.aim_at_least("one client", Unit::PerSecond, rates.median(), 300e3);
    row.aim(
        "lost",
        "0",
        &(pushed - told + lost).to_string(),
        pushed == told && lost == 0,
    );
    drop(client);
    served.stop()
}

fn event() -> Said {
    let process = |pid, name: &str| Process {
        id: ProcId {
            pid,
            start_ticks: 77_000,
        },
        start: clock::Nanos(770_000_000_000),
        parent: Some(ProcId {
            pid: 1,
            start_ticks: 1,
        }),
        comm: name.to_owned(),
        uid: Some(0),
        exe: Some(format!("/usr/sbin/{name}")),
        exe_deleted: false,
        exe_id: None,
        argv: vec![name.to_owned()],
        unit: None,
    };
    let facts = Facts::new([
        ("signal", "HUP".into()),
        ("code", "SI_USER".into()),
        ("result", "queued".into()),
        ("disposition", "caught".into()),
    ]);
    Said::Event(Box::new(Shown {
        seq: 1,
        at: clock::now(),
        time_source: TimeSource::Kernel,
        service: "annad".into(),
        kind: EventKind::Signal,
        subject: None,
        process: Some(Arc::new(process(812, "annad"))),
        actor: Some(Arc::new(process(990, "kill"))),
        facts,
        summary: "kill (990) sent HUP to annad (812)".into(),
    }))
}

/// `probe watch --json`, whose lines are counted.
struct Client {
    child: Child,
    lines: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Client {
    fn start(socket: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(probe_binary())
            .args(["watch", "--json", "--only", "event,lost", "--socket"])
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start probe watch")?;
        let mut output = child.stdout.take().context("no output")?;
        let client = Self {
            child,
            lines: Arc::default(),
            lost: Arc::default(),
        };
        let (lines, lost) = (Arc::clone(&client.lines), Arc::clone(&client.lost));
        thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                let piece = &buffer[..n];
                lines.fetch_add(memchr_iter(b'\n', piece).count() as u64, Ordering::Relaxed);
                // Rare, and then at most one that lies across two pieces is not counted; its line is, and is one too many.
                let gone = memmem::find_iter(piece, b"\"type\":\"lost\"").count();
                lost.fetch_add(gone as u64, Ordering::Relaxed);
            }
        });
        Ok(client)
    }

    fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The server in a thread of its own, as in the daemon.
struct Served {
    stream: Stream,
    socket: PathBuf,
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

impl Served {
    fn start(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let socket = sandbox.path("probe.sock");
        let text = format!(
            "probe = {{ socket = {socket:?}, state_dir = {:?} }}\n[[service]]\nname = \"annad\"\nexe = {:?}\nexpected = false\n",
            sandbox.path("state"),
            sandbox.path("annad")
        );
        let file = sandbox.write("stream.toml", &text);
        let config = probe_user::config::load::load(Some(&file), Path::new("/nowhere"))?
            .context("a configuration")?
            .config;
        let (tell, told) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(serve(config, tell, ended))
        });
        let stream = told.recv_timeout(PATIENCE).context("it does not serve")?;
        Ok(Self {
            stream,
            socket,
            end,
            thread,
        })
    }

    fn stop(self) -> anyhow::Result<()> {
        _ = self.end.send(());
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the server panicked"),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

async fn serve(
    config: Config,
    tell: mpsc::Sender<Stream>,
    ended: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let stream = Stream::new("bench", Limits::default());
    let listeners = Listeners::open(&config.probe)?;
    let (store, _) = Store::open(Path::new(&config.probe.state_dir), config.probe.retention)?;
    let started = engine::start(engine::Start {
        config: Some(config.clone()),
        remembered: Default::default(),
        stream: stream.clone(),
        realtime: false,
        load: LoadOptions::default(),
        timings: Arc::default(),
    })
    .await?;
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
    let server = Server::start(api, listeners, false)?;
    tell.send(stream.clone())?;
    ended.await?;
    engine.stop()?;
    stream.close();
    ensure!(server.stop(PATIENCE).await, "clients did not end");
    ensure!(store.close(PATIENCE), "the history did not end");
    Ok(())
}
