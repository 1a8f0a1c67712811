//! Who took a listener's path away: also in a directory that refuses fanotify, where the fentry tier has trampolines for it.
//! `cargo xtask vm` runs this on several kernels: on 5.10 tmpfs refuses it, and ramfs does on all but the newest.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Daemon, Proc, Sandbox, Watch};

/// A file system of its own in the sandbox.
struct Mount(PathBuf);

impl Mount {
    fn new(sandbox: &Sandbox, kind: &str) -> Self {
        let at = sandbox.path("own");
        std::fs::create_dir(&at).expect("a directory");
        done(Command::new("mount").args(["-t", kind, "own"]).arg(&at));
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whatever still runs from there does not keep the sandbox from being removed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs a program to its end; returns the pid that it had.
fn done(command: &mut Command) -> u32 {
    let mut proc = Proc::spawn(command);
    assert!(proc.wait().success());
    proc.pid()
}

/// Shows that the finding and the event of kind `event` name the process that `change` returns.
#[track_caller]
fn taken_away(kind: &str, event: &str, change: impl FnOnce(&Path) -> u32) {
    let sandbox = Sandbox::new();
    let mount = Mount::new(&sandbox, kind);
    let exe = Daemon::install(&sandbox, "annad");
    let path = mount.0.join("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &listen));
    let line = watch.expect_line("watching", "of the service", |l| l.value["service"] == "annad");
    let by = change(&path);
    let finding = watch.expect("orphaned-listener", "annad");
    let event = watch.expect_event(event, "annad", "of the path", |_| true);
    let may_be_unknown = line.raw.contains("who changed a path");
    assert_eq!(
        may_be_unknown,
        line.value["tier"]["unix_socket"] != "fentry",
        "{}",
        line.raw
    );
    if finding.actor.is_some() || !may_be_unknown {
        finding.by(by).says(daemon.pid());
        assert_eq!(event.value["actor"]["pid"], by, "{}", event.raw);
    }
    // Before the daemon is killed: what probe would make of that is another test's.
    watch.stop();
}

fn removed(path: &Path) -> u32 {
    done(Command::new("rm").arg("-f").arg(path))
}

fn renamed(path: &Path) -> u32 {
    done(Command::new("mv").arg(path).arg(path.with_extension("old")))
}

fn replaced(path: &Path) -> u32 {
    let other = path.with_extension("other");
    std::fs::write(&other, "").expect("a file");
    done(Command::new("mv").arg("-f").arg(&other).arg(path))
}

#[test]
fn removed_from_a_tmpfs() {
    taken_away("tmpfs", "unlink", removed);
}

#[test]
fn removed_from_a_ramfs() {
    taken_away("ramfs", "unlink", removed);
}

#[test]
fn renamed_on_a_ramfs() {
    taken_away("ramfs", "rename", renamed);
}

#[test]
fn replaced_on_a_ramfs() {
    taken_away("ramfs", "rename", replaced);
}
