//! From nothing to a joined snapshot.

use std::{process::Command, time::Duration};

use anyhow::bail;
use probe_tests::{Probed, Sandbox, probe_binary, until_within};
use probe_user::clock;

use super::Measure;
use crate::{
    load::child::Load,
    peer::{self, nanos},
    process,
    row::{Better, Row, Unit},
    stats::{Samples, Span},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "cold",
        "Cold start beside 5,000 processes",
        "From the start of `probe daemon`, which 20 running services are declared to, until it tells the service manager that it is \
         ready: its programs are attached, the first snapshot is joined, the API answers.",
    )],
    run,
};

const PROCESSES: usize = 5_000;
const SERVICES: usize = 20;
/// More than run on a host that does nothing else.
const FEW: usize = 1_000;
const ROUNDS: usize = 9;
const LSOF_ROUNDS: usize = 2;

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let sandbox = Sandbox::new();
    let exe = sandbox.install(&std::env::current_exe()?, "watched");
    let directory = sandbox.dir().display().to_string();
    let _daemons = Load::start(&exe, &["daemons", &directory, &SERVICES.to_string()])?;
    // Those of the measure before this one end in their own time.
    until_within(
        Duration::from_secs(120),
        "those of the measure before have ended",
        || process::count() < FEW,
    );
    let _bystanders = Load::own(&["bystanders", &PROCESSES.to_string(), "20"])?;
    let beside = process::count();
    let config = super::declare_daemons(&sandbox, &exe, SERVICES);
    let mut daemon = Probed::start(&sandbox, &config);
    let (mut ready, mut lsof, mut look) = (Samples::default(), Samples::default(), Samples::default());
    let there = peer::is_there("lsof");
    if !there {
        row.skipped.push("lsof is not installed".into());
    }
    for round in 0..super::samples(ROUNDS) {
        daemon.stop();
        let began = clock::now();
        daemon.begin();
        ready.push(nanos(clock::now().since(began)));
        if there && round < LSOF_ROUNDS {
            lsof.push(peer::time(&mut peer::lsof(&sandbox.path("s0.sock")))?);
        }
        let mut command = Command::new(probe_binary());
        look.push(peer::time(
            command.args(["who", "--alone"]).arg(sandbox.path("s0.sock")),
        )?);
    }
    row.figure(&format!("start → ready, {beside} processes"), Unit::Nanos, &ready);
    row.figure("lsof PATH", Unit::Nanos, &lsof);
    row.aim_at_most("start → ready", Unit::Nanos, ready.median(), 150e6);
    if lsof.len() > 0 {
        row.aim_ratio(
            "less than one lsof",
            Better::Higher,
            Span::of(&lsof, &ready),
            40.0,
        );
    }
    row.floors.push(format!(
        "one pass over all open files in the kernel, with the reading of the kernel's types that it needs (`probe who`): {}",
        Unit::Nanos.show(look.median())
    ));
    Ok(())
}
