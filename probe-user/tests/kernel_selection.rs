//! What a declaration selects is found among all processes by the kernel's iterator, and what nobody declared is not looked
//! at in `/proc`.

#![expect(
    clippy::unwrap_used,
    reason = "it is all test, which clippy can't tell of a helper"
)]

mod kernel_support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use probe_user::{
    config::{Config, Service},
    event::{Process, SnapshotReason},
    kernel::{Iterators, Kernel, LoadOptions, Wanted},
    sources::{observer::Observer, process, view::Views},
};

use kernel_support::{OwnExe, Reaped};

fn start(command: &mut Command) -> Reaped {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    Reaped(child.unwrap())
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: loading eBPF programs needs root");
    }
    root
}

fn iterators() -> Option<Iterators> {
    root().then(|| {
        let mut kernel = Kernel::load(&LoadOptions::default()).unwrap();
        kernel.iterators().unwrap()
    })
}

fn selected(service: Service) -> Option<Vec<Process>> {
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let mut observer = Observer::new(Some(Box::new(iterators()?))).unwrap();
    let views = Views::new(&config);
    Some(
        observer
            .snapshot(&config, &views, SnapshotReason::Interval)
            .processes,
    )
}

fn by_exe(path: &Path) -> Service {
    let mut service = Service::named("a");
    service.exe = path.to_str().map(str::to_owned);
    service
}

#[test]
fn an_executable_that_was_replaced_is_found_by_its_name() {
    let exe = OwnExe::copy("/bin/sleep", "replaced");
    let running = start(Command::new(&exe.path).arg("1000"));
    let child = process::identity(running.0.id()).unwrap();
    let Some(found) = selected(by_exe(&exe.path)) else {
        return;
    };
    assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), [child]);
    let new = exe.path.with_extension("new");
    fs::copy("/bin/sleep", &new).unwrap();
    fs::rename(&new, &exe.path).unwrap();
    let found = selected(by_exe(&exe.path)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].id, found[0].exe_deleted), (child, true));
    assert_eq!(found[0].argv[1..], ["1000"]);
}

#[test]
fn a_script_is_found_by_the_arguments_of_its_interpreter() {
    let directory = OwnExe::copy("/bin/sleep", "script");
    let script = directory.path.with_extension("sh");
    // What it waits for ends with it.
    fs::write(&script, "echo; read -r line\n").unwrap();
    let mut command = Command::new("/bin/sh");
    let mut child = command
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its arguments are there.
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let running = Reaped(child);
    let mut service = Service::named("a");
    service.script = script.to_str().map(str::to_owned);
    let found = selected(service);
    let id = process::identity(running.0.id()).unwrap();
    drop(running);
    fs::remove_file(&script).unwrap();
    let Some(found) = found else { return };
    assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), [id]);
}

#[test]
fn a_child_an_exec_or_an_end_since_then_is_a_change() {
    let exe = OwnExe::copy("/bin/sleep", "unchanged");
    let Some(iterators) = iterators() else { return };
    let mut observer = Observer::new(Some(Box::new(iterators))).unwrap();
    let running = start(Command::new(&exe.path).arg("1000"));
    let own = process::read(std::process::id()).unwrap().unwrap();
    let other = process::read(running.0.id()).unwrap().unwrap();
    let listed = |all: &[&Process]| all.iter().map(|p| (p.id, p.exe_id)).collect();
    let followed = |all: &[&Process]| all.iter().map(|p| p.id).collect();
    assert!(observer.are_unchanged(&listed(&[&other]), &followed(&[&other])));
    assert!(observer.are_unchanged(&listed(&[&own, &other]), &followed(&[&other])));
    // The child of this process was not listed.
    assert!(!observer.are_unchanged(&listed(&[&own]), &followed(&[&own])));
    // It ran another program.
    let mut before = other.clone();
    before.exe_id = own.exe_id;
    assert!(!observer.are_unchanged(&listed(&[&before]), &followed(&[&before])));
    // It has ended, and nobody has reaped it.
    let mut running = running;
    running.0.kill().unwrap();
    rustix::process::waitid(
        rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&running.0)),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    )
    .unwrap();
    assert!(!observer.are_unchanged(&listed(&[&other]), &followed(&[&other])));
    running.0.wait().unwrap();
    assert!(!observer.are_unchanged(&listed(&[&other]), &followed(&[&other])));
}

#[test]
fn maps_have_room_for_twice_what_was_declared_at_the_start() {
    let names = |count: usize| {
        let mut wanted = Wanted::default();
        for n in 0..count {
            wanted.add_file(format!("/run/{n}.sock").as_ref());
        }
        wanted
    };
    if !root() {
        return;
    }
    let mut kernel = Kernel::load(&LoadOptions {
        wanted: names(5_000),
        ..LoadOptions::default()
    })
    .unwrap();
    kernel.want(&names(5_000)).unwrap();
    kernel.want(&names(10_000)).unwrap();
    let error = kernel.want(&names(20_000)).unwrap_err().to_string();
    assert!(
        error.contains("20000") && error.contains("restart probe"),
        "{error}"
    );
    kernel.want(&names(10_000)).unwrap();
}
