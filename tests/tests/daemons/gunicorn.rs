//! gunicorn: HUP renews the workers, TTIN and TTOU change their number, USR2 runs a second master.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Command,
};

use probe_tests::{Proc, children, kill, until};

use crate::site::{
    Site, foreground, is_alive, named, pid_in, until_children, until_named, until_renewed, until_tcp,
    until_unix,
};

const WORKERS: usize = 2;
const APP: &str = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n";

struct Gunicorn {
    site: Site,
    exe: PathBuf,
    script: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Gunicorn {
    fn new() -> Option<Self> {
        let mut site = Site::new("gunicorn", &["/usr/bin/python3", "/usr/bin/gunicorn"])?;
        let (exe, script) = (site.exe("/usr/bin/python3"), site.exe("/usr/bin/gunicorn"));
        let (pid_file, socket) = (
            site.path("/run/gunicorn/gunicorn.pid"),
            site.path("/run/gunicorn/gunicorn.sock"),
        );
        let port = site.port("tcp:127.0.0.1:8000");
        site.write("app.py", APP);
        let text = format!(
            "bind = ['127.0.0.1:{port}', 'unix:{}']\nworkers = {WORKERS}\npidfile = '{}'\nchdir = '{}'\n",
            socket.display(),
            pid_file.display(),
            site.dir().display()
        );
        let config = site.write("gunicorn.conf.py", &text);
        Some(Self {
            site,
            exe,
            script,
            pid_file,
            socket,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let mut command = Command::new(&self.exe);
        command
            .arg(&self.script)
            .arg("-c")
            .arg(&self.config)
            .arg("app:app");
        let master = foreground(&self.site.sandbox, &mut command);
        until_tcp(self.port);
        until_unix(&self.socket);
        until_named(&self.pid_file, master.pid());
        until_children(master.pid(), WORKERS);
        master
    }
}

#[test]
fn start_reload_scaling_stop_and_restart_give_no_finding() {
    let Some(gunicorn) = Gunicorn::new() else { return };
    let mut running = gunicorn.start();
    let watch = gunicorn.site.watch();

    let workers = children(running.pid());
    kill("HUP", running.pid());
    until_renewed(running.pid(), &workers, WORKERS);
    kill("TTIN", running.pid());
    until_children(running.pid(), WORKERS + 1);
    kill("TTOU", running.pid());
    until_children(running.pid(), WORKERS);
    for signal in ["TERM", "INT"] {
        kill(signal, running.pid());
        running.wait_gone();
        running = gunicorn.start();
    }

    watch.expect_nothing();
    watch.stop();
    drop(running);
}

#[test]
fn an_upgrade_with_two_masters_gives_no_finding() {
    let Some(gunicorn) = Gunicorn::new() else { return };
    let first = gunicorn.start();
    let watch = gunicorn.site.watch();

    kill("USR2", first.pid());
    let next = gunicorn.pid_file.with_extension("pid.2");
    until("the second master has its workers", || {
        pid_in(&next).is_some_and(|pid| children(pid).len() == WORKERS)
    });
    let second = named(&next);
    kill("TERM", first.pid());
    first.wait_gone();
    until_named(&gunicorn.pid_file, second.pid());

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_killed_master_leaves_everything_stale() {
    let Some(gunicorn) = Gunicorn::new() else { return };
    let master = gunicorn.start();
    let watch = gunicorn.site.watch();

    let workers = children(master.pid());
    let killer = kill("KILL", master.pid());
    // They notice after their next request that their parent is gone.
    until("the workers have ended", || {
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, gunicorn.port));
        !workers.iter().any(|w| is_alive(*w))
    });

    watch.expect("crashed", "gunicorn").by(killer).says(master.pid());
    watch.expect_exactly(
        &["crashed", "not-running", "stale-pid-file", "stale-socket"].map(|kind| (kind, "gunicorn")),
    );
    watch.stop();
}
