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
        let at = sandbox.path(kind);
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

/// Changes a path, and says who did it.
type Change = fn(&Path) -> u32;

#[test]
fn who_took_a_path_away() {
    let sandbox = Sandbox::new();
    let (tmpfs, ramfs) = (Mount::new(&sandbox, "tmpfs"), Mount::new(&sandbox, "ramfs"));
    let cases: [(&str, &Mount, &str, Change); 4] = [
        ("gone", &tmpfs, "unlink", removed),
        ("removed", &ramfs, "unlink", removed),
        ("renamed", &ramfs, "rename", renamed),
        ("replaced", &ramfs, "rename", replaced),
    ];
    let socket = |mount: &Mount, service: &str| mount.0.join(format!("{service}.sock"));
    let mut config = String::new();
    let mut daemons = Vec::new();
    for (service, mount, ..) in &cases {
        let (exe, path) = (Daemon::install(&sandbox, service), socket(mount, service));
        let listen = format!("listen = [\"unix:{}\"]", path.display());
        config.push_str(&Daemon::service(service, &exe, &listen));
        daemons.push(Daemon::at(&exe).unix(&path).start());
    }
    let watch = Watch::start(&sandbox, &config);
    for ((service, mount, event, change), daemon) in cases.iter().zip(&daemons) {
        let line = watch.expect_line("watching", "of the service", |l| l.value["service"] == *service);
        let by = change(&socket(mount, service));
        let finding = watch.expect("orphaned-listener", service);
        let event = watch.expect_event(event, service, "of the path", |_| true);
        let may_be_unknown = line.raw.contains("who changed a path");
        let fentry = line.value["tier"]["unix_socket"] == "fentry";
        assert_eq!(may_be_unknown, !fentry, "{}", line.raw);
        if finding.actor.is_some() || fentry {
            finding.by(by).says(daemon.pid());
            assert_eq!(event.value["actor"]["pid"], by, "{}", event.raw);
        }
    }
    // Before the daemons are killed: what probe would make of that is another test's.
    watch.stop();
}
