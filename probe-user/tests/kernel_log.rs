//! What the programs themselves log, on the running kernel as root.

mod kernel_support;

use std::{process::Command, sync::Mutex};

use kernel_support::{OwnExe, inode};
use probe_user::kernel::{Kernel, LoadOptions, LogLevel, Wanted};

struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[expect(clippy::unwrap_used, reason = "a helper of the test")]
impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn the_programs_log_what_they_see_when_asked_to() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading eBPF programs needs root");
        return;
    }
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut kernel = Kernel::load(&LoadOptions {
        bpf_log: Some(LogLevel::Debug),
        ..LoadOptions::default()
    })
    .unwrap();
    let mut log = kernel.log().unwrap();
    let exe = OwnExe::copy("/bin/true", "log");
    kernel
        .want(&Wanted {
            exes: [inode(&exe.path)].into(),
            ..Wanted::default()
        })
        .unwrap();
    let mut child = Command::new(&exe.path).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    log.flush();
    // A copy: loading logs too.
    let lines = LINES.0.lock().unwrap().clone();
    for expected in [format!("exec of {pid}"), format!("exit of {pid} with 0")] {
        assert!(lines.contains(&expected), "{expected:?} in {lines:?}");
    }

    let mut quiet = Kernel::load(&LoadOptions::default()).unwrap();
    assert!(quiet.log().is_none(), "off unless asked for");
}
