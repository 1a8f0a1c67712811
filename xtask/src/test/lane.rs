//! The lanes, in the order in which they run: the quick ones first.

use std::{collections::BTreeSet, fmt, fs, process::Command, time::Duration};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use nix::unistd::geteuid;

use super::{needs, tally::Tally};
use crate::{bless, build_ebpf, child, deny, miri, package, soak, vm, workspace};

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Lane {
    /// cargo fmt --check
    Format,
    /// cargo clippy, warnings are errors
    Clippy,
    /// Unit tests of all crates
    Unit,
    /// The eBPF object is built anew and compared
    Ebpf,
    /// Recorded traces give the expected findings
    Replay,
    /// Real daemons on the running kernel (needs root)
    E2e,
    /// A short soak: what is found is what was done, and probe stays as large as it is (needs root)
    Soak,
    /// cargo deny: licences, sources, crates, and advisories where their database can be had
    Deny,
    /// Whether the static program compiles
    Static,
    /// What reads the kernel's records, under Miri (needs a nightly compiler)
    Miri,
    /// Daemons that people run, through a healthy life and a failure each (needs root)
    Daemons,
    /// The tests of what the kernel tells, on Debian's kernels under emulation
    Kernels,
    /// The tests of units, in a Debian with systemd under emulation (needs root)
    Systemd,
    /// The tests of what the kernel tells, on a kernel for 64-bit ARM under emulation
    Arm64,
}

/// The crate of the tests that need more than a compiler.
const TESTS: &str = "probe-tests";
/// The test that has its own lane.
const REPLAY: &str = "replay";
/// Another one.
const DAEMONS: &str = "daemons";
/// One after the other: the tests measure how soon a finding comes, and some load the whole machine.
const E2E_THREADS: &str = "--test-threads=1";
/// These mostly wait for daemons and for times to pass, and measure nothing.
const DAEMONS_THREADS: &str = "--test-threads=4";
/// So many must have run, whatever cannot be installed.
const ENOUGH_DAEMONS: usize = 12;
/// Seconds that they wait for a daemon: some take long to start beside others.
const DAEMONS_PATIENCE: &str = "30";

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "format",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::Ebpf => "ebpf",
            Self::Replay => "replay",
            Self::E2e => "e2e",
            Self::Soak => "soak",
            Self::Deny => "deny",
            Self::Static => "static",
            Self::Miri => "miri",
            Self::Daemons => "daemons",
            Self::Kernels => "kernels",
            Self::Systemd => "systemd",
            Self::Arm64 => "arm64",
        })
    }
}

impl Lane {
    /// Whether it counts tests, and a filter means something.
    pub(crate) fn has_tests(self) -> bool {
        matches!(self, Self::Unit | Self::Replay | Self::E2e | Self::Soak)
            || !(self.is_quick() || matches!(self, Self::Deny | Self::Static))
    }

    /// Whether it runs only when it is asked for: it takes longer than the rest together, or judges what changes without a
    /// change here.
    pub(crate) fn is_extra(self) -> bool {
        matches!(
            self,
            Self::Deny | Self::Static | Self::Miri | Self::Systemd | Self::Arm64
        )
    }

    /// Whether it is worth running for a few tests, where it is not named: machines take minutes to boot, and some fifty
    /// packages to install.
    pub(crate) fn is_quick(self) -> bool {
        !matches!(
            self,
            Self::Soak
                | Self::Deny
                | Self::Static
                | Self::Miri
                | Self::Daemons
                | Self::Kernels
                | Self::Systemd
                | Self::Arm64
        )
    }

    /// Why it can't run here, where that is no failure.
    pub(crate) fn cannot_run(self) -> Option<String> {
        if self == Self::Miri {
            return miri::missing();
        }
        let needs = match self {
            Self::E2e | Self::Soak | Self::Daemons => "it loads eBPF programs",
            Self::Systemd => "it makes a Debian with debootstrap",
            _ => return None,
        };
        (!geteuid().is_root()).then(|| format!("{needs} and needs root"))
    }

    /// For each child; a test has its own, shorter limits.
    fn limit(self) -> Duration {
        let minutes = match self {
            Self::Format => 5,
            Self::Soak | Self::Daemons => 15,
            Self::Clippy | Self::Unit | Self::Ebpf | Self::Replay | Self::Static => 30,
            Self::E2e | Self::Deny | Self::Miri | Self::Kernels | Self::Systemd | Self::Arm64 => 60,
        };
        Duration::from_secs(minutes * 60)
    }

    pub(crate) fn run(self, filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
        let mut cargo = workspace::cargo();
        match self {
            Self::Format => {
                needs::component("rustfmt", "fmt")?;
                child::show(cargo.args(["fmt", "--all", "--check"]), self.limit())
            }
            Self::Clippy => {
                needs::component("clippy", "clippy")?;
                cargo.args([
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--all-features",
                    "--",
                    "-D",
                    "warnings",
                ]);
                child::show(&mut cargo, self.limit())
            }
            Self::Unit => {
                // Some skip by name what is not installed; where it can be, it is.
                if geteuid().is_root() {
                    needs::packages()?;
                }
                cargo
                    .args(["test", "--no-fail-fast", "--workspace", "--exclude", TESTS])
                    .args(filter);
                self.tests(&mut cargo, filter, tally)
            }
            Self::Ebpf => build_ebpf::run(&build_ebpf::Args {
                check: true,
                // Without root nothing can be installed: then it says what it could not do.
                setup: geteuid().is_root(),
            }),
            Self::Replay => {
                bless::build_probe()?;
                cargo
                    .args(["test", "--package", TESTS, "--test", REPLAY])
                    .args(filter);
                self.tests(&mut cargo, filter, tally)
            }
            Self::E2e => {
                needs::packages()?;
                needs::schemathesis()?;
                child::show(
                    workspace::cargo().args(["build", "--package", "probe-user"]),
                    self.limit(),
                )?;
                cargo.args(["test", "--no-fail-fast", "--package", TESTS, "--lib", "--bins"]);
                for name in e2e_tests()? {
                    cargo.args(["--test", &name]);
                }
                cargo.args(filter).args(["--", E2E_THREADS]);
                self.tests(&mut cargo, filter, tally)
            }
            Self::Soak => {
                bless::build_probe()?;
                cargo
                    .args(["test", "--package", TESTS, "--test", soak::TEST])
                    .args(filter);
                self.tests(&mut cargo, filter, tally)
            }
            Self::Deny => deny::check(),
            Self::Static => package::check_static(),
            Self::Miri => self.tests(&mut miri::command(), None, tally),
            Self::Daemons => {
                needs::daemons();
                bless::build_probe()?;
                cargo
                    .args(["test", "--no-fail-fast", "--package", TESTS, "--test", DAEMONS])
                    .args(filter)
                    .args(["--", DAEMONS_THREADS])
                    .env("PROBE_TEST_PATIENCE", DAEMONS_PATIENCE);
                let mut skipped = BTreeSet::new();
                let result = self.watched(&mut cargo, filter, tally, |line| {
                    skipped.extend(skipped_daemon(line))
                });
                result.and_then(|()| enough_daemons(filter, &skipped))
            }
            Self::Kernels => vm::all(filter, |report| tally.add(counted(report))),
            Self::Systemd => vm::systemd(&machine(filter), |report| tally.add(counted(report))),
            Self::Arm64 => vm::arm64(&machine(filter), |report| tally.add(counted(report))),
        }
    }

    /// Runs tests, shows what they say, and counts them.
    fn tests(self, cargo: &mut Command, filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
        self.watched(cargo, filter, tally, |_| {})
    }

    /// Likewise; `each` gets the lines too.
    fn watched(
        self,
        cargo: &mut Command,
        filter: Option<&str>,
        tally: &mut Tally,
        mut each: impl FnMut(&str),
    ) -> anyhow::Result<()> {
        println!("$ {}", child::describe(cargo));
        let status = child::run(cargo, self.limit(), |line| {
            child::print(line);
            each(line);
            tally.add(Tally::parse(line).unwrap_or_default());
        })?;
        ensure!(status.success(), "{status}");
        // With a filter the tests may be another lane's.
        ensure!(filter.is_some() || tally.ran() > 0, "no test ran");
        Ok(())
    }
}

fn machine(filter: Option<&str>) -> vm::Args {
    vm::Args {
        filter: filter.map(str::to_owned),
        ..vm::Args::default()
    }
}

fn counted(report: &vm::Report) -> Tally {
    Tally {
        passed: report.passed.len() as u64,
        failed: report.failed.len() as u64,
        ignored: 0,
    }
}

/// The daemon that a line of a test names as one that is not installed: `skipped: NAME: …`.
fn skipped_daemon(line: &str) -> Option<String> {
    // The line may stand behind the name of the test.
    let (_, skipped) = line.split_once("skipped: ")?;
    Some(skipped.split_once(": ")?.0.to_owned())
}

/// A machine may lack some, but the lane means nothing where it lacks most.
fn enough_daemons(filter: Option<&str>, skipped: &BTreeSet<String>) -> anyhow::Result<()> {
    if filter.is_some() {
        return Ok(());
    }
    let examples = workspace::root().join("packaging/examples");
    let entries = fs::read_dir(&examples).with_context(|| format!("list {}", examples.display()))?;
    let mut ran = 0;
    for entry in entries {
        let name = entry?
            .path()
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        ran += usize::from(!skipped.contains(&name));
    }
    println!("{ran} daemons ran, {} skipped", skipped.len());
    ensure!(
        ran >= ENOUGH_DAEMONS,
        "only {ran} daemons ran, expected {ENOUGH_DAEMONS}; not installed: {skipped:?}"
    );
    Ok(())
}

/// The names of the end-to-end tests: every file of tests/tests, and every folder with a main.rs, but those with a lane of their own.
fn e2e_tests() -> anyhow::Result<Vec<String>> {
    let directory = workspace::root().join("tests/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_test =
            path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        if is_test && ![REPLAY, DAEMONS, soak::TEST].contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    ensure!(
        !names.is_empty(),
        "{} has no end-to-end test",
        directory.display()
    );
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_installed_is_counted_once_and_most_must_run() {
        let lines = [
            "test monit::one ... skipped: monit: /usr/bin/monit is not installed",
            "skipped: monit: /usr/bin/monit is not installed",
            "test nginx::two ... ok",
        ];
        let skipped: BTreeSet<String> = lines.iter().filter_map(|l| skipped_daemon(l)).collect();
        assert_eq!(skipped, BTreeSet::from(["monit".to_owned()]));
        assert!(enough_daemons(None, &skipped).is_ok());

        let examples = fs::read_dir(workspace::root().join("packaging/examples")).unwrap();
        let all = examples.map(|e| {
            e.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        });
        let all: BTreeSet<String> = all.collect();
        assert!(enough_daemons(None, &all).is_err());
        assert!(enough_daemons(Some("nginx"), &all).is_ok(), "one was asked for");
    }
}
