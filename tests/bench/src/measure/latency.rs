//! How soon somebody who watches knows that a listener was killed.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use probe_tests::{Probed, Sandbox};
use probe_user::clock::{self, Nanos};
use rustix::process::Signal;

use super::Measure;
use crate::{
    load::{burn, child::Load},
    peer::{self, Monit, nanos},
    process,
    row::{Better, Plot, PlotLine, Row, Unit},
    snoop::{self, Snoop},
    stats::{Samples, Span},
    watcher::Watcher,
    writes::{self, Writes},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[
        (
            "event",
            "From `kill -9` of a listener to the event at a watcher",
            "A daemon of ours is killed 1,000 times while every core is busy with other work. From the kernel's time of the event \
             to the daemon's write to a watcher's socket, as bpftrace sees that system call; and to the moment when the watcher, \
             with a real-time priority, has read it: that is another thread's waking up. monit (a cycle each second) and `lsof` (each second) look at the same \
             socket, for the first kills; then come tools that print what one hook tells, each to a reader like the watcher.",
        ),
        (
            "verified",
            "From `kill -9` of a listener to a verified `stale-socket`",
            "The same kills. From right before the kill to the moment when the watcher has read the finding: by then the socket \
             was shown to be gone and the path was looked at again. The floor is a thread with the same priority that waits on \
             the pidfd of the same process.",
        ),
    ],
    run,
};

/// Each takes monit and lsof half a second.
const BESIDE_PEERS: usize = 12;
const BESIDE_SNOOPS: usize = 100;
const KILLS: usize = 1_000;
/// Of both.
const LIMIT: Duration = Duration::from_secs(150);

#[derive(Default)]
struct Found {
    /// The kernel's time of each exit, and when the watcher had read it.
    times: Vec<(Nanos, Nanos)>,
    /// From the kernel's time of the exit to the watcher.
    event: Samples,
    /// From the kill to the watcher.
    event_from_kill: Samples,
    finding: Samples,
    pidfd: Samples,
    monit: Samples,
    lsof: Samples,
    /// Tools that print what a hook tells.
    snoops: BTreeMap<&'static str, Samples>,
}

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [event, verified] = rows else {
        bail!("two rows")
    };
    let scene = Scene::new()?;
    let mut quiet = Found::default();
    let peers = Peers::start(&scene, event)?;
    for n in 0..super::samples(BESIDE_PEERS) {
        // Anywhere within their second.
        thread::sleep(Duration::from_millis((n as u64 * 383) % 1000));
        scene.kill(&mut quiet, Some(&peers))?;
    }
    drop(peers);
    // By themselves: each wakes a thread of its own at the same moment.
    let mut snooped = Found::default();
    let peers = Peers::snoops(event)?;
    for _ in 0..super::samples(BESIDE_SNOOPS) {
        scene.kill(&mut snooped, Some(&peers))?;
    }
    drop(peers);
    let mut busy = Found::default();
    let writes = match peer::is_there("bpftrace") {
        true => Some(Writes::of(scene.daemon.pid())?),
        false => {
            event.skipped.push("bpftrace is not installed".into());
            None
        }
    };
    let burning = burn::all_cores()?;
    let deadline = clock::now() + LIMIT;
    while busy.event.len() < super::samples(KILLS) && clock::now() < deadline {
        scene.kill(&mut busy, None)?;
    }
    drop(burning);

    if let Some(writes) = writes {
        let writes = writes.end()?;
        let times = busy.times.iter();
        let written: Samples = times
            .filter_map(|(from, until)| Some(nanos(writes::between(&writes, *from, *until)?.since(*from))))
            .collect();
        // bpftrace may have lost one.
        ensure!(
            written.len() * 100 >= busy.times.len() * 99,
            "bpftrace saw {} writes",
            written.len()
        );
        event.figure("kernel → daemon's write, cores busy", Unit::Nanos, &written);
        event.aim_at_most(
            "p99 to the daemon's write, cores busy",
            Unit::Nanos,
            written.p99(),
            150e3,
        );
    }
    event.figure(
        "kernel → read by the watcher, cores busy",
        Unit::Nanos,
        &busy.event,
    );
    event.figure(
        "kill → read by the watcher, cores busy",
        Unit::Nanos,
        &busy.event_from_kill,
    );
    event.figure(
        "kill → read by the watcher, beside monit and lsof",
        Unit::Nanos,
        &quiet.event_from_kill,
    );
    event.figure("kill → noticed by monit", Unit::Nanos, &quiet.monit);
    event.figure("kill → noticed by lsof each second", Unit::Nanos, &quiet.lsof);
    event.figure(
        "kill → read by the watcher, beside those that print",
        Unit::Nanos,
        &snooped.event_from_kill,
    );
    for (name, samples) in &snooped.snoops {
        event.figure(&format!("kill → printed by {name}"), Unit::Nanos, samples);
    }
    for (what, peer) in [
        ("sooner than monit", &quiet.monit),
        ("sooner than lsof", &quiet.lsof),
    ] {
        if peer.len() > 0 {
            let span = Span::of(peer, &quiet.event_from_kill);
            event.aim_ratio(what, Better::Higher, span, 2000.0);
        }
    }
    event.floors.push(format!(
        "a bare wait on the pidfd, from the kill: {} (p99 {})",
        Unit::Nanos.show(busy.pidfd.median()),
        Unit::Nanos.show(busy.pidfd.p99())
    ));
    event.plots.push(distribution(&busy));

    verified.figure("kill → finding read, cores busy", Unit::Nanos, &busy.finding);
    verified.figure("kill → pidfd, cores busy", Unit::Nanos, &busy.pidfd);
    verified.figure(
        "kill → finding read, beside monit and lsof",
        Unit::Nanos,
        &quiet.finding,
    );
    verified.aim_at_most("p99, cores busy", Unit::Nanos, busy.finding.p99(), 500e3);
    let (above, below) = (busy.finding.p99(), busy.pidfd.p99());
    verified.ratio(
        "finding / bare pidfd wait, medians",
        Better::Lower,
        Span::of_pairs(&busy.finding, &busy.pidfd),
    );
    verified.aim_ratio(
        "finding / bare pidfd wait, p99",
        Better::Lower,
        Span::exactly(above / below),
        2.0,
    );
    Ok(())
}

/// What part of the kills was known within which time.
fn distribution(found: &Found) -> Plot {
    let line = |name: &str, samples: &Samples| PlotLine {
        name: name.to_owned(),
        points: (1..=1000)
            .map(|n| n as f64 / 1000.0)
            .map(|part| (samples.quantile(part) / 1e3, part * 100.0))
            .collect(),
    };
    Plot {
        name: "latency".into(),
        title: "kill -9 of a listener, every core busy: known after".into(),
        x: "µs".into(),
        y: "% of 1,000 kills".into(),
        lines: vec![
            line("bare wait on a pidfd", &found.pidfd),
            line("event, from the kernel's time", &found.event),
            line("event, from the kill", &found.event_from_kill),
            line("verified stale-socket, from the kill", &found.finding),
        ],
    }
}

struct Scene {
    sandbox: Sandbox,
    exe: PathBuf,
    path: PathBuf,
    watcher: Watcher,
    daemon: Probed,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::new();
        let exe = sandbox.install(&std::env::current_exe()?, "victim");
        let path = sandbox.path("victim.sock");
        // It is killed again and again, and that is all right here.
        let config = format!(
            "[[service]]\nname = \"victim\"\nexe = {exe:?}\nlisten = [\"unix:{}\"]\nexpected = false\n\
             crash_loop = {{ restarts = 100000, window = \"1s\" }}\n",
            path.display()
        );
        let daemon = Probed::start(&sandbox, &config);
        let watcher = Watcher::start(daemon.socket())?;
        Ok(Self {
            sandbox,
            exe,
            path,
            watcher,
            daemon,
        })
    }

    /// Starts the listener, kills it, and notes when who knew.
    fn kill(&self, found: &mut Found, peers: Option<&Peers>) -> anyhow::Result<()> {
        let victim = Load::start(&self.exe, &["listener", &self.path.display().to_string()])?;
        let pid = victim.pid();
        self.watcher.wait("that it is ready", |s| {
            s.is("event", "ready") && s.line["process"]["pid"] == pid
        })?;
        if let Some(peers) = peers {
            peers.expect_alive(&self.sandbox, pid)?;
        }
        let waiting = PidfdWait::begin(&victim)?;
        let killed = clock::now();
        victim.signal(Signal::KILL)?;
        let after = |at: Nanos| nanos(at.since(killed));
        let (mut event, mut finding) = (None, None);
        self.watcher.wait("the exit and the stale socket", |seen| {
            if seen.is("event", "exit") && seen.line["process"]["pid"] == pid {
                event = Some((seen.at, seen.boot_ns()));
            }
            if seen.is("finding", "stale-socket") && seen.line["state"] == "opened" {
                finding = Some(seen.at);
            }
            event.is_some() && finding.is_some()
        })?;
        let (Some((at, kernel)), Some(finding)) = (event, finding) else {
            bail!("not told")
        };
        found.times.push((kernel, at));
        found.event.push(nanos(at.since(kernel)));
        found.event_from_kill.push(after(at));
        found.finding.push(after(finding));
        found.pidfd.push(after(waiting.ended()?));
        // Reaped: monit takes a process that has ended and is not reaped for one that is there.
        drop(victim);
        if let Some(peers) = peers {
            peers.noticed(pid, killed, found)?;
        }
        Ok(())
    }
}

/// The floor: a thread that waits for nothing but this.
struct PidfdWait(Receiver<anyhow::Result<Nanos>>);

impl PidfdWait {
    fn begin(victim: &Load) -> anyhow::Result<Self> {
        let fd = victim.pidfd().try_clone()?;
        let (tell, told) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        thread::spawn(move || {
            let wait = || -> anyhow::Result<Nanos> {
                process::prefer_this_thread()?;
                _ = begin.send(());
                poll(
                    &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::NONE,
                )?;
                Ok(clock::now())
            };
            _ = tell.send(wait());
        });
        begun.recv().context("it does not wait")?;
        // It has said so right before it waits.
        thread::sleep(Duration::from_millis(1));
        Ok(Self(told))
    }

    fn ended(self) -> anyhow::Result<Nanos> {
        self.0.recv()?
    }
}

/// monit and lsof, each looking once a second.
struct Peers {
    monit: Option<Monit>,
    lsof: Option<Looking>,
    snoops: Vec<Snoop>,
}

impl Peers {
    fn start(scene: &Scene, row: &mut Row) -> anyhow::Result<Self> {
        let mut there = |name: &str| {
            let is = peer::is_there(name);
            if !is {
                row.skipped.push(format!("{name} is not installed"));
            }
            is
        };
        let monit = match there("monit") {
            true => Some(Monit::of_listener(scene.sandbox.dir(), &scene.path)?),
            false => None,
        };
        let lsof = there("lsof").then(|| Looking::start(&scene.path));
        Ok(Self {
            monit,
            lsof,
            snoops: Vec::new(),
        })
    }

    fn snoops(row: &mut Row) -> anyhow::Result<Self> {
        let (snoops, skipped) = snoop::all()?;
        row.skipped.extend(skipped);
        Ok(Self {
            monit: None,
            lsof: None,
            snoops,
        })
    }

    /// Both have seen that it is there.
    fn expect_alive(&self, _sandbox: &Sandbox, _pid: u32) -> anyhow::Result<()> {
        if let Some(monit) = &self.monit {
            monit.wait_for_health(true)?;
        }
        if let Some(lsof) = &self.lsof {
            lsof.wait(true)?;
        }
        Ok(())
    }

    fn noticed(&self, pid: u32, killed: Nanos, found: &mut Found) -> anyhow::Result<()> {
        for snoop in &self.snoops {
            let told = nanos(snoop.told_of(pid)?.since(killed));
            found.snoops.entry(snoop.name).or_default().push(told);
        }
        if let Some(monit) = &self.monit {
            found
                .monit
                .push(nanos(monit.wait_for_health(false)?.since(killed)));
        }
        if let Some(lsof) = &self.lsof {
            found.lsof.push(nanos(lsof.wait(false)?.since(killed)));
        }
        Ok(())
    }
}

/// `lsof PATH` once a second, as a script would.
struct Looking {
    seen: Receiver<(Nanos, bool)>,
}

impl Looking {
    fn start(path: &Path) -> Self {
        let (tell, seen) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || {
            loop {
                let is_there = peer::time(&mut peer::lsof(&path)).is_ok();
                if tell.send((clock::now(), is_there)).is_err() {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        Self { seen }
    }

    fn wait(&self, is_there: bool) -> anyhow::Result<Nanos> {
        loop {
            let (at, seen) = self.seen.recv_timeout(Duration::from_secs(20))?;
            if seen == is_there {
                return Ok(at);
            }
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}
