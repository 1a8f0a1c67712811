//! `cargo xtask vm --systemd`: the tests of units, in a Debian whose first process is systemd.
//!
//! Every file `tests/tests/systemd_*.rs` runs there; nothing else has to know of a new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{
    Args, PACKAGES, Tier,
    archive::Archive,
    guest::{find, quoted},
    kernel::{self, Kernel, Release},
    machine::{self, Report},
    programs::{self, Programs, Target},
    userland,
};
use crate::{apt, child, package, workspace};

/// The test that needs the Debian package, and a later one, in the machine.
const PACKAGED: &str = "systemd_package";
/// Which tests.
const PREFIX: &str = "systemd_";
/// How long a test waits for anything, in seconds: emulation is slow.
const PATIENCE: u32 = 90;
/// Where everything of ours lies in the guest.
const HOME: &str = "t";

/// Boots and runs the tests.
///
/// # Errors
/// If the machine did not come as far as to run all tests. A failed test is none.
pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    apt::install(&PACKAGES).context("the virtual machines need these packages")?;
    let release = args.kernel.first().copied().unwrap_or(Release::V6_1);
    let tier = args.tier.first().copied().unwrap_or(Tier::Auto);
    let kernel = kernel::fetch(release)?;
    let userland = userland::archive()?;
    let (tests, filter) = chosen(tests()?, args.filter.as_deref());
    let programs = programs::build(&tests, &Target::default())?;
    let packages = match tests.iter().any(|t| t == PACKAGED) {
        true => package::for_tests()?.to_vec(),
        false => Vec::new(),
    };
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let initrd = directory.path().join("initrd");
    let of_ours = Ours {
        programs: &programs,
        packages: &packages,
        tier,
        filter,
    };
    write(&initrd, &userland, &kernel, &of_ours).context("write the initial file system")?;
    let mut qemu = machine::qemu(&kernel, &initrd);
    qemu.args(machine::EMULATED).args([
        "-append",
        &format!(
            "{} panic=-1 quiet systemd.log_color=0 rdinit=/{HOME}/init",
            machine::console(&kernel)
        ),
    ]);
    let began = child::now();
    let report = machine::boot(&mut qemu, (release, tier), "systemd", args.verbose)?;
    println!(
        "systemd on {}: {} passed, {} failed in {} s",
        report.kernel,
        report.passed.len(),
        report.failed.len(),
        began.elapsed().as_secs()
    );
    Ok(report)
}

/// A filter that is part of files' names means these files; another one is for the names of tests.
fn chosen(tests: Vec<String>, filter: Option<&str>) -> (Vec<String>, Option<&str>) {
    let of_file = |f: &str| {
        tests
            .iter()
            .filter(|t| t.contains(f))
            .cloned()
            .collect::<Vec<_>>()
    };
    match filter.map(of_file) {
        Some(files) if !files.is_empty() => (files, None),
        _ => (tests, filter),
    }
}

/// The names of the test files.
fn tests() -> anyhow::Result<Vec<String>> {
    let directory = workspace::root().join("tests/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|n| n.strip_suffix(".rs"));
        names.extend(name.filter(|n| n.starts_with(PREFIX)).map(str::to_owned));
    }
    names.sort();
    ensure!(!names.is_empty(), "{} has no test {PREFIX}*", directory.display());
    Ok(names)
}

/// What is put into the machine beside Debian.
struct Ours<'a> {
    programs: &'a Programs,
    packages: &'a [PathBuf],
    tier: Tier,
    filter: Option<&'a str>,
}

/// The userland, and behind it what is ours: the kernel unpacks one archive after the other.
fn write(to: &Path, userland: &Path, kernel: &Kernel, ours: &Ours<'_>) -> anyhow::Result<()> {
    let programs = ours.programs;
    io::copy(&mut File::open(userland)?, &mut File::create(to)?)?;
    let mut archive = Archive::new(BufWriter::new(OpenOptions::new().append(true).open(to)?));
    let at = |name: &str| format!("{HOME}/{name}");
    archive.directory(&at("root"))?;
    archive.copy(&at("busybox"), &find("busybox")?)?;
    archive.copy(&at("probe"), &programs.probe)?;
    archive.copy(&at("faulty"), &programs.faulty)?;
    for (name, executable) in &programs.tests {
        archive.copy(&at(&format!("deps/{name}")), executable)?;
    }
    for package in ours.packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&at(&name), package)?;
    }
    for (number, module) in kernel.modules.iter().enumerate() {
        archive.copy(&at(&format!("modules/{number}.ko")), module)?;
    }
    archive.file(&at("init"), init().as_bytes())?;
    archive.file(
        &at("run"),
        script(&programs.tests, ours.tier, ours.filter).as_bytes(),
    )?;
    let wanted = "etc/systemd/system/multi-user.target.wants/tests.service";
    archive.file("etc/systemd/system/tests.service", UNIT.as_bytes())?;
    archive.link(wanted, "/etc/systemd/system/tests.service")?;
    archive.finish()?;
    Ok(())
}

/// The kernel refuses pivot_root(2) on the file system that it unpacked, and systemd needs that for units with a view of
/// their own. A bind mount of it on top of itself is an ordinary one.
fn init() -> String {
    format!(
        "#!/{HOME}/busybox sh
b=/{HOME}/busybox
for m in /{HOME}/modules/*; do $b insmod $m; done
$b mount --bind / /{HOME}/root
cd /{HOME}/root
$b mount --move . /
exec $b chroot . /lib/systemd/systemd
"
    )
}

const UNIT: &str = "\
[Unit]
Description=Tests
After=basic.target dbus.socket systemd-logind.service
Wants=dbus.socket systemd-logind.service

[Service]
ExecStart=/bin/sh /t/run
Environment=HOME=/root TERM=dumb
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/console
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
";

/// Lines that begin with `VM-` are for [`machine`]. What systemd writes to the console falls between whole lines: a test's name
/// and its verdict are written one after the other, and put together first.
fn script(tests: &[(String, PathBuf)], tier: Tier, filter: Option<&str>) -> String {
    let tests: Vec<&str> = tests.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "echo 0 > /proc/sys/kernel/printk
export PROBE_BIN=/{HOME}/probe PROBE_TEST_TIER={tier} PROBE_TEST_PATIENCE={PATIENCE} PROBE_TEST_SYSTEMD=must
export PROBE_TEST_PACKAGES=/{HOME}
export PROBE_TEST_TABLES=/{HOME}/tables
echo
echo VM-START $(uname -r)
echo VM-UP $(cut -d' ' -f1 /proc/uptime) s
echo VM-DOCTOR $(/{HOME}/probe doctor --json --tier {tier})
rc=0
for t in {}; do
  echo VM-TEST $t
  {{ /{HOME}/deps/$t --test-threads=1 {} 2>&1; echo $? > /{HOME}/rc; }} | /{HOME}/busybox awk '{{ print; fflush() }}'
  [ \"$(cat /{HOME}/rc)\" = 0 ] || rc=1
done
[ ! -e /{HOME}/tables ] || cat /{HOME}/tables
echo VM-END $rc
/{HOME}/busybox poweroff -f
",
        tests.join(" "),
        quoted(filter.unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_file_or_a_test() {
        let all = || vec!["systemd_stop".to_owned(), "systemd_user".to_owned()];
        assert_eq!(chosen(all(), None), (all(), None));
        assert_eq!(
            chosen(all(), Some("stop")),
            (vec!["systemd_stop".to_owned()], None)
        );
        assert_eq!(chosen(all(), Some("a_crash")), (all(), Some("a_crash")));
    }
}
