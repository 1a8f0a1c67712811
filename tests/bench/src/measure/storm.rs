//! More than can be told.

use std::{thread, time::Duration};

use anyhow::{Context, bail};
use probe_tests::{Probed, Sandbox};
use probe_user::clock::{self, Nanos};
use rustix::process::Signal;

use super::Measure;
use crate::{
    load::{child::Load, storm},
    peer::nanos,
    row::{Row, Unit},
    stats::Samples,
    watcher::Watcher,
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "storm",
        "Storm: forks, exits and signals of a supervised process",
        "Two supervised daemons fork children that end at once, as fast as this machine's cores allow, while up to 50,000 signals a \
         second are sent to them, for 8 s. Then one of them is killed: that must be judged. Every event is either told or \
         counted as lost. The engine alone is fed with a million signals.",
    )],
    run,
};

const SECONDS: u64 = 8;
const SIGNALS_PER_SECOND: u64 = 50_000;
const LIMIT: Duration = Duration::from_secs(40);

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let sandbox = Sandbox::new();
    let mut config = String::new();
    let mut daemons = Vec::new();
    for name in ["north", "south"] {
        let exe = sandbox.install(&std::env::current_exe()?, name);
        let path = sandbox.path(&format!("{name}.sock"));
        config.push_str(&format!(
            "[[service]]\nname = {name:?}\nexe = {exe:?}\nlisten = [\"unix:{}\"]\n",
            path.display()
        ));
        let path = path.display().to_string();
        daemons.push(Load::start(&exe, &["storm", &path, &SECONDS.to_string()])?);
    }
    let daemon = Probed::start(&sandbox, &config);
    let watcher = Watcher::start(daemon.socket())?;
    let before = Counted::read(&daemon)?;
    let began = clock::now();
    for d in &daemons {
        d.signal(storm::BEGIN)?;
    }
    let sent = send_until_done(&mut daemons, began)?;
    let took = clock::now().since(began).as_secs_f64();
    let mut forks = 0;
    for d in &mut daemons {
        forks += d.line()?.parse::<u64>()?;
    }
    // The verdict: one ends, and nothing may hide it.
    let killed = clock::now();
    daemons[0].signal(Signal::KILL)?;
    let verdict = watcher
        .wait("the crash", |s| {
            s.is("finding", "crashed") && s.line["state"] == "opened"
        })
        .context("the verdict is lost")?;
    thread::sleep(Duration::from_millis(500));
    let after = Counted::read(&daemon)?;
    let told = after.told - before.told;
    let lost = after.lost - before.lost;
    // A fork and an exit each, and each signal.
    let happened = 2 * forks + sent;
    row.value(
        "forks and exits a second",
        Unit::PerSecond,
        2.0 * forks as f64 / took,
    );
    row.value("signals a second", Unit::PerSecond, sent as f64 / took);
    row.value("happened", Unit::Count, happened as f64);
    row.value("told", Unit::Count, told as f64);
    row.value("counted as lost", Unit::Count, lost as f64);
    row.value(
        "kill → verdict, right after the storm",
        Unit::Nanos,
        nanos(verdict.at.since(killed)),
    );
    row.aim("verdict after the storm", "told", "told", true);
    let unaccounted = happened.saturating_sub(told + lost);
    row.aim(
        "events neither told nor counted as lost",
        "0",
        &unaccounted.to_string(),
        unaccounted == 0,
    );
    engine(row)
}

/// Paces signals until all children have been forked; says how many were sent.
fn send_until_done(daemons: &mut [Load], began: Nanos) -> anyhow::Result<u64> {
    let mut sent = 0;
    let running = |daemons: &[Load]| daemons.iter().any(|d| !storm::is_done(d));
    while running(daemons) {
        let due = (clock::now().since(began).as_secs_f64() * SIGNALS_PER_SECOND as f64) as u64;
        // What this machine cannot do in time is left out, or nothing else would get to run.
        let batch = due.saturating_sub(sent).min(500);
        for n in 0..batch {
            daemons[(n % 2) as usize].signal(Signal::USR1)?;
        }
        sent += batch;
        if clock::now().since(began) > LIMIT {
            bail!("the storm did not end within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(sent)
}

/// What the daemon says of its own reading.
#[derive(Debug, Clone, Copy)]
struct Counted {
    told: u64,
    lost: u64,
}

impl Counted {
    fn read(daemon: &Probed) -> anyhow::Result<Self> {
        let text = daemon.http("GET", "/metrics").body;
        let sum = |name: &str| -> u64 {
            let lines = text
                .lines()
                .filter(|l| l.starts_with(name) && !l.starts_with('#'));
            lines
                .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
                .map(|v| v as u64)
                .sum()
        };
        Ok(Self {
            told: sum("probe_events_total"),
            lost: sum("probe_events_lost_total"),
        })
    }
}

/// The engine by itself: what it costs to judge a signal to a supervised process.
fn engine(row: &mut Row) -> anyhow::Result<()> {
    let mut rates = Samples::default();
    for _ in 0..5 {
        rates.push(super::engine::signals_per_second()?);
    }
    row.figure("engine, signals on one core", Unit::PerSecond, &rates);
    row.aim_at_least("engine", Unit::PerSecond, rates.median(), 1e6);
    Ok(())
}
