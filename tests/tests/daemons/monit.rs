//! monit, which starts a daemon again, with its own switches: `monit reload`, `monit restart NAME`, `monit quit`.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use probe_tests::{Proc, kill, until};

use crate::{
    memcached,
    site::{Site, background, is_alive, named, pid_in, tool, until_socket_file, until_tcp},
};

const EXE: &str = "/usr/bin/monit";

struct Monit {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    daemon: Command,
    daemon_pid_file: PathBuf,
    port: u16,
}

impl Monit {
    fn new() -> Option<Self> {
        let mut site = Site::new("monit", &[EXE, memcached::EXE])?;
        let (exe, pid_file, socket) = (
            site.exe(EXE),
            site.path("/run/monit.pid"),
            site.path("/run/monit.socket"),
        );
        let (daemon, port) = (site.exe(memcached::EXE), site.port("tcp:127.0.0.1:11211"));
        let daemon_pid_file = site.path("/run/memcached/memcached.pid");
        let daemon = memcached::daemonize(&daemon, port, &daemon_pid_file);
        let dir = site.dir().display();
        let text = format!(
            "set daemon 1\nset pidfile {}\nset idfile {dir}/id\nset statefile {dir}/state\nset log {dir}/monit.log\n\
             set httpd unixsocket {} allow monit:monit\n\
             check process memcached with pidfile {pid}\n  start program = \"{start}\"\n\
             \x20 stop program = \"/bin/sh -c '/usr/bin/kill -TERM $(cat {pid})'\"\n",
            pid_file.display(),
            socket.display(),
            pid = daemon_pid_file.display(),
            start = line(&daemon),
        );
        let config = site.write("monitrc", &text);
        fs::set_permissions(&config, fs::Permissions::from_mode(0o700)).expect("monit insists");
        Some(Self {
            site,
            exe,
            pid_file,
            socket,
            config,
            daemon,
            daemon_pid_file,
            port,
        })
    }

    fn start(&mut self) -> (Proc, Proc) {
        let daemon = background(&mut self.daemon, &self.daemon_pid_file);
        until_tcp(self.port);
        (self.start_monit(), daemon)
    }

    fn start_monit(&self) -> Proc {
        let monit = background(&mut self.command(&[]), &self.pid_file);
        until_socket_file(&self.socket);
        self.until_answers();
        monit
    }

    fn until_answers(&self) {
        until("monit has looked at the daemon", || {
            probe_tests::run(&mut self.command(&["status", "memcached"]))
                .stdout
                .contains("OK")
        });
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("-c").arg(&self.config).args(arguments);
        command
    }

    /// Waits for another daemon than this one.
    fn successor(&self, of: &Proc) -> Proc {
        of.wait_gone();
        until("monit has started the daemon again", || {
            pid_in(&self.daemon_pid_file).is_some_and(|pid| pid != of.pid() && is_alive(pid))
        });
        until_tcp(self.port);
        named(&self.daemon_pid_file)
    }
}

/// As a person types it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[test]
fn start_restart_of_the_daemon_reload_quit_and_start_give_no_finding() {
    let Some(mut monit) = Monit::new() else { return };
    let (first, daemon) = monit.start();
    let watch = monit.site.watch();

    tool(&mut monit.command(&["restart", "memcached"]));
    let next = monit.successor(&daemon);
    tool(&mut monit.command(&["reload"]));
    monit.until_answers();
    tool(&mut monit.command(&["quit"]));
    first.wait_gone();
    let second = monit.start_monit();

    watch.expect_nothing();
    watch.stop();
    drop((second, next));
}

#[test]
fn a_crash_of_the_daemon_is_found_before_monit_sees_it_and_ends_with_the_restart() {
    let Some(mut monit) = Monit::new() else { return };
    let (running, daemon) = monit.start();
    let watch = monit.site.watch();

    let killer = kill("KILL", daemon.pid());

    let crash = watch.expect("crashed", "memcached");
    crash.by(killer).says(daemon.pid());
    let next = monit.successor(&daemon);
    watch.expect_resolved("crashed", "memcached");
    watch.expect_exactly(&["crashed", "not-running", "stale-pid-file"].map(|kind| (kind, "memcached")));
    watch.stop();
    drop((running, next));
}
