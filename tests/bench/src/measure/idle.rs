//! What probe takes while nothing happens.

use std::{fs, thread, time::Duration};

use anyhow::bail;
use probe_tests::{Probed, Sandbox};

use super::Measure;
use crate::{
    load::child::Load,
    peer::{self, Monit},
    process::{self, Used},
    row::{Better, Row, Unit},
    stats::Span,
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[
        (
            "idle",
            "Idle with 500 services",
            "500 daemons with a socket and a PID file each, and nothing happens to them. A daemon watches them all, and monit checks \
             all each second. 60 s alone, then 60 s beside 10,000 more processes. The slow snapshot of `settle_every` is \
             switched off for this; by default it is one a minute.",
        ),
        (
            "memory",
            "Memory",
            "Resident, after these 60 s: the daemon with 500 services, and another one with the 10,000.",
        ),
    ],
    run,
};

const FEW: usize = 500;
const MANY: usize = 10_000;
const LOOK: Duration = Duration::from_secs(60);
/// What a start leaves to be done.
const SETTLE: Duration = Duration::from_secs(6);

struct Fleet {
    daemon: Probed,
    sandbox: Sandbox,
    _daemons: Load,
}

impl Fleet {
    fn start(count: usize) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new();
        let exe = sandbox.install(&std::env::current_exe()?, "watched");
        let place = sandbox.path("run");
        fs::create_dir_all(&place)?;
        let daemons = Load::start(
            &exe,
            &["daemons", &place.display().to_string(), &count.to_string()],
        )?;
        let config = super::declare_daemons_in(&place, &exe, count);
        Ok(Self {
            daemon: Probed::with(&sandbox, "settle_every = \"1h\"", &config),
            sandbox,
            _daemons: daemons,
        })
    }
}

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [idle, memory] = rows else { bail!("two rows") };
    let few = Fleet::start(FEW)?;
    let monit = match peer::is_there("monit") {
        true => Some(Monit::of_daemons(
            &few.sandbox.path("run"),
            few.sandbox.dir(),
            FEW,
        )?),
        false => {
            idle.skipped.push("monit is not installed".into());
            None
        }
    };
    thread::sleep(SETTLE);
    look(idle, &few, monit.as_ref(), "alone")?;
    let resident = process::resident(few.daemon.pid())?;
    memory.value("500 services", Unit::Bytes, resident);
    memory.aim_at_most("500 services", Unit::Bytes, resident, 12.0 * 1_048_576.0);

    let many = Fleet::start(MANY)?;
    thread::sleep(SETTLE);
    look(idle, &few, monit.as_ref(), "beside 10,000 processes")?;
    let resident = process::resident(many.daemon.pid())?;
    memory.value("10,000 services", Unit::Bytes, resident);
    memory.aim_at_most("10,000 services", Unit::Bytes, resident, 40.0 * 1_048_576.0);
    idle.floors
        .push("a process that sleeps in epoll_wait: nothing".into());
    Ok(())
}

fn look(row: &mut Row, few: &Fleet, monit: Option<&Monit>, when: &str) -> anyhow::Result<()> {
    let read = || -> anyhow::Result<(Used, Option<Used>)> {
        let own = Used::by(few.daemon.pid())?;
        Ok((own, monit.map(|m| Used::by(m.pid())).transpose()?))
    };
    let (own, of_monit) = read()?;
    thread::sleep(LOOK);
    let (own_after, of_monit_after) = read()?;
    let switches = own_after.switches - own.switches;
    let percent = own_after.percent_since(&own);
    row.value(
        &format!("probe, {when}: times a thread ran"),
        Unit::Count,
        switches as f64,
    );
    row.value(&format!("probe, {when}: of one core"), Unit::Percent, percent);
    row.aim(
        &format!("wake-ups, {when}"),
        "none",
        &switches.to_string(),
        switches == 0,
    );
    row.aim_at_most(&format!("of one core, {when}"), Unit::Percent, percent, 0.05);
    if let (Some(before), Some(after)) = (of_monit, of_monit_after) {
        let theirs = after.percent_since(&before);
        row.value(&format!("monit, {when}: of one core"), Unit::Percent, theirs);
        // Nothing at all would be infinitely less: what a clock tick would be is taken for it.
        let span = Span::exactly(theirs / percent.max(0.001));
        row.aim_ratio(&format!("below monit, {when}"), Better::Higher, span, 70.0);
    }
    Ok(())
}
