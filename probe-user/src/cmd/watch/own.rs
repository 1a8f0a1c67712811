//! `probe watch` that loads the eBPF programs itself.

use std::{
    io::{self, BufWriter, StdoutLock, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use probe_user::{
    clock,
    config::{Config, load},
    discover,
    engine::Effect,
    event::Event,
    kernel::{Kernel, LoadOptions, LogLevel},
    report::{Reporter, Watching as WatchingLine},
    runtime::{Poller, Ready, Runtime, exe_ids, wanted},
    sources::observer::{KernelTables, Observer},
    trace,
};
use tokio::{io::unix::AsyncFd, signal::unix::SignalKind, time::sleep};

use crate::{
    cli::{BpfLog, Watch},
    cmd,
};

pub(super) fn run(args: &Watch) -> anyhow::Result<()> {
    // What is declared wrongly is said before anything is loaded.
    let declared = declared(args)?;
    let mut kernel = Kernel::load(&LoadOptions {
        bpf_log: args.bpf_log.map(log_level),
        tier: args.tier.wanted(),
        wanted: declared
            .as_ref()
            .map(|c| wanted(c, &exe_ids(c)))
            .unwrap_or_default(),
        ..LoadOptions::default()
    })?;
    let tables = kernel.iterators().map(|i| Box::new(i) as Box<dyn KernelTables>);
    let mut observer = Observer::new(tables)?;
    let mut config = declared.unwrap_or_default();
    if args.discover || config.services.is_empty() {
        discover::declare(&mut config, &mut observer).context("cannot discover what listens here")?;
    }
    super::select(&mut config, &args.services)?;
    if config.services.is_empty() {
        bail!(
            "nothing is declared, and nothing that listens or has a PID file under /run was found: start a daemon, or \
             declare one with --unix PATH, --tcp PORT, --pid-file FILE, --exe PATH or --config FILE"
        );
    }
    let exes = exe_ids(&config);
    let epoch = format!("{:x}-{:x}", clock::now().0, std::process::id());
    let wall_offset_ns = clock::wall_offset();
    let trace = match &args.record {
        None => None,
        Some(path) => {
            let header = trace::Header {
                v: trace::VERSION,
                r#type: trace::HeaderType::Trace,
                probe: env!("CARGO_PKG_VERSION").to_owned(),
                epoch: epoch.clone(),
                wall_offset_ns,
                kernel: kernel.facts().release.clone(),
                tier: kernel.plan().tiers(),
                config: config.clone(),
                exes: exes.clone(),
            };
            Some(trace::Writer::create(path, &header)?)
        }
    };
    let reporter = cmd::reporter(args.lines.json, args.lines.filter(), wall_offset_ns, epoch);
    let log = kernel.log();
    let runtime = Runtime::new(config.clone(), &exes, kernel, observer, trace)?;
    let mut watch = Watching {
        runtime,
        out: Output {
            reporter,
            out: BufWriter::new(io::stdout().lock()),
            error: None,
        },
    };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = tokio.block_on(watch.follow(&config, args.duration, log));
    watch.runtime.finish().context("the recording is not whole")?;
    result
}

/// What is declared by the options or the configuration. `None`: nothing is.
fn declared(args: &Watch) -> anyhow::Result<Option<Config>> {
    let by_options = args.declared.service();
    if args.config.is_none()
        && let Some(service) = by_options
    {
        return Ok(Some(Config {
            services: vec![service],
            ..Config::default()
        }));
    }
    let loaded = load::load(args.config.as_deref(), Path::new(load::DIRECTORY))?;
    let mut config = loaded.map(|l| l.config);
    if let Some(service) = by_options {
        config.get_or_insert_default().services.push(service);
    }
    Ok(config)
}

fn log_level(level: BpfLog) -> LogLevel {
    match level {
        BpfLog::Error => LogLevel::Error,
        BpfLog::Warn => LogLevel::Warn,
        BpfLog::Info => LogLevel::Info,
        BpfLog::Debug => LogLevel::Debug,
        BpfLog::Trace => LogLevel::Trace,
    }
}

struct Output {
    reporter: Reporter,
    out: BufWriter<StdoutLock<'static>>,
    error: Option<io::Error>,
}

impl Output {
    fn effect(&mut self, effect: &Effect) {
        if let Err(e) = self.reporter.effect(&mut self.out, effect) {
            self.error.get_or_insert(e);
        }
    }

    /// Hands out what was written, or the first error of writing.
    fn flush(&mut self) -> io::Result<()> {
        match self.error.take() {
            Some(e) => Err(e),
            None => self.out.flush(),
        }
    }
}

struct Watching {
    runtime: Runtime,
    out: Output,
}

impl Watching {
    async fn follow(
        &mut self,
        config: &Config,
        duration: Option<Duration>,
        mut log: Option<probe_user::kernel::BpfLog>,
    ) -> anyhow::Result<()> {
        let mut term = tokio::signal::unix::signal(SignalKind::terminate())?;
        let mut int = tokio::signal::unix::signal(SignalKind::interrupt())?;
        let mut hup = tokio::signal::unix::signal(SignalKind::hangup())?;
        let mut poller = Poller::new(&self.runtime)?;
        // Registered twice over: tokio must not own what the poller waits on.
        let ready_fd = register(poller.as_fd().try_clone_to_owned()?)?;
        let log_fd = match &log {
            Some(l) => Some(register(l.as_fd().try_clone_to_owned()?)?),
            None => None,
        };
        let mut first = Vec::new();
        self.runtime.begin(&mut |e| first.push(e));
        for (service, main) in config.services.iter().zip(self.runtime.mains()) {
            let line = WatchingLine::new(service, main, self.runtime.kernel().plan());
            self.out.reporter.watching(&mut self.out.out, &line)?;
        }
        for effect in &first {
            self.out.effect(effect);
        }
        self.out.flush()?;
        let mut units = units(config);
        let end = async {
            match duration {
                Some(d) => sleep(d).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            poller.arm(self.runtime.deadline())?;
            let out = &mut self.out;
            let mut sink = |e: Effect| out.effect(&e);
            tokio::select! {
                biased;
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => break,
                () = &mut end => break,
                event = next_unit(&mut units) => self.runtime.tell(event, &mut sink),
                guard = ready_fd.readable() => {
                    let mut guard = guard?;
                    let ready = poller.wait(false)?;
                    // What is left stays ready, and nobody tells of it again.
                    match ready == Ready::default() {
                        true => guard.clear_ready(),
                        false => guard.retain_ready(),
                    }
                    if ready.sources {
                        self.runtime.drain(&mut sink);
                    }
                    if ready.deadline {
                        self.runtime.tick(&mut sink);
                    }
                }
                ready = readable(log_fd.as_ref()) => {
                    ready?;
                    if let Some(log) = &mut log {
                        log.flush();
                    }
                }
            }
            self.out.flush()?;
        }
        // What happened until now is told.
        let out = &mut self.out;
        self.runtime.drain(&mut |e| out.effect(&e));
        Ok(self.out.flush()?)
    }
}

#[cfg(feature = "systemd")]
type Units = Option<probe_user::sources::systemd::Units>;
#[cfg(not(feature = "systemd"))]
type Units = ();

/// Follows the declared units, where there is a systemd to ask.
#[cfg(feature = "systemd")]
fn units(config: &Config) -> Units {
    use probe_user::sources::{process, systemd};
    let connected = systemd::Units::connect(config, None, |pid| process::read(pid).ok().flatten());
    for (service, why) in &connected.cannot_see {
        tracing::warn!("the unit of {service} is known by its cgroup only: {why}");
    }
    connected.units
}

#[cfg(not(feature = "systemd"))]
fn units(_: &Config) -> Units {}

#[cfg(feature = "systemd")]
async fn next_unit(units: &mut Units) -> Event {
    match units {
        Some(units) => units.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(not(feature = "systemd"))]
async fn next_unit(_: &mut Units) -> Event {
    std::future::pending().await
}

async fn readable(fd: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match fd {
        Some(fd) => {
            fd.readable().await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the OwnedFd is moved into the AsyncFd, so it stays open and the same for as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(|e| io::Error::other(format!("cannot wait on a file descriptor: {e:?}")))
}
