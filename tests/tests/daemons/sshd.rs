//! The OpenSSH server: a process for each session, and HUP executes the listener anew.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use probe_tests::{Proc, kill, until};

use crate::site::{Site, background, tool, until_named, until_tcp};

struct Sshd {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Sshd {
    fn new() -> Option<Self> {
        let mut site = Site::new("sshd", &["/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen"])?;
        // Compiled into it; its unit makes it at each start.
        fs::create_dir_all("/run/sshd").expect("its directory for privilege separation");
        let (exe, pid_file, port) = (
            site.exe("/usr/sbin/sshd"),
            site.path("/run/sshd.pid"),
            site.port("tcp:22"),
        );
        for key in ["host", "client"] {
            let path = site.sandbox.path(key);
            tool(
                Command::new("/usr/bin/ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(path),
            );
        }
        let dir = site.dir().display();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nPidFile {}\nAuthorizedKeysFile {dir}/client.pub\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\n",
            pid_file.display()
        );
        let config = site.write("sshd_config", &text);
        Some(Self {
            site,
            exe,
            pid_file,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let running = background(
            Command::new(&self.exe).arg("-f").arg(&self.config),
            &self.pid_file,
        );
        until_tcp(self.port);
        running
    }

    /// A session in which `cat` runs.
    fn login(&self) -> Session {
        let mut command = Command::new("/usr/bin/ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "LogLevel=ERROR", "-i"])
            .arg(self.site.sandbox.path("client"))
            .args(["-p", &self.port.to_string(), "root@127.0.0.1", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut session = Session(Proc::spawn(&mut command));
        session.echo();
        session
    }
}

struct Session(Proc);

impl Session {
    /// It still works.
    fn echo(&mut self) {
        let child = self.0.child();
        child
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(b"hello\n")
            .expect("write to the session");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("read from the session");
        assert_eq!(line, "hello\n");
    }

    fn end(mut self) {
        drop(self.0.child().stdin.take());
        assert!(self.0.wait().success());
    }
}

#[test]
fn start_sessions_reload_restart_and_stop_give_no_finding() {
    let Some(sshd) = Sshd::new() else { return };
    let first = sshd.start();
    let watch = sshd.site.watch();

    sshd.login().end();
    let mut stays = sshd.login();
    kill("HUP", first.pid());
    until("it listens anew", || {
        watch
            .lines()
            .iter()
            .any(|l| l.value["kind"] == "exec" && l.value["process"]["pid"] == first.pid())
    });
    until_tcp(sshd.port);
    until_named(&sshd.pid_file, first.pid());
    // Sessions outlive the stop.
    kill("TERM", first.pid());
    first.wait_gone();
    stays.echo();
    let second = sshd.start();
    stays.echo();
    watch.expect_nothing();
    stays.end();
    kill("TERM", second.pid());
    second.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_reload_with_a_broken_configuration_ends_it() {
    let Some(sshd) = Sshd::new() else { return };
    let running = sshd.start();
    let watch = sshd.site.watch();

    fs::write(&sshd.config, "NoSuchOption yes\n").expect("break it");
    kill("HUP", running.pid());
    running.wait_gone();

    watch.expect("crashed", "sshd").says(running.pid()).says("255");
    watch.expect_exactly(&[("crashed", "sshd"), ("not-running", "sshd")]);
    watch.stop();
}
