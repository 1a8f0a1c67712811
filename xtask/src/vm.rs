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

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use self::{
    kernel::{Arch, Kernel, Release},
    programs::Target,
};
pub(crate) use self::{machine::Report, mirror::own_suite, userland::bootstrap};
use crate::{apt, child, workspace};

/// On which the machine itself is put through something: one kernel is enough.
pub(crate) const MACHINE_KERNEL: Release = Release::V6_1;

/// Debian packages of the virtual machine.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "busybox-static", "xz-utils"];

#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Only these kernels; the default is all
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) kernel: Vec<Release>,

    /// Only these tiers; the default is both on 6.1 and on the newest kernel, and fentry on the others
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) tier: Vec<Tier>,

    /// Count what system calls of others cost, instead of running the tests
    #[arg(long, conflicts_with = "table")]
    pub(crate) icount: bool,

    /// The tests of units instead, in a Debian with systemd; on 6.1 where --kernel names no other
    #[arg(long, conflicts_with_all = ["icount", "table"])]
    pub(crate) systemd: bool,

    /// On a kernel for 64-bit ARM instead; on 6.12 where --kernel names no other
    #[arg(long, conflicts_with_all = ["icount", "table", "systemd"])]
    pub(crate) arm64: bool,

    /// Write the table of hooks into the README
    #[arg(long)]
    pub(crate) table: bool,

    /// Keep the tests' recordings and their findings here; one kernel and one tier make sense with it
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "icount")]
    pub(crate) keep_traces: Option<PathBuf>,

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
    let mut each = |report: &Report| {
        passed += report.passed.len();
        failed += report.failed.len();
    };
    let outcome = match args {
        Args { systemd: true, .. } => systemd(args, &mut each),
        Args { arm64: true, .. } => arm64(args, &mut each),
        _ => matrix(args, &mut each),
    };
    println!("{passed} passed, {failed} failed");
    outcome
}

/// Everything that the lane of the kernels is: all tests on all of them, and what system calls cost on two.
pub(crate) fn all(filter: Option<&str>, mut each: impl FnMut(&Report)) -> anyhow::Result<()> {
    let mut args = Args {
        filter: filter.map(str::to_owned),
        ..Args::default()
    };
    let tests = matrix(&args, &mut each);
    args.icount = true;
    args.kernel = vec![Release::V6_1, Release::V7_2];
    // A filter may leave nothing of it.
    let costs = match filter {
        Some(_) => Ok(()),
        None => matrix(&args, &mut each),
    };
    tests.and(costs)
}

/// The tests of units.
pub(crate) fn systemd(args: &Args, each: impl FnMut(&Report)) -> anyhow::Result<()> {
    alone(systemd::run(args)?, each)
}

/// The rows of tables that the tests of a machine print.
pub(crate) fn rows(args: &Args) -> (Vec<String>, anyhow::Result<()>) {
    let mut rows = Vec::new();
    let mut each = |report: &Report| rows.extend(report.rows.iter().cloned());
    let outcome = match args.systemd {
        true => systemd(args, &mut each),
        false => matrix(args, &mut each),
    };
    (rows, outcome)
}

/// Tests of what the kernel tells, on a kernel for 64-bit ARM.
pub(crate) fn arm64(args: &Args, each: impl FnMut(&Report)) -> anyhow::Result<()> {
    alone(arm64::run(args)?, each)
}

fn alone(report: Report, mut each: impl FnMut(&Report)) -> anyhow::Result<()> {
    each(&report);
    ensure!(report.failed.is_empty(), "{}", report.failed.join(", "));
    Ok(())
}

/// Runs every kernel with every tier that was asked for, and hands out each report.
fn matrix(args: &Args, each: &mut impl FnMut(&Report)) -> anyhow::Result<()> {
    apt::install(&PACKAGES).context("the virtual machines need these packages")?;
    let work = match args.icount {
        true => Work::Cost,
        false => Work::Tests,
    };
    let mut guest = guest::build(args.filter.as_deref(), &[], &Target::default())?;
    guest.keep_traces = args.keep_traces.is_some();
    let chosen = |r: &Release| args.kernel.is_empty() || args.kernel.contains(r);
    let releases: Vec<Release> = Release::value_variants().iter().copied().filter(chosen).collect();
    let mut kernels = Vec::new();
    for release in &releases {
        match kernel::fetch(*release) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => println!("{release}: skipped: {error:#}"),
        }
    }
    // One kernel that was asked for by name is enough; of many that vanished, two must be left.
    ensure!(
        kernels.len() >= releases.len().min(2),
        "only {} of {} kernels could be had",
        kernels.len(),
        releases.len()
    );
    // The newest kernel boots slowest: it comes first, so that no machine is left waiting for it at the end.
    let jobs: Vec<Job<'_>> = kernels
        .iter()
        .rev()
        .flat_map(|kernel| {
            let tiers = tiers(kernel.release, args);
            tiers.into_iter().map(move |tier| Job { kernel, tier, work })
        })
        .collect();
    let mut outcomes = side_by_side(&jobs, |job| {
        let began = child::now();
        let outcome = machine::run(job, &guest, args.verbose);
        println!("{job}: {} in {} s", summary(&outcome), began.elapsed().as_secs());
        outcome
    });
    ensure!(!child::interrupted(), "interrupted");
    outcomes.sort_by_key(|(job, _)| (job.kernel.release, job.tier));
    let mut reports = Vec::new();
    let mut wrong = Vec::new();
    for (job, outcome) in outcomes {
        match outcome {
            Ok(report) => {
                if !report.failed.is_empty() {
                    wrong.push(format!("{job}: {}", report.failed.join(", ")));
                }
                each(&report);
                reports.push(report);
            }
            Err(error) => wrong.push(format!("{job}: {error:#}")),
        }
    }
    let text = match work {
        Work::Tests => table::markdown(&reports),
        Work::Cost => table::costs(&reports),
    };
    println!("\n{text}");
    let findings = differing(&reports);
    if let Some(directory) = &args.keep_traces {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        for (name, text) in reports.iter().flat_map(|r| &r.traces) {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
    }
    if args.table && work == Work::Tests {
        table::write(&workspace::root().join("README.md"), &text)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    ensure!(findings.is_empty(), "{}", findings.join("; "));
    Ok(())
}

/// One boot.
#[derive(Clone, Copy, Debug)]
struct Job<'a> {
    kernel: &'a Kernel,
    tier: Tier,
    work: Work,
}

/// What a machine is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Tests,
    /// Counts instructions: slower, so only what needs it.
    Cost,
}

impl fmt::Display for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kernel.arch != Arch::Amd64 {
            write!(f, "{} ", self.kernel.arch)?;
        }
        write!(f, "{} {}", self.kernel.release, self.tier)
    }
}

/// Runs as many machines at once as there are processors for.
fn side_by_side<'a, T: Send>(
    jobs: &[Job<'a>],
    run: impl Fn(&Job<'a>) -> anyhow::Result<T> + Sync,
) -> Vec<(Job<'a>, anyhow::Result<T>)> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..processors.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if child::interrupted() {
                        return;
                    }
                    let outcome = run(job);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((*job, outcome));
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn summary(outcome: &anyhow::Result<Report>) -> String {
    match outcome {
        Ok(report) => format!("{} passed, {} failed", report.passed.len(), report.failed.len()),
        Err(error) => format!("FAILED: {error:#}"),
    }
}

fn tiers(release: Release, args: &Args) -> Vec<Tier> {
    if !args.tier.is_empty() {
        return args.tier.clone();
    }
    match release {
        _ if args.icount => vec![Tier::Fentry],
        Release::V6_1 | Release::V7_2 => vec![Tier::Fentry, Tier::Tracepoint],
        Release::V5_10 | Release::V6_12 => vec![Tier::Fentry],
    }
}

/// Findings that only the fentry tier makes; the other says in `cannot_see` that it does not.
const ONLY_FENTRY: [&str; 1] = ["bind-refused"];

/// Tests that say what they found, and whose findings are not the same in every tier of one kernel.
fn differing(reports: &[Report]) -> Vec<String> {
    let mut seen: BTreeMap<(Release, &str), (Tier, BTreeSet<&str>)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for report in reports {
        for (test, findings) in &report.findings {
            // What was lost at that moment makes verdicts unknown, and says nothing about the tier.
            if findings.iter().any(|f| f.starts_with("blind")) {
                continue;
            }
            let both = |f: &&str| !ONLY_FENTRY.iter().any(|kind| f.starts_with(kind));
            let findings: BTreeSet<&str> = findings.iter().map(String::as_str).filter(both).collect();
            let key = (report.release, test.as_str());
            match seen.get(&key) {
                Some((tier, other)) if *other != findings => wrong.push(format!(
                    "{} {test}: {tier} finds {other:?}, {} finds {findings:?}",
                    report.release, report.tier
                )),
                Some(_) => {}
                None => drop(seen.insert(key, (report.tier, findings))),
            }
        }
    }
    wrong
}
