//! `cargo xtask vm`: the kernel tests on real kernels of Debian, each booted under software emulation.
//!
//! Kernels come from the package mirror that this machine's apt is configured with, and are unpacked, never installed. The
//! virtual machine has no disk and no network: what it needs is in its initial file system.

mod archive;
mod arm64;
mod guest;
mod kernel;
mod machine;
mod mirror;
mod programs;
mod systemd;
mod table;
mod userland;

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use self::{kernel::Release, machine::Report};
use crate::{apt, child, workspace};

/// Debian packages of the virtual machine.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "busybox-static", "xz-utils"];

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these kernels; the default is all
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) kernel: Vec<Release>,

    /// Only these tiers; the default is both on 6.1 and on the newest kernel, and fentry on the others
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) tier: Vec<Tier>,

    /// The tests of units instead, in a Debian with systemd
    #[arg(long)]
    pub(crate) systemd: bool,

    /// On a kernel for 64-bit ARM instead; 6.12 where --kernel names no other
    #[arg(long, conflicts_with = "systemd")]
    pub(crate) arm64: bool,

    /// Write the table of hooks into the README
    #[arg(long)]
    pub(crate) table: bool,

    /// Print everything that the virtual machines print
    #[arg(long)]
    pub(crate) verbose: bool,

    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
}

/// What `probe watch --tier` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Tier {
    Fentry,
    Tracepoint,
    Auto,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
            Self::Auto => "auto",
        })
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (mut passed, mut failed) = (0, 0);
    let outcome = chosen(args, |report| {
        passed += report.passed.len();
        failed += report.failed.len();
    });
    println!("{passed} passed, {failed} failed");
    outcome
}

fn chosen(args: &Args, mut each: impl FnMut(&Report)) -> anyhow::Result<()> {
    let report = match args {
        Args { systemd: true, .. } => systemd::run(args)?,
        Args { arm64: true, .. } => arm64::run(args)?,
        _ => return matrix(args, each),
    };
    each(&report);
    ensure!(report.failed.is_empty(), "{}", report.failed.join(", "));
    Ok(())
}

/// Runs every kernel with every tier that was asked for, and hands out each report.
pub(crate) fn matrix(args: &Args, mut each: impl FnMut(&Report)) -> anyhow::Result<()> {
    apt::install(&PACKAGES).context("the virtual machines need these packages")?;
    let guest = guest::build(args.filter.as_deref(), &programs::Target::default())?;
    let chosen = |r: &Release| args.kernel.is_empty() || args.kernel.contains(r);
    let releases: Vec<Release> = Release::value_variants().iter().copied().filter(chosen).collect();
    let mut reports = Vec::new();
    let mut kernels = 0;
    let mut wrong = Vec::new();
    for release in &releases {
        let kernel = match kernel::fetch(*release) {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("{release}: skipped: {error:#}");
                continue;
            }
        };
        kernels += 1;
        for tier in tiers(*release, args) {
            let began = child::now();
            match machine::run(&kernel, tier, &guest, args.verbose) {
                Ok(report) => {
                    println!(
                        "{release} {tier}: {} passed, {} failed in {} s",
                        report.passed.len(),
                        report.failed.len(),
                        began.elapsed().as_secs()
                    );
                    if !report.failed.is_empty() {
                        wrong.push(format!("{release} {tier}: {}", report.failed.join(", ")));
                    }
                    each(&report);
                    reports.push(report);
                }
                Err(error) => {
                    println!("{release} {tier}: FAILED: {error:#}");
                    wrong.push(format!("{release} {tier}: {error:#}"));
                }
            }
            ensure!(!child::interrupted(), "interrupted");
        }
    }
    let text = table::markdown(&reports);
    println!("\n{text}");
    let findings = differing(&reports);
    if args.table {
        table::write(&workspace::root().join("README.md"), &text)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    ensure!(findings.is_empty(), "{}", findings.join("; "));
    // One kernel that was asked for by name is enough; of many that vanished, two must be left.
    ensure!(
        kernels >= releases.len().min(2),
        "only {kernels} of {} kernels could be had",
        releases.len()
    );
    Ok(())
}

fn tiers(release: Release, args: &Args) -> Vec<Tier> {
    if !args.tier.is_empty() {
        return args.tier.clone();
    }
    match release {
        Release::V6_1 | Release::V7_2 => vec![Tier::Fentry, Tier::Tracepoint],
        Release::V5_10 | Release::V6_12 => vec![Tier::Fentry],
    }
}

/// Tests that say what they found, and whose findings are not the same in every tier of one kernel.
fn differing(reports: &[Report]) -> Vec<String> {
    let mut seen: BTreeMap<(Release, &str), (Tier, &str)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for report in reports {
        for (test, findings) in &report.findings {
            let key = (report.release, test.as_str());
            match seen.get(&key) {
                Some((tier, other)) if *other != findings => wrong.push(format!(
                    "{} {test}: {tier} finds {other}, {} finds {findings}",
                    report.release, report.tier
                )),
                Some(_) => {}
                None => {
                    seen.insert(key, (report.tier, findings));
                }
            }
        }
    }
    wrong
}
