//! Apache with its own switches: `-k start`, `-k graceful`, `-k restart`, `-k graceful-stop`, `-k stop`.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, children, kill};

use crate::site::{Site, background, tool, until_renewed, until_tcp};

const WORKERS: usize = 2;

struct Apache {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Apache {
    fn new() -> Option<Self> {
        let mut site = Site::new("apache2", &["/usr/sbin/apache2"])?;
        let (exe, port) = (site.exe("/usr/sbin/apache2"), site.port("tcp:80"));
        let pid_file = site.path("/run/apache2/apache2.pid");
        let modules = ["mpm_event", "authz_core"]
            .map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n"))
            .concat();
        let dir = site.dir().display();
        let text = format!(
            "{modules}ServerRoot {dir}\nServerName localhost\nDefaultRuntimeDir {dir}\nPidFile {}\nErrorLog {dir}/error.log\n\
             User www-data\nGroup www-data\nDocumentRoot {dir}\nListen 127.0.0.1:{port}\nStartServers {WORKERS}\n\
             ServerLimit {WORKERS}\nThreadsPerChild 4\nMaxRequestWorkers 8\nMinSpareThreads 8\nMaxSpareThreads 12\n",
            pid_file.display()
        );
        let config = site.write("apache2.conf", &text);
        Some(Self {
            site,
            exe,
            pid_file,
            config,
            port,
        })
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("-f").arg(&self.config).args(["-k", action]);
        command
    }

    fn start(&self) -> Proc {
        let master = background(&mut self.command("start"), &self.pid_file);
        until_tcp(self.port);
        until_renewed(master.pid(), &[], WORKERS);
        master
    }
}

#[test]
fn start_graceful_restart_stop_and_start_again_give_no_finding() {
    let Some(apache) = Apache::new() else { return };
    let first = apache.start();
    let watch = apache.site.watch();

    for action in ["graceful", "restart"] {
        let workers = children(first.pid());
        tool(&mut apache.command(action));
        until_renewed(first.pid(), &workers, WORKERS);
        until_tcp(apache.port);
    }
    tool(&mut apache.command("graceful-stop"));
    first.wait_gone();
    let second = apache.start();
    tool(&mut apache.command("stop"));
    second.wait_gone();
    let third = apache.start();

    watch.expect_nothing();
    watch.stop();
    drop(third);
}

#[test]
fn the_workers_of_a_killed_master_live_on() {
    let Some(apache) = Apache::new() else { return };
    let master = apache.start();
    let watch = apache.site.watch();

    let killer = kill("KILL", master.pid());

    watch.expect("crashed", "apache2").by(killer).says(master.pid());
    // They hold the port: nothing but the PID file is stale.
    watch.expect_exactly(&[("crashed", "apache2"), ("stale-pid-file", "apache2")]);
    watch.stop();
}
