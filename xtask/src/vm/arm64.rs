//! `cargo xtask vm --arm64`: the kernel tests on one of Debian's kernels for 64-bit ARM.

mod std;

use ::std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    Args, Job, Tier, Work, guest,
    kernel::{self, Arch, Release},
    machine::{self, Report},
    mirror::{self, Suite},
    programs::{Target, Unit},
};
use crate::{apt, child};

/// Tests of signals, processes and snapshots, besides those that run on every kernel.
const TESTS: [&str; 8] = [
    "crashed",
    "handover",
    "killed_while_stopping",
    "signal_blocked",
    "signal_ignored",
    "stopped",
    "trap",
    "unhandled_signal",
];
/// Of these, what needs programs that a machine with nothing but busybox lacks: nginx, lsof, and the kill(1) and setpriv(1) of
/// Debian.
const SKIPPED: [&str; 3] = ["nginx_upgrades", "while_lsof_names", "the_sender_"];
/// The layout of records, and the members of the kernel's structures.
const UNITS: [(&str, &str, &str); 2] = [
    ("probe-ebpf", "probe_abi", ""),
    ("probe-user", "probe_user", "kernel::"),
];

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Debian packages of the machine and of the programs that run there.
const PACKAGES: [&str; 4] = [
    "qemu-system-arm",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "xz-utils",
];
/// Where the cross compiler has its libraries.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// The first suite whose kernel is built by a compiler that BTF trampolines need on ARM.
const DEFAULT: Release = Release::V6_12;

/// Boots and runs the tests.
///
/// # Errors
/// If the machine did not come as far as to run all tests. A failed test is none.
pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    apt::install(&PACKAGES).context("the machine for 64-bit ARM needs these packages")?;
    let release = args.kernel.first().copied().unwrap_or(DEFAULT);
    let tier = args.tier.first().copied().unwrap_or(Tier::Auto);
    let kernel = kernel::fetch_for(release, Arch::Arm64)?;
    let mut guest = guest::build(args.filter.as_deref(), &TESTS, &target()?)?;
    guest.skip = &SKIPPED;
    println!(
        "arm64: skipped, because the machine has only busybox: {}",
        SKIPPED.join(", ")
    );
    let began = child::now();
    let job = Job {
        kernel: &kernel,
        tier,
        work: Work::Tests,
    };
    let report = machine::run(&job, &guest, args.verbose)?;
    println!(
        "arm64 {} {tier}: {} passed, {} failed in {} s",
        report.kernel,
        report.passed.len(),
        report.failed.len(),
        began.elapsed().as_secs()
    );
    for hook in report.doctor.hooks.iter().filter(|h| h.tier.is_none()) {
        println!(
            "arm64: {} is refused: {}",
            hook.hook,
            hook.reason.as_deref().unwrap_or_default()
        );
    }
    Ok(report)
}

fn target() -> anyhow::Result<Target> {
    let gcc = "aarch64-linux-gnu-gcc".to_owned();
    let mut target = Target {
        triple: Some(TRIPLE),
        strip: Some("aarch64-linux-gnu-strip"),
        variables: vec![
            (
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER".to_owned(),
                gcc.clone(),
            ),
            // For what is compiled from C: SQLite.
            ("CC_aarch64_unknown_linux_gnu".to_owned(), gcc),
        ],
        sysroot: Some(PathBuf::from(SYSROOT)),
        busybox: Some(busybox()?),
        units: UNITS
            .map(|(package, name, filter)| Unit {
                package,
                name,
                filter,
                path: PathBuf::new(),
            })
            .to_vec(),
        ..Target::default()
    };
    target.variables.extend(std::find()?);
    Ok(target)
}

/// The shell of the machine. It is statically linked, so its suite is of no importance: this machine's own is.
fn busybox() -> anyhow::Result<PathBuf> {
    let suite = mirror::own_suite()?;
    let home = kernel::home(&suite, Arch::Arm64)?;
    let kept = home.join("busybox");
    if !kept.is_file() {
        let unpacked = unpacked(&suite, &home, "busybox-static")?;
        let program = ["usr/bin/busybox", "bin/busybox"].map(|p| unpacked.path().join(p));
        let program = program.iter().find(|p| p.is_file());
        let program = program.context("the package busybox-static has no busybox")?;
        fs::rename(program, &kept).context("keep busybox")?;
    }
    Ok(kept)
}

/// The files of a package of that suite for 64-bit ARM.
fn unpacked(suite: &str, home: &Path, package: &str) -> anyhow::Result<tempfile::TempDir> {
    println!("arm64: looking for {package} in {suite}");
    let apt = Suite::open(suite, Arch::Arm64, home.join("apt"))?;
    let (downloads, files) = (tempfile::tempdir_in(home)?, tempfile::tempdir_in(home)?);
    apt.download(&[package.to_owned()], downloads.path())?;
    kernel::unpack(downloads.path(), files.path())?;
    Ok(files)
}
