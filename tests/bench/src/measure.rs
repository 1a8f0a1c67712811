//! The measures, one file each.

mod build;
mod cold;
mod engine;
mod idle;
mod latency;
mod services;
mod storm;
mod stream;
mod tax;
mod who;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::ensure;
use probe_tests::Sandbox;

use crate::row::Row;

/// One measurement, and the rows that it fills.
struct Measure {
    /// Name, title, method.
    rows: &'static [(&'static str, &'static str, &'static str)],
    run: fn(&mut [Row]) -> anyhow::Result<()>,
}

/// In the order of the table.
const ALL: [Measure; 9] = [
    latency::MEASURE,
    who::MEASURE,
    cold::MEASURE,
    idle::MEASURE,
    storm::MEASURE,
    tax::MEASURE,
    services::MEASURE,
    stream::MEASURE,
    build::MEASURE,
];

static SHORT: AtomicBool = AtomicBool::new(false);

/// So many samples, or a few where only the measure itself is tried out.
fn samples(count: usize) -> usize {
    match SHORT.load(Ordering::Relaxed) {
        true => count.div_ceil(10).max(2),
        false => count,
    }
}

/// All rows, in the order of the table.
pub(crate) fn row_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|m| m.rows.iter().map(|r| r.0))
}

/// Measures what is named, or everything. A measure that fails leaves why in its rows.
pub(crate) fn all(names: &[String], short: bool) -> anyhow::Result<Vec<Row>> {
    SHORT.store(short, Ordering::Relaxed);
    let known: Vec<&str> = row_names().collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "there is no measure {name:?}; there are {}",
            known.join(", ")
        );
    }
    let is_wanted = |m: &&Measure| names.is_empty() || m.rows.iter().any(|r| names.iter().any(|n| n == r.0));
    Ok(ALL.iter().filter(is_wanted).flat_map(Measure::take).collect())
}

impl Measure {
    fn take(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .rows
            .iter()
            .map(|(name, title, method)| Row::new(name, title, method))
            .collect();
        let names: Vec<&str> = self.rows.iter().map(|r| r.0).collect();
        let began = probe_user::clock::now();
        println!("{} …", names.join(", "));
        // The helpers of the end-to-end tests panic.
        let result = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut rows)));
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(format!("{e:#}")),
            Err(panic) => Some(
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "it panicked".to_owned()),
            ),
        };
        println!("  after {:.1?}", probe_user::clock::now().since(began));
        if let Some(error) = &error {
            eprintln!("  {}: {error}", names.join(", "));
        }
        for row in &mut rows {
            row.error.clone_from(&error);
        }
        rows
    }
}

/// A table for each of the daemons that `load::daemons` makes in the sandbox.
fn declare_daemons(sandbox: &Sandbox, exe: &Path, count: usize) -> String {
    declare_daemons_in(sandbox.dir(), exe, count)
}

/// Of many only what they listen at: a file of the configuration must not be too long.
fn declare_daemons_in(place: &Path, exe: &Path, count: usize) -> String {
    let mut config = String::new();
    for n in 0..count {
        let of = |what: &str| place.join(format!("s{n}.{what}")).display().to_string();
        config.push_str(&format!(
            "[[service]]\nname = \"s{n}\"\nlisten = [\"unix:{}\"]\n",
            of("sock")
        ));
        if count <= 1_000 {
            config.push_str(&format!("pid_file = \"{}\"\n", of("pid")));
        }
        // Hundreds of services do not share one executable: each process would be asked about for each of them.
        if count <= 100 {
            config.push_str(&format!("exe = {exe:?}\n"));
        }
    }
    config
}
