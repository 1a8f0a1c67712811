//! memcached in the background: TCP and UDP.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Proc, kill};

use crate::site::{Site, background, until_tcp};

pub(crate) const EXE: &str = "/usr/bin/memcached";

/// The command that puts it into the background, as its own user.
pub(crate) fn daemonize(exe: &Path, port: u16, pid_file: &Path) -> Command {
    let mut command = Command::new(exe);
    let port = port.to_string();
    command
        .args([
            "-d",
            "-u",
            "memcache",
            "-l",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            &port,
            "-P",
        ])
        .arg(pid_file);
    command
}

struct Memcached {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    port: u16,
}

impl Memcached {
    fn new() -> Option<Self> {
        let mut site = Site::new("memcached", &[EXE])?;
        let (exe, port) = (site.exe(EXE), site.port("tcp:127.0.0.1:11211"));
        site.place("udp:127.0.0.1:11211", port);
        let pid_file = site.path("/run/memcached/memcached.pid");
        Some(Self {
            site,
            exe,
            pid_file,
            port,
        })
    }

    fn start(&self) -> Proc {
        let running = background(
            &mut daemonize(&self.exe, self.port, &self.pid_file),
            &self.pid_file,
        );
        until_tcp(self.port);
        running
    }
}

#[test]
fn start_stop_and_restart_give_no_finding() {
    let Some(memcached) = Memcached::new() else { return };
    let mut running = memcached.start();
    let watch = memcached.site.watch();

    for signal in ["TERM", "INT"] {
        kill(signal, running.pid());
        running.wait_gone();
        running = memcached.start();
    }

    watch.expect_nothing();
    watch.stop();
    drop(running);
}

#[test]
fn one_that_was_stopped_names_who_did_it_and_goes_on() {
    let Some(memcached) = Memcached::new() else { return };
    let running = memcached.start();
    let watch = memcached.site.watch();

    let stopper = kill("STOP", running.pid());

    watch
        .expect("stopped", "memcached")
        .by(stopper)
        .says(running.pid());
    kill("CONT", running.pid());
    watch.expect_resolved("stopped", "memcached");
    watch.expect_exactly(&[("stopped", "memcached")]);
    watch.stop();
}
