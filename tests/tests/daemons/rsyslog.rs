//! rsyslog: a datagram socket as /dev/log is one, UDP and TCP.

use std::{fs, os::unix::net::UnixDatagram, path::PathBuf, process::Command};

use probe_tests::{Proc, kill, until};

use crate::site::{Site, background, tool, until_socket_file, until_tcp};

struct Rsyslog {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Rsyslog {
    fn new() -> Option<Self> {
        let mut site = Site::new("rsyslog", &["/usr/sbin/rsyslogd"])?;
        let (exe, port) = (site.exe("/usr/sbin/rsyslogd"), site.port("tcp:514"));
        site.place("udp:514", port);
        let (pid_file, socket) = (site.path("/run/rsyslogd.pid"), site.path("/dev/log"));
        let text = format!(
            "global(workDirectory=\"{dir}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\")\nmodule(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n*.* {dir}/messages\n",
            socket.display(),
            dir = site.dir().display()
        );
        let config = site.write("rsyslog.conf", &text);
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
        let mut command = Command::new(&self.exe);
        command.arg("-f").arg(&self.config).arg("-i").arg(&self.pid_file);
        let running = background(&mut command, &self.pid_file);
        until_tcp(self.port);
        until_socket_file(&self.socket);
        self.until_logged();
        running
    }

    /// Until what is logged now is in the file.
    fn until_logged(&self) {
        let (client, messages) = (
            UnixDatagram::unbound().expect("a socket"),
            self.site.sandbox.path("messages"),
        );
        until("a message is in the log", || {
            let _ = client.send_to(b"<13>test: hello", &self.socket);
            fs::read_to_string(&messages).is_ok_and(|text| text.contains("hello"))
        });
    }
}

#[test]
fn start_rotation_stop_and_restart_give_no_finding() {
    let Some(rsyslog) = Rsyslog::new() else { return };
    let first = rsyslog.start();
    let watch = rsyslog.site.watch();

    let messages = rsyslog.site.sandbox.path("messages");
    fs::rename(&messages, messages.with_extension("1")).expect("rotate");
    kill("HUP", first.pid());
    rsyslog.until_logged();
    kill("TERM", first.pid());
    first.wait_gone();
    let second = rsyslog.start();

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_removed_log_socket_orphans_it() {
    let Some(rsyslog) = Rsyslog::new() else { return };
    let running = rsyslog.start();
    let watch = rsyslog.site.watch();

    tool(Command::new("rm").arg(&rsyslog.socket));

    watch.expect("orphaned-listener", "rsyslog").says(running.pid());
    watch.expect_exactly(&[("orphaned-listener", "rsyslog")]);
    watch.stop();
}
