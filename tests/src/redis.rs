//! The real `redis-server` of the distribution, with a configuration of its own.

use std::{
    fs,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    clock::until,
    process::Proc,
    sandbox::{Sandbox, free_port},
};

/// An installed redis; [`Redis::start`] runs it.
#[derive(Debug)]
pub struct Redis {
    pub exe: PathBuf,
    pub socket: PathBuf,
    pub port: u16,
    pub pid_file: PathBuf,
    config: PathBuf,
    dir: PathBuf,
    daemonize: bool,
}

impl Redis {
    /// In the foreground, as under a service manager.
    pub fn install(sandbox: &Sandbox) -> Self {
        let original = Path::new("/usr/bin/redis-server");
        assert!(
            original.exists(),
            "{} is missing: apt-get install redis-server redis-tools",
            original.display()
        );
        let redis = Self {
            exe: sandbox.install(original, "redis-server"),
            socket: sandbox.path("redis.sock"),
            port: free_port(),
            pid_file: sandbox.path("redis.pid"),
            config: sandbox.path("redis.conf"),
            dir: sandbox.dir().to_owned(),
            daemonize: false,
        };
        redis.configure();
        redis
    }

    /// In the background, as its old init script wants it.
    pub fn daemonized(mut self) -> Self {
        self.daemonize = true;
        self.configure();
        self
    }

    /// A second redis with another port and PID file that takes the same socket path; it unlinks what it finds there.
    pub fn rival(&self, sandbox: &Sandbox) -> Self {
        let rival = Self {
            exe: self.exe.clone(),
            socket: self.socket.clone(),
            port: free_port(),
            pid_file: sandbox.path("rival.pid"),
            config: sandbox.path("rival.conf"),
            dir: self.dir.clone(),
            daemonize: false,
        };
        rival.configure();
        rival
    }

    fn configure(&self) {
        let Self {
            socket,
            port,
            pid_file,
            dir,
            ..
        } = self;
        let daemonize = if self.daemonize { "yes" } else { "no" };
        let text = format!(
            "bind 127.0.0.1\nport {port}\nunixsocket {}\npidfile {}\ndir {}\ndaemonize {daemonize}\nsave \"\"\n\
             appendonly no\nlogfile {}\n",
            socket.display(),
            pid_file.display(),
            dir.display(),
            self.config.with_extension("log").display()
        );
        fs::write(&self.config, text).expect("write redis.conf");
    }

    /// A `[[service]]` table for it.
    pub fn service(&self) -> String {
        let Self {
            exe,
            socket,
            port,
            pid_file,
            ..
        } = self;
        format!(
            "\n[[service]]\nname = \"redis\"\nexe = {exe:?}\npid_file = {pid_file:?}\n\
             listen = [\"unix:{}\", \"tcp:127.0.0.1:{port}\"]\nready_within = \"1s\"\nrelisten_within = \"300ms\"\n",
            socket.display()
        )
    }

    /// Starts it and waits until it answers on both addresses and has written its PID file.
    pub fn start(&self) -> Proc {
        let mut command = Command::new(&self.exe);
        command
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut started = Proc::spawn(&mut command);
        if self.daemonize {
            let status = started.wait();
            assert!(status.success(), "redis did not go into the background: {status}");
        }
        until("redis is ready", || {
            UnixStream::connect(&self.socket).is_ok()
                && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self
                    .pid()
                    .is_some_and(|pid| self.daemonize || pid == started.pid())
        });
        match self.pid() {
            Some(pid) if self.daemonize => Proc::adopt("redis-server", pid),
            _ => started,
        }
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }
}
