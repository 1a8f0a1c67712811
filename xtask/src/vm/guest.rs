//! What runs in the virtual machines: probe, our faulty daemon, the tests, and what they need.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    Job, MACHINE_KERNEL, Tier, Work,
    archive::Archive,
    programs::{self, Programs, Target, Unit},
};
use crate::child;

/// The tests that run in the machines: those about what the kernel tells. They need no daemon but our own.
const TESTS: [&str; 8] = [
    "kernel_sockets",
    "kernel_holders",
    "kernel_paths",
    "kernel_processes",
    "kernel_pins",
    MACHINE,
    BOTH,
    REFUSED,
];
/// The one that sets the clock, puts the machine to sleep, and takes its limits away. One kernel
/// and tier are enough.
const MACHINE: &str = "kernel_machine";
/// The one that runs probe in both tiers at once.
const BOTH: &str = "kernel_findings";
/// The one for kernels that refuse every trampoline, as all do where ftrace is off.
const REFUSED: &str = "kernel_tiers";
/// The one that counts instructions.
const COST: &str = "kernel_cost";
/// What programs for another machine need; ldd(1) can't look at those.
const LIBRARIES: [&str; 4] = ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];
/// Prints what the tests recorded.
const KEPT: &str = "for f in /tmp/traces/*; do sed \"s/^/VM-TRACE ${f##*/} /\" $f; done";
/// How long a test waits for anything, in seconds: emulation is slow.
const PATIENCE: u32 = 90;

/// Programs, built.
#[derive(Debug)]
pub(super) struct Guest {
    programs: Programs,
    filter: String,
    busybox: PathBuf,
    /// Where another machine's libraries are; `None`: this machine's own are used.
    sysroot: Option<PathBuf>,
    /// Whether the tests' recordings are printed at the end.
    pub(super) keep_traces: bool,
    /// Tests that are left out, by a part of their names.
    pub(super) skip: &'static [&'static str],
}

/// Builds everything; `more` are further tests.
pub(super) fn build(filter: Option<&str>, more: &[&str], target: &Target) -> anyhow::Result<Guest> {
    let busybox = match &target.busybox {
        Some(path) => path.clone(),
        None => find("busybox")?,
    };
    let tests = TESTS.iter().chain([&COST]).chain(more);
    let tests: Vec<String> = tests.map(|t| (*t).to_owned()).collect();
    Ok(Guest {
        programs: programs::build(&tests, target)?,
        filter: filter.unwrap_or_default().to_owned(),
        busybox,
        sysroot: target.sysroot.clone(),
        keep_traces: false,
        skip: &[],
    })
}

pub(super) fn find(program: &str) -> anyhow::Result<PathBuf> {
    for directory in ["/usr/bin", "/bin"] {
        let path = Path::new(directory).join(program);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{program} is not installed")
}

impl Guest {
    /// Writes the initial file system for one kernel and one tier.
    pub(super) fn write(&self, to: &Path, job: &Job<'_>) -> anyhow::Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(to)?));
        for directory in [
            "proc", "sys", "dev", "tmp", "run", "etc", "root", "var", "usr/bin",
        ] {
            archive.directory(directory)?;
        }
        archive.copy("bin/busybox", &self.busybox)?;
        archive.link("usr/bin/kill", "/bin/busybox")?;
        let mut libraries = BTreeSet::new();
        let mut programs = vec![
            ("t/probe", &self.programs.probe),
            ("t/faulty", &self.programs.faulty),
        ];
        let tests: Vec<(String, &PathBuf)> = self
            .tests(job)
            .map(|(name, path)| (format!("t/deps/{name}"), path))
            .collect();
        let units = self.programs.units.iter();
        let units: Vec<_> = units.map(|u| (format!("t/deps/{}", u.name), &u.path)).collect();
        programs.extend(units.iter().map(|(name, path)| (name.as_str(), *path)));
        programs.extend(tests.iter().map(|(name, path)| (name.as_str(), *path)));
        for (path, from) in programs {
            archive.copy(path, from)?;
            if self.sysroot.is_none() {
                libraries.extend(needs(from)?);
            }
        }
        for library in &libraries {
            let path = library.to_str().context("a library's path is no text")?;
            archive.copy(path.trim_start_matches('/'), library)?;
        }
        if let Some(sysroot) = &self.sysroot {
            for library in LIBRARIES {
                archive.copy(&format!("lib/{library}"), &sysroot.join("lib").join(library))?;
            }
        }
        for (number, module) in job.kernel.modules.iter().enumerate() {
            archive.copy(&format!("modules/{number}.ko"), module)?;
        }
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")?;
        archive.file("init", self.init(job).as_bytes())?;
        archive.finish()?;
        Ok(())
    }

    fn tests(&self, job: &Job<'_>) -> impl Iterator<Item = &(String, PathBuf)> {
        let Job { tier, work, kernel } = *job;
        let is_elsewhere =
            move |name: &str| name == MACHINE && (kernel.release != MACHINE_KERNEL || tier != Tier::Fentry);
        // Once for a kernel is enough.
        let is_twice = move |name: &str| name == BOTH && tier == Tier::Tracepoint;
        self.programs.tests.iter().filter(move |(name, _)| {
            (name == COST) == (work == Work::Cost) && !is_twice(name) && !is_elsewhere(name)
        })
    }

    /// The first process. Lines that begin with `VM-` are for [`super::machine`].
    fn init(&self, job: &Job<'_>) -> String {
        let tests: Vec<&str> = self.tests(job).map(|(name, _)| name.as_str()).collect();
        let tier = job.tier;
        // A filter is for the others: the test harness would run what either chooses.
        let units = self.programs.units.iter().filter(|_| self.filter.is_empty());
        let units = units.map(|u| {
            let Unit { name, filter, .. } = u;
            format!("echo VM-TEST {name}\n/t/deps/{name} --test-threads=1 {filter} || rc=1\n")
        });
        let units: String = units.collect();
        let icount = match job.work {
            Work::Tests => "",
            Work::Cost => "mkdir /apart; mount -t tmpfs apart /apart; export PROBE_TEST_ICOUNT=/apart",
        };
        let skip: String = self.skip.iter().map(|name| format!(" --skip {name}")).collect();
        // A machine cannot hand out files: they leave it line by line.
        let (keep, kept) = match self.keep_traces {
            true => ("export PROBE_KEEP_TRACES=/tmp/traces", KEPT),
            false => ("", ""),
        };
        let io_uring = match job.kernel.release.binds_by_io_uring() {
            true => "export PROBE_TEST_IO_URING=must",
            false => "",
        };
        format!(
            "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
for m in /modules/*; do insmod $m; done
echo 0 > /proc/sys/kernel/printk
export PROBE_BIN=/t/probe PROBE_TEST_TIER={tier} PROBE_TEST_PATIENCE={PATIENCE} PROBE_TEST_FINDINGS=/tmp/findings
export PROBE_TEST_MACHINE=own
{icount}
{keep}
{io_uring}
echo VM-START $(uname -r)
echo VM-DOCTOR $(/t/probe doctor --json --tier {tier})
rc=0
for t in {}; do
  echo VM-TEST $t
  [ $t = {REFUSED} ] && echo 0 > /proc/sys/kernel/ftrace_enabled && export PROBE_TEST_TIER=auto
  /t/deps/$t --test-threads=1 --show-output{skip} {} || rc=1
done
echo 1 > /proc/sys/kernel/ftrace_enabled; export PROBE_TEST_TIER={tier}
{units}
[ -e /tmp/findings ] && sed 's/^/VM-FINDINGS /' /tmp/findings
{kept}
echo VM-END $rc
poweroff -f
",
            tests.join(" "),
            quoted(&self.filter),
        )
    }
}

/// For the shell of the guest.
pub(super) fn quoted(word: &str) -> String {
    match word.is_empty() {
        true => String::new(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// The shared libraries of a program, and its loader.
fn needs(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = child::capture(Command::new("ldd").arg(program), Duration::from_secs(60))?;
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_stays_one_word() {
        assert_eq!(quoted(""), "");
        assert_eq!(quoted("a'b c"), "'a'\\''b c'");
    }
}
