//! uWSGI with its own switches: `--reload`, `--stop`.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, children, kill, until};
use rustix::process::Signal;

use crate::site::{
    Site, foreground, tool, until_caught, until_children, until_named, until_renewed, until_tcp, until_unix,
};

const WORKERS: usize = 2;
const EXE: &str = "/usr/bin/uwsgi-core";
const APP: &str =
    "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n";

struct Uwsgi {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Uwsgi {
    fn new() -> Option<Self> {
        let mut site = Site::new("uwsgi", &[EXE, "/usr/lib/uwsgi/plugins/python3_plugin.so"])?;
        let (exe, port) = (site.exe(EXE), site.port("tcp:127.0.0.1:9090"));
        let (pid_file, socket) = (
            site.path("/run/uwsgi/app.pid"),
            site.path("/run/uwsgi/app.socket"),
        );
        let app = site.write("app.py", APP);
        let text = format!(
            "[uwsgi]\nplugins = python3\nmaster = true\nprocesses = {WORKERS}\nsocket = {}\nhttp-socket = 127.0.0.1:{port}\n\
             pidfile = {}\nwsgi-file = {}\ndie-on-term = true\nuid = www-data\ngid = www-data\n",
            socket.display(),
            pid_file.display(),
            app.display()
        );
        let config = site.write("app.ini", &text);
        Some(Self {
            site,
            exe,
            pid_file,
            socket,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let master = foreground(
            &self.site.sandbox,
            Command::new(&self.exe).arg("--ini").arg(&self.config),
        );
        until_tcp(self.port);
        until_unix(&self.socket);
        until_named(&self.pid_file, master.pid());
        until_children(master.pid(), WORKERS);
        Self::until_ready(&master);
        master
    }

    /// Until the master and all workers handle their signals: before that, one that is to stop them is lost.
    fn until_ready(master: &Proc) {
        until_caught(master.pid(), Signal::USR1);
        for worker in children(master.pid()) {
            until_caught(worker, Signal::USR2);
        }
    }

    fn tell(&self, switch: &str) {
        tool(Command::new(&self.exe).arg(switch).arg(&self.pid_file));
    }
}

#[test]
fn start_reload_stop_and_restart_give_no_finding() {
    let Some(uwsgi) = Uwsgi::new() else { return };
    let first = uwsgi.start();
    let watch = uwsgi.site.watch();

    let workers = children(first.pid());
    uwsgi.tell("--reload");
    until_renewed(first.pid(), &workers, WORKERS);
    until_tcp(uwsgi.port);
    // It has executed itself anew, and handles signals once its workers run.
    Uwsgi::until_ready(&first);
    uwsgi.tell("--stop");
    first.wait_gone();
    let second = uwsgi.start();
    kill("TERM", second.pid());
    second.wait_gone();
    let third = uwsgi.start();

    watch.expect_nothing();
    watch.stop();
    drop(third);
}

#[test]
fn a_killed_worker_is_replaced_and_a_removed_socket_is_found() {
    let Some(uwsgi) = Uwsgi::new() else { return };
    let master = uwsgi.start();
    let watch = uwsgi.site.watch();

    let worker = children(master.pid())[0];
    kill("KILL", worker);
    until("another worker is there", || {
        let now = children(master.pid());
        now.len() == WORKERS && !now.contains(&worker)
    });
    tool(Command::new("rm").arg(&uwsgi.socket));

    watch.expect("orphaned-listener", "uwsgi");
    watch.expect_exactly(&[("orphaned-listener", "uwsgi")]);
    watch.stop();
}
