//! One boot of one kernel, and what its tests said.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{
    Job, Tier, Work,
    guest::Guest,
    kernel::{Arch, Kernel, Release},
};
use crate::child;

/// For one boot with all tests, under emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// As fast as it goes.
pub(super) const EMULATED: [&str; 4] = ["-accel", "tcg,thread=multi", "-smp", "2"];

/// Of a machine that died.
const LAST_LINES: usize = 60;

/// What came of one boot.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) release: Release,
    pub(crate) tier: Tier,
    /// As `uname -r` says.
    pub(crate) kernel: String,
    pub(crate) doctor: Doctor,
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<String>,
    /// What each test found, as `kind service`, by the test's name.
    pub(crate) findings: BTreeMap<String, BTreeSet<String>>,
    pub(crate) costs: Vec<Cost>,
    /// Rows of tables that tests printed.
    pub(crate) rows: Vec<String>,
    /// Recordings and their findings, by the name of the file.
    pub(crate) traces: BTreeMap<String, String>,
}

/// What a system call of somebody else takes, in instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) call: String,
    /// Without probe, with it, and with a tracepoint on another system call.
    pub(crate) instructions: [u64; 3],
}

impl Cost {
    /// From `CALL: N N N`.
    fn parse(line: &str) -> Option<Self> {
        let (call, numbers) = line.rsplit_once(": ")?;
        let numbers: Vec<u64> = numbers.split(' ').map_while(|n| n.parse().ok()).collect();
        Some(Self {
            call: call.to_owned(),
            instructions: numbers.try_into().ok()?,
        })
    }
}

/// What `probe doctor --json` said, as far as it goes into the table.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Doctor {
    pub(crate) problem: Option<String>,
    pub(crate) hooks: Vec<Hook>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hook {
    pub(crate) hook: String,
    /// How it is attached; `None`: it is not.
    pub(crate) tier: Option<String>,
    pub(crate) reason: Option<String>,
}

/// Boots, runs the tests, and waits for the end.
///
/// # Errors
/// If the machine did not come as far as to run all tests. A failed test is none.
pub(super) fn run(job: &Job<'_>, guest: &Guest, verbose: bool) -> anyhow::Result<Report> {
    let Job { kernel, tier, work } = *job;
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let initrd = directory.path().join("initrd");
    guest
        .write(&initrd, job)
        .context("write the initial file system")?;
    let mut qemu = qemu(kernel, &initrd);
    match work {
        Work::Tests => qemu.args(EMULATED),
        // The clock moves by one nanosecond with each instruction.
        Work::Cost => qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1"]),
    };
    qemu.args(["-append", &format!("{} panic=-1 quiet", console(kernel))]);
    boot(&mut qemu, (kernel.release, tier), &job.to_string(), verbose)
}

/// A machine that still lacks its way of emulation and the command line of its kernel.
pub(super) fn qemu(kernel: &Kernel, initrd: &Path) -> Command {
    let mut qemu = match kernel.arch {
        Arch::Amd64 => {
            let mut qemu = Command::new("qemu-system-x86_64");
            // The unlocked cmpxchg16b of later kernels is not executed rightly by QEMU 7.2.
            qemu.args(["-cpu", "max,-cx16"]);
            qemu
        }
        Arch::Arm64 => {
            let mut qemu = Command::new("qemu-system-aarch64");
            // A newer one would spend its time on signing pointers.
            qemu.args(["-machine", "virt", "-cpu", "cortex-a72"]);
            qemu
        }
    };
    qemu.args(["-m", "2G"])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd);
    qemu
}

/// What every kernel is told: where it and the tests print to.
pub(super) fn console(kernel: &Kernel) -> &'static str {
    match kernel.arch {
        // It waits for some interrupts of the emulated timer, counting its own cycles, and panics where a busy host delivers none
        // in that time.
        Arch::Amd64 => "console=ttyS0 no_timer_check",
        Arch::Arm64 => "console=ttyAMA0",
    }
}

/// Boots a machine that runs tests and switches itself off. `label` is what lines for people begin with.
pub(super) fn boot(
    qemu: &mut Command,
    (release, tier): (Release, Tier),
    label: &str,
    verbose: bool,
) -> anyhow::Result<Report> {
    let mut log = Log::new(release, tier);
    log.label = label.to_owned();
    let status = child::run(qemu, LIMIT, |line| {
        let line = line.trim_end_matches('\r');
        if verbose {
            child::print(line);
        }
        log.line(line, verbose);
    });
    let last = log.all.split_off(log.all.len().saturating_sub(LAST_LINES));
    log.finish(status).inspect_err(|_| {
        if !verbose {
            last.iter().for_each(|line| child::print(line));
        }
    })
}

struct Log {
    report: Report,
    label: String,
    began: Instant,
    program: String,
    failures: bool,
    ended: bool,
    all: Vec<String>,
}

impl Log {
    fn new(release: Release, tier: Tier) -> Self {
        Self {
            report: Report {
                release,
                tier,
                kernel: String::new(),
                doctor: Doctor::default(),
                passed: Vec::new(),
                failed: Vec::new(),
                findings: BTreeMap::new(),
                costs: Vec::new(),
                rows: Vec::new(),
                traces: BTreeMap::new(),
            },
            label: String::new(),
            began: child::now(),
            program: String::new(),
            failures: false,
            ended: false,
            all: Vec::new(),
        }
    }

    fn line(&mut self, line: &str, quiet: bool) {
        // What the test harness says of failed tests stands between these.
        self.failures = match line {
            "failures:" => true,
            _ => self.failures && !line.starts_with("test result: "),
        };
        if self.failures && !quiet {
            child::print(&format!("{}: {line}", self.label));
        }
        let report = &mut self.report;
        // The firmware leaves control characters before the first line.
        if let Some((_, kernel)) = line.split_once("VM-START ") {
            report.kernel = kernel.to_owned();
        } else if let Some(json) = line.strip_prefix("VM-DOCTOR ") {
            match serde_json::from_str(json) {
                Ok(doctor) => report.doctor = doctor,
                Err(error) => report.doctor.problem = Some(format!("probe doctor said {json:?}: {error}")),
            }
        } else if let Some(program) = line.strip_prefix("VM-TEST ") {
            self.program = program.to_owned();
        } else if let Some((test, findings)) =
            line.strip_prefix("VM-FINDINGS ").and_then(|l| l.split_once(':'))
        {
            let found = findings
                .trim()
                .split(", ")
                .filter(|f| !f.is_empty())
                .map(str::to_owned);
            // A test can watch several times.
            report.findings.entry(test.to_owned()).or_default().extend(found);
        } else if let Some((file, line)) = line.strip_prefix("VM-TRACE ").and_then(|l| l.split_once(' ')) {
            let text = report.traces.entry(file.to_owned()).or_default();
            text.push_str(line);
            text.push('\n');
            // What is kept is not needed twice.
            return;
        } else if let Some(cost) = line.strip_prefix("VM-COST ").and_then(Cost::parse) {
            report.costs.push(cost);
        } else if line.starts_with("skipped: ") || line.starts_with("| ") {
            child::print(&format!("{}: {line}", self.label));
            report
                .rows
                .extend(line.starts_with("| ").then(|| line.to_owned()));
        } else if line.starts_with("VM-END ") {
            self.ended = true;
        } else if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... ")) {
            let name = format!("{}::{name}", self.program);
            if !quiet {
                child::print(&format!(
                    "{}: {:>4} s: {name} ... {verdict}",
                    self.label,
                    self.began.elapsed().as_secs()
                ));
            }
            match verdict {
                "ok" => report.passed.push(name),
                "ignored" => {}
                _ => report.failed.push(name),
            }
        }
        self.all.push(line.to_owned());
    }

    fn finish(self, status: anyhow::Result<std::process::ExitStatus>) -> anyhow::Result<Report> {
        let report = self.report;
        let status = status?;
        if report.kernel.is_empty() {
            bail!("the kernel did not start ({status})");
        }
        if let Some(problem) = &report.doctor.problem {
            bail!("nothing could be loaded: {problem}");
        }
        if !self.ended {
            bail!(
                "the machine ended ({status}) during {}, after {} tests",
                self.program,
                report.passed.len()
            );
        }
        if report.passed.is_empty() && report.failed.is_empty() {
            bail!("no test ran");
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_the_machine_printed_becomes_a_report() {
        let mut log = Log::new(Release::V6_1, Tier::Fentry);
        for line in [
            "SeaBIOS",
            "VM-START 6.1.0",
            r#"VM-DOCTOR {"problem":null,"hooks":[{"hook":"unix_bind","tier":"fentry","reason":null}]}"#,
            "VM-TEST sockets",
            "test a ... ok",
            "test b ... FAILED",
            "VM-FINDINGS sockets.a: stale-socket d",
            "VM-FINDINGS sockets.a: crashed d, stale-socket d",
            "VM-FINDINGS sockets.b: ",
            "VM-COST read beside: 1 2 3",
            "VM-TRACE sockets.a.jsonl {\"a\": 1}",
            "VM-TRACE sockets.a.jsonl {}",
            "VM-END 1",
        ] {
            log.line(line, true);
        }
        let report = log.finish(Ok(std::process::ExitStatus::from_raw(0))).unwrap();
        assert_eq!(report.passed, ["sockets::a"]);
        assert_eq!(report.failed, ["sockets::b"]);
        let found = |test: &str| report.findings[test].iter().cloned().collect::<Vec<_>>();
        assert_eq!(found("sockets.a"), ["crashed d", "stale-socket d"]);
        assert_eq!(
            report.costs,
            [Cost {
                call: "read beside".into(),
                instructions: [1, 2, 3]
            }]
        );
        assert_eq!(found("sockets.b"), Vec::<String>::new());
        assert_eq!(report.traces["sockets.a.jsonl"], "{\"a\": 1}\n{}\n");
        assert_eq!(report.doctor.hooks[0].hook, "unix_bind");
    }

    #[test]
    fn a_machine_that_dies_is_an_error() {
        let mut log = Log::new(Release::V6_1, Tier::Fentry);
        log.line("VM-START 6.1.0", true);
        log.line("test a ... ok", true);
        assert!(log.finish(Ok(std::process::ExitStatus::from_raw(0))).is_err());
    }
}
