//! What more declared services cost.

use std::{fs, time::Duration};

use anyhow::{Context, bail, ensure};
use probe_tests::{Probed, Sandbox};
use probe_user::clock;
use rustix::process::Signal;

use super::Measure;
use crate::{
    load::child::Load,
    peer::nanos,
    process::Used,
    row::{Better, Plot, PlotLine, Row, Unit},
    stats::{Samples, Span},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "growth-services",
        "Growth with declared services, 10 → 10,000",
        "One of the services runs and gets 20,000 signals, paced so that none is lost: the daemon's CPU time for each. The others \
         are declared and do not run. Start: until it is ready. Reload: one service is changed, until the API has answered.",
    )],
    run,
};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const SIGNALS: usize = 20_000;
const ROUNDS: usize = 3;

struct Cost {
    event: Samples,
    start: Samples,
    reload: Samples,
}

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let mut all = Vec::new();
    for size in SIZES {
        let cost = measure(size)?;
        row.figure(
            &format!("CPU an event, {size} services"),
            Unit::Nanos,
            &cost.event,
        );
        row.figure(&format!("start, {size} services"), Unit::Nanos, &cost.start);
        row.figure(&format!("reload, {size} services"), Unit::Nanos, &cost.reload);
        all.push((size, cost));
    }
    let (Some((_, least)), Some((_, most))) = (all.first(), all.last()) else {
        bail!("nothing was measured")
    };
    row.aim_ratio(
        "cost of an event",
        Better::Lower,
        Span::of(&most.event, &least.event),
        1.2,
    );
    // Linear: what comes for each service, over what it was for the step before.
    let [.., (a, before), (b, last)] = &all[..] else {
        bail!("three sizes")
    };
    let each = |size: usize, cost: &Cost| (cost.start.median() - least.start.median()) / size as f64;
    let linear = each(*b, last) / each(*a, before);
    row.aim_ratio(
        "start for each service, 10,000 / 1,000",
        Better::Lower,
        Span::exactly(linear),
        1.2,
    );
    row.ratio(
        "reload, 10,000 / 10 services",
        Better::Lower,
        Span::of(&most.reload, &least.reload),
    );
    let parse = parse(SIZES[SIZES.len() - 1])?;
    row.floors.push(format!(
        "a reload reads and checks all files of the configuration first: {} for 10,000 services (`probe config check`)",
        Unit::Nanos.show(parse)
    ));
    row.aim_at_most(
        "reload of one of 10,000 services, without reading the configuration",
        Unit::Nanos,
        (most.reload.median() - parse).max(0.0),
        least.reload.median().max(50e6),
    );
    row.plots.push(Plot {
        name: "growth-services".into(),
        title: "Growth with declared services".into(),
        x: "declared services".into(),
        y: "ms".into(),
        lines: [
            ("start", (|c| c.start.median() / 1e6) as fn(&Cost) -> f64),
            ("reload of one changed service", |c| c.reload.median() / 1e6),
            ("CPU time of 1,000 events", |c| c.event.median() * 1e3 / 1e6),
        ]
        .into_iter()
        .map(|(name, of)| PlotLine {
            name: name.to_owned(),
            points: all.iter().map(|(size, cost)| (*size as f64, of(cost))).collect(),
        })
        .collect(),
    });
    Ok(())
}

/// The running one is the last: whoever searches in order comes to it last.
fn config(sandbox: &Sandbox, size: usize, changed: usize) -> String {
    let mut text = String::new();
    for n in 0..size - 1 {
        let path = sandbox.path(&format!("s{n}")).display().to_string();
        text.push_str(&format!(
            "[[service]]\nname = \"s{n}\"\nlisten = [\"unix:{path}\"]\nexpected = false\n"
        ));
    }
    text + &format!(
        "[[service]]\nname = \"target\"\nexe = {:?}\nstop_within = \"{changed}s\"\n",
        sandbox.path("target")
    )
}

fn measure(size: usize) -> anyhow::Result<Cost> {
    let sandbox = Sandbox::new();
    let exe = sandbox.install(&std::env::current_exe()?, "target");
    let target = Load::start(
        &exe,
        &["storm", &sandbox.path("target.sock").display().to_string(), "0"],
    )?;
    let mut daemon = Probed::with(&sandbox, "settle_every = \"1h\"", &config(&sandbox, size, 15));
    let mut cost = Cost {
        event: Samples::default(),
        start: Samples::default(),
        reload: Samples::default(),
    };
    for round in 0..super::samples(ROUNDS) {
        daemon.stop();
        let began = clock::now();
        daemon.begin();
        cost.start.push(nanos(clock::now().since(began)));
        cost.event.push(event(&daemon, &target)?);
        // It is written aside and asked for: what is measured is the reload, not how soon the change is noticed.
        let head = fs::read_to_string(daemon.config())?;
        let head = head.split("[[service]]").next().context("a head")?.to_owned();
        let text = head + &config(&sandbox, size, 16 + round);
        let new = daemon.config().with_extension("next");
        fs::write(&new, text)?;
        let began = clock::now();
        fs::rename(new, daemon.config())?;
        let answer = daemon.http("POST", "/v1/reload");
        cost.reload.push(nanos(clock::now().since(began)));
        ensure!(answer.code == 200, "the reload was refused: {answer:?}");
    }
    Ok(cost)
}

/// CPU time that the daemon takes for one signal.
fn event(daemon: &Probed, target: &Load) -> anyhow::Result<f64> {
    // What the start has left to do is over.
    std::thread::sleep(Duration::from_millis(500));
    let before = Used::by(daemon.pid())?;
    for n in 0..SIGNALS {
        target.signal(Signal::USR1)?;
        if n % 200 == 199 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = Used::by(daemon.pid())?;
    Ok(nanos(after.cpu.saturating_sub(before.cpu)) / SIGNALS as f64)
}

/// Reading and checking a configuration of that size, in nanoseconds.
fn parse(size: usize) -> anyhow::Result<f64> {
    let sandbox = Sandbox::new();
    let file = sandbox.write("probe.toml", &config(&sandbox, size, 15));
    let mut samples = Samples::default();
    for _ in 0..super::samples(ROUNDS) {
        let began = clock::now();
        probe_user::config::load::load(Some(&file), "/nowhere".as_ref())?;
        samples.push(nanos(clock::now().since(began)));
    }
    Ok(samples.median())
}
