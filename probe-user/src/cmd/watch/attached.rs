//! `probe watch` beside a daemon: what the daemon says, also over its restarts.

use std::io::{self, BufWriter, StdoutLock, Write};

use probe_user::{
    api::types::Services,
    client::{Client, ClientError, Follow, Told},
    clock,
    report::{self, Filter, Line, Look, Reporter, Watching},
};
use tokio::{signal::unix::SignalKind, time::sleep};

use crate::{cli::Watch, cmd};

/// No daemon listens.
pub(super) fn is_alone(e: &anyhow::Error) -> bool {
    matches!(e.downcast_ref(), Some(ClientError::NotRunning { .. }))
}

pub(super) fn run(args: &Watch, client: &Client) -> anyhow::Result<()> {
    cmd::block_on(watch(args, client))
}

async fn watch(args: &Watch, client: &Client) -> anyhow::Result<()> {
    let mut term = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut int = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let mut hup = tokio::signal::unix::signal(SignalKind::hangup())?;
    let end = async {
        match args.duration {
            Some(d) => sleep(d).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        _ = hup.recv() => Ok(()),
        () = end => Ok(()),
        result = follow(args, client) => result,
    }
}

async fn follow(args: &Watch, client: &Client) -> anyhow::Result<()> {
    let mut services: Services = client.get("/v1/services").await?;
    let known: Vec<&str> = services.services.iter().map(|s| s.service.as_str()).collect();
    super::expect_known(&args.services, &known)?;
    if !args.services.is_empty() {
        services.services.retain(|s| args.services.contains(&s.service));
    }
    let mut out = Output::new(args);
    for service in &services.services {
        out.watching(&Watching::from(service))?;
    }
    let since = match args.since {
        Some(ago) => humantime::format_duration(ago).to_string(),
        None => {
            // What is wrong already was said before.
            let findings = services.services.iter().flat_map(|s| &s.findings);
            for finding in services.probe.blind.iter().chain(findings) {
                out.open(&Line::Finding(Box::new(finding.into())))?;
            }
            format!("{}.{}", services.epoch, services.cursor)
        }
    };
    out.flush()?;
    let mut stream = Follow::new(client.clone(), parameters(args), Some(since));
    stream.begin().await?;
    loop {
        match stream.next().await? {
            Told::Line(line) => {
                out.line(&line)?;
                while let Some(line) = stream.try_next() {
                    out.line(&line)?;
                }
                out.flush()?;
            }
            Told::Gone(why) => tracing::warn!("{why}; waiting for it to come back"),
            Told::Back => tracing::warn!("the daemon is back"),
        }
    }
}

/// What the daemon need not even send is left out there.
fn parameters(args: &Watch) -> Vec<(&'static str, String)> {
    let only: Vec<&str> = args.lines.only.iter().map(|t| t.name()).collect();
    let kinds: Vec<&str> = args.lines.kind.iter().map(|k| k.name()).collect();
    [
        ("service", args.services.join(",")),
        ("only", only.join(",")),
        ("kind", kinds.join(",")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

struct Output {
    json: bool,
    filter: Filter,
    look: Look,
    /// For the lines that are not the daemon's.
    reporter: Reporter,
    buffer: Vec<u8>,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    fn new(args: &Watch) -> Self {
        let (json, filter) = (args.lines.json, args.lines.filter());
        Self {
            json,
            reporter: cmd::reporter(json, filter.clone(), clock::wall_offset(), String::new()),
            filter,
            look: cmd::look(),
            buffer: Vec::with_capacity(1024),
            out: BufWriter::new(io::stdout().lock()),
        }
    }

    fn watching(&mut self, watching: &Watching) -> io::Result<()> {
        self.reporter.watching(&mut self.out, watching)
    }

    /// A finding that is open already.
    fn open(&mut self, line: &Line) -> io::Result<()> {
        if !line.passes(&self.filter) {
            return Ok(());
        }
        self.buffer.clear();
        match self.json {
            true => report::json_line(&mut self.buffer, line)?,
            false => report::told(&mut self.buffer, &self.look, line)?,
        }
        self.out.write_all(&self.buffer)
    }

    /// A line of the daemon.
    fn line(&mut self, json: &[u8]) -> io::Result<()> {
        if self.json {
            self.out.write_all(json)?;
            return self.out.write_all(b"\n");
        }
        self.buffer.clear();
        match serde_json::from_slice(json) {
            Ok(line) => report::told(&mut self.buffer, &self.look, &line)?,
            // A newer daemon's; it is better seen than kept back.
            Err(_) => {
                self.buffer
                    .extend_from_slice(report::plain(&String::from_utf8_lossy(json)).as_bytes());
                self.buffer.push(b'\n');
            }
        }
        self.out.write_all(&self.buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
