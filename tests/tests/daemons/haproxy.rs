//! HAProxy in master-worker mode: a reload executes the master anew, and the new worker takes the sockets over.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use probe_tests::{Proc, children, kill, until};

use crate::site::{Site, foreground, until_children, until_named, until_renewed, until_tcp, until_unix};

struct Haproxy {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    admin: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Haproxy {
    fn new() -> Option<Self> {
        let mut site = Site::new("haproxy", &["/usr/sbin/haproxy"])?;
        let (exe, port) = (site.exe("/usr/sbin/haproxy"), site.port("tcp:80"));
        let (pid_file, admin) = (
            site.path("/run/haproxy.pid"),
            site.path("/run/haproxy/admin.sock"),
        );
        let text = format!(
            "global\n  stats socket {} mode 660 level admin expose-fd listeners\n  stats timeout 30s\n  user haproxy\n\
             \x20 group haproxy\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n\
             frontend web\n  bind 127.0.0.1:{port}\n  http-request return status 200\n",
            admin.display()
        );
        let config = site.write("haproxy.cfg", &text);
        Some(Self {
            site,
            exe,
            pid_file,
            admin,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let mut command = Command::new(&self.exe);
        command
            .arg("-W")
            .arg("-f")
            .arg(&self.config)
            .arg("-p")
            .arg(&self.pid_file);
        command.arg("-S").arg(self.master());
        let master = foreground(&self.site.sandbox, &mut command);
        until_tcp(self.port);
        until_unix(&self.admin);
        until_named(&self.pid_file, master.pid());
        until_children(master.pid(), 1);
        self.until_master_answers();
        master
    }

    fn master(&self) -> PathBuf {
        self.site.sandbox.path("master.sock")
    }

    /// A master executes itself anew once it has its worker, and only then handles signals again.
    fn until_master_answers(&self) {
        until("the master answers", || {
            let Ok(mut stream) = UnixStream::connect(self.master()) else {
                return false;
            };
            let mut answer = [0; 64];
            let mut ask = |stream: &mut UnixStream| {
                stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                stream.write_all(b"show proc\n")?;
                stream.read(&mut answer)
            };
            ask(&mut stream).is_ok_and(|n| n > 0)
        });
    }
}

#[test]
fn start_reloads_with_socket_handover_soft_stop_and_restart_give_no_finding() {
    let Some(haproxy) = Haproxy::new() else { return };
    let first = haproxy.start();
    let watch = haproxy.site.watch();

    for _reload in 0..2 {
        let workers = children(first.pid());
        kill("USR2", first.pid());
        until_renewed(first.pid(), &workers, 1);
        until_tcp(haproxy.port);
        until_unix(&haproxy.admin);
        haproxy.until_master_answers();
    }
    kill("USR1", first.pid());
    first.wait_gone();
    let second = haproxy.start();
    kill("TERM", second.pid());
    second.wait_gone();
    let third = haproxy.start();

    watch.expect_nothing();
    watch.stop();
    drop(third);
}

#[test]
fn a_killed_worker_takes_the_master_with_it() {
    let Some(haproxy) = Haproxy::new() else { return };
    let master = haproxy.start();
    let watch = haproxy.site.watch();

    kill("KILL", children(master.pid())[0]);
    master.wait_gone();

    watch.expect("crashed", "haproxy").says(master.pid());
    watch.expect_exactly(&[
        ("crashed", "haproxy"),
        ("not-running", "haproxy"),
        ("stale-pid-file", "haproxy"),
        ("stale-socket", "haproxy"),
    ]);
    watch.stop();
}
