//! What everybody else pays.

mod servers;
mod syscalls;

use anyhow::bail;
use probe_tests::{Probed, Sandbox};

use super::Measure;
use crate::{
    bpf::Empty,
    load::child::Load,
    row::{Better, Row, Unit},
    stats::{Samples, Span},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "tax",
        "The tax on others",
        "The same work without probe, beside a daemon that watches 20 other services, and beside empty eBPF programs at the \
         tracepoints of fork, exec, exit and signals; each in turn, the median of small batches. nginx and redis are declared, and \
         serve as many requests as they can.",
    )],
    run,
};

const ROUNDS: usize = 9;
const SERVER_ROUNDS: usize = 5;
const SERVICES: usize = 20;
/// Where probe has raw tracepoints too.
const TRACEPOINTS: [&str; 4] = [
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "signal_generate",
];

/// One kind of work: without, beside probe, and beside empty programs.
struct Work {
    what: &'static str,
    run: fn(&syscalls::Place) -> anyhow::Result<f64>,
    aim: Aim,
    without: Samples,
    beside: Samples,
    empty: Samples,
}

enum Aim {
    /// Nothing that stands out of the noise.
    Nothing,
    Percent(f64),
    Nanos(f64),
    None,
}

impl Work {
    fn new(what: &'static str, run: fn(&syscalls::Place) -> anyhow::Result<f64>, aim: Aim) -> Self {
        Self {
            what,
            run,
            aim,
            without: Samples::default(),
            beside: Samples::default(),
            empty: Samples::default(),
        }
    }
}

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let sandbox = Sandbox::new();
    let exe = sandbox.install(&std::env::current_exe()?, "watched");
    let directory = sandbox.dir().display().to_string();
    let _daemons = Load::start(&exe, &["daemons", &directory, &SERVICES.to_string()])?;
    let config = super::declare_daemons(&sandbox, &exe, SERVICES);
    let aside = Sandbox::new();
    let place = syscalls::Place::new(&sandbox, &aside)?;
    let mut all = [
        Work::new("getpid", syscalls::getpid, Aim::Nothing),
        Work::new("read of one byte", syscalls::read, Aim::Nothing),
        Work::new("dup + close", syscalls::close, Aim::Nothing),
        Work::new(
            "UNIX socket + bind + listen + close, undeclared",
            syscalls::unix_aside,
            Aim::Nothing,
        ),
        Work::new(
            "the same in a directory with declared sockets",
            syscalls::unix_beside,
            Aim::None,
        ),
        Work::new("kill between strangers", syscalls::kill, Aim::Nanos(120.0)),
        Work::new("fork + exit + wait", syscalls::fork, Aim::Percent(1.0)),
        Work::new("fork + exec + exit + wait", syscalls::exec, Aim::Percent(1.0)),
    ];
    let mut daemon = Probed::start(&sandbox, &config);
    for _ in 0..super::samples(ROUNDS) {
        daemon.stop();
        for work in &mut all {
            work.without.push((work.run)(&place)?);
        }
        daemon.begin();
        for work in &mut all {
            work.beside.push((work.run)(&place)?);
        }
        daemon.stop();
        let empty: Vec<Empty> = TRACEPOINTS
            .iter()
            .map(|t| Empty::at(t))
            .collect::<Result<_, _>>()?;
        for work in &mut all {
            work.empty.push((work.run)(&place)?);
        }
        drop(empty);
        daemon.begin();
    }
    for work in &all {
        tell(row, work);
    }
    drop(daemon);
    servers(row, &Sandbox::new())
}

fn tell(row: &mut Row, work: &Work) {
    let what = work.what;
    row.figure(&format!("{what}, without"), Unit::Nanos, &work.without);
    row.figure(&format!("{what}, beside probe"), Unit::Nanos, &work.beside);
    let span = Span::of_pairs(&work.beside, &work.without);
    row.ratio(what, Better::Lower, span);
    let floor = Span::of_pairs(&work.empty, &work.without);
    let percent = |s: Span| (s.value - 1.0) * 100.0;
    let more = (span.value - 1.0) * work.without.median();
    let with_noise = format!(
        "{:+.1} % ({:+.1} … {:+.1} %)",
        percent(span),
        percent(Span::exactly(span.low)),
        percent(Span::exactly(span.high))
    );
    match work.aim {
        Aim::Nothing => row.aim_or_noise(
            what,
            "nothing above the noise",
            &with_noise,
            match span.low <= 1.005 {
                true => (span.high - span.low <= 0.1).then_some(true),
                false => Some(false),
            },
        ),
        Aim::Percent(limit) => {
            let met = span.is_at_most(1.0 + limit / 100.0);
            row.aim_or_noise(what, &format!("≤ {limit} %"), &with_noise, met);
        }
        Aim::Nanos(limit) => row.aim_at_most(what, Unit::Nanos, more, limit),
        Aim::None => {}
    }
    row.floors.push(format!(
        "{what}: {:+.1} % ({:+.0} ns) beside empty programs, {with_noise} ({more:+.0} ns) beside probe",
        percent(floor),
        (floor.value - 1.0) * work.without.median(),
    ));
}

fn servers(row: &mut Row, sandbox: &Sandbox) -> anyhow::Result<()> {
    let (servers, missing) = servers::start(sandbox)?;
    row.skipped.extend(missing);
    if servers.is_empty() {
        return Ok(());
    }
    let config: String = servers.iter().map(servers::Server::declaration).collect();
    let mut daemon = Probed::start(sandbox, &config);
    let mut rates = vec![(Samples::default(), Samples::default()); servers.len()];
    for (server, (without, beside)) in servers.iter().zip(&mut rates) {
        // A B B A: what changes with time takes from both alike.
        for _ in 0..super::samples(SERVER_ROUNDS) {
            beside.push(server.requests_per_second()?);
            daemon.stop();
            without.push(server.requests_per_second()?);
            without.push(server.requests_per_second()?);
            daemon.begin();
            beside.push(server.requests_per_second()?);
        }
    }
    for (server, (without, beside)) in servers.iter().zip(&rates) {
        let name = server.name();
        row.figure(&format!("{name}, without"), Unit::PerSecond, without);
        row.figure(&format!("{name}, beside probe"), Unit::PerSecond, beside);
        let span = Span::of_pairs(beside, without);
        row.ratio(&format!("{name}, requests"), Better::Higher, span);
        let got = format!(
            "{:+.2} % ({:+.1} … {:+.1} %)",
            (span.value - 1.0) * 100.0,
            (span.low - 1.0) * 100.0,
            (span.high - 1.0) * 100.0
        );
        // As slowness.
        let slower = Span {
            low: 1.0 / span.high,
            value: 1.0 / span.value,
            high: 1.0 / span.low,
        };
        row.aim_or_noise(name, "≥ -0.5 %", &got, slower.is_at_most(1.0 / 0.995));
    }
    Ok(())
}
