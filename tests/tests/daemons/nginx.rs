//! nginx with its own switches: `nginx -s reload`, `-s reopen`, `-s quit`; and the upgrade of its manual.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, children, kill, until};

use crate::site::{Site, background, named, pid_in, tool, until_children, until_renewed, until_tcp};

const WORKERS: usize = 2;

struct Nginx {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Nginx {
    fn new() -> Option<Self> {
        let mut site = Site::new("nginx", &["/usr/sbin/nginx"])?;
        let (exe, pid_file, port) = (
            site.exe("/usr/sbin/nginx"),
            site.path("/run/nginx.pid"),
            site.port("tcp:80"),
        );
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {}/{name};\n", site.dir().display()))
            .concat();
        let text = format!(
            "user www-data;\nworker_processes {WORKERS};\npid {};\nerror_log {}/error.log;\nevents {{}}\n\
             http {{\n  access_log off;\n{temp}  server {{ listen 127.0.0.1:{port}; return 204; }}\n}}\n",
            pid_file.display(),
            site.dir().display()
        );
        let config = site.write("nginx.conf", &text);
        Some(Self {
            site,
            exe,
            pid_file,
            config,
            port,
        })
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        let log = self.site.sandbox.path("error.log");
        command.arg("-e").arg(log).arg("-c").arg(&self.config).args(more);
        command
    }

    fn start(&self) -> Proc {
        let master = background(&mut self.command(&[]), &self.pid_file);
        until_tcp(self.port);
        until_children(master.pid(), WORKERS);
        master
    }
}

#[test]
fn start_reload_reopen_upgrade_quit_and_restart_give_no_finding() {
    let Some(nginx) = Nginx::new() else { return };
    let first = nginx.start();
    let watch = nginx.site.watch();

    let workers = children(first.pid());
    tool(&mut nginx.command(&["-s", "reload"]));
    let workers = until_renewed(first.pid(), &workers, WORKERS);
    tool(&mut nginx.command(&["-s", "reopen"]));

    kill("USR2", first.pid());
    until("a new master has its workers", || {
        pid_in(&nginx.pid_file).is_some_and(|pid| pid != first.pid() && children(pid).len() == WORKERS)
    });
    let second = named(&nginx.pid_file);
    kill("WINCH", first.pid());
    until("the old workers are gone", || {
        children(first.pid()).iter().all(|c| !workers.contains(c))
    });
    kill("QUIT", first.pid());
    first.wait_gone();

    tool(&mut nginx.command(&["-s", "quit"]));
    second.wait_gone();
    let third = nginx.start();

    watch.expect_nothing();
    watch.stop();
    drop(third);
}

#[test]
fn a_crash_of_a_worker_and_one_of_the_master() {
    let Some(nginx) = Nginx::new() else { return };
    let master = nginx.start();
    let watch = nginx.site.watch();

    let worker = children(master.pid())[0];
    kill("SEGV", worker);
    until("another worker is there", || {
        let now = children(master.pid());
        now.len() == WORKERS && !now.contains(&worker)
    });
    watch
        .expect("unhandled-signal", "nginx")
        .says("SEGV")
        .says(worker);

    let killer = kill("KILL", master.pid());
    watch.expect("crashed", "nginx").by(killer).says(master.pid());
    // The workers live on, and serve the port.
    watch.expect_exactly(&["crashed", "stale-pid-file", "unhandled-signal"].map(|kind| (kind, "nginx")));
    watch.stop();
}
