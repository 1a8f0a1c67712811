//! The real `nginx` of the distribution: a master and two workers, with a configuration of its own.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    clock::until,
    process::{self, Proc},
    sandbox::{Sandbox, free_port},
};

const WORKERS: usize = 2;

/// An installed nginx; [`Nginx::start`] runs it.
#[derive(Debug)]
pub struct Nginx {
    pub exe: PathBuf,
    pub port: u16,
    pub pid_file: PathBuf,
    config: PathBuf,
    dir: PathBuf,
}

impl Nginx {
    pub fn install(sandbox: &Sandbox) -> Self {
        let original = Path::new("/usr/sbin/nginx");
        assert!(
            original.exists(),
            "{} is missing: apt-get install nginx-light",
            original.display()
        );
        let nginx = Self {
            exe: sandbox.install(original, "nginx"),
            port: free_port(),
            pid_file: sandbox.path("nginx.pid"),
            config: sandbox.path("nginx.conf"),
            dir: sandbox.dir().to_owned(),
        };
        nginx.configure();
        nginx
    }

    /// The same executable and PID file, a second configuration with another port.
    pub fn rival(&self, sandbox: &Sandbox) -> Self {
        let rival = Self {
            exe: self.exe.clone(),
            port: free_port(),
            pid_file: self.pid_file.clone(),
            config: sandbox.path("rival.conf"),
            dir: self.dir.clone(),
        };
        rival.configure();
        rival
    }

    fn configure(&self) {
        let Self {
            port, pid_file, dir, ..
        } = self;
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {}/temp-{name};\n", dir.display()))
            .concat();
        let text = format!(
            "user nobody nogroup;\nworker_processes {WORKERS};\npid {};\nerror_log {};\nevents {{ worker_connections 64; }}\n\
             http {{\n  access_log off;\n{temp}  server {{ listen 127.0.0.1:{port}; return 204; }}\n}}\n",
            pid_file.display(),
            self.log().display()
        );
        fs::write(&self.config, text).expect("write nginx.conf");
    }

    fn log(&self) -> PathBuf {
        self.config.with_extension("log")
    }

    /// A `[[service]]` table for it; `more` are further lines.
    pub fn service(&self, more: &str) -> String {
        let Self {
            exe, port, pid_file, ..
        } = self;
        format!(
            "\n[[service]]\nname = \"nginx\"\nexe = {exe:?}\npid_file = {pid_file:?}\nlisten = [\"tcp:127.0.0.1:{port}\"]\n\
             ready_within = \"1s\"\nrelisten_within = \"300ms\"\n{more}\n"
        )
    }

    /// Starts it in the background, as its init script does, and waits until it answers and all workers are there.
    pub fn start(&self) -> Master {
        let mut command = Command::new(&self.exe);
        command
            .arg("-e")
            .arg(self.log())
            .arg("-p")
            .arg(&self.dir)
            .arg("-c")
            .arg(&self.config);
        let status = Proc::spawn(command.stdin(Stdio::null())).wait();
        assert!(
            status.success(),
            "nginx did not start: {}",
            fs::read_to_string(self.log()).unwrap_or_default()
        );
        until("nginx is ready", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self
                    .pid()
                    .is_some_and(|pid| process::children(pid).len() == WORKERS)
        });
        Master {
            proc: Proc::adopt("nginx", self.pid().expect("checked above")),
        }
    }

    /// Lets the old master start a new one from the file that lies there now, retires the old workers, and then the old
    /// master: the upgrade of the nginx manual.
    pub fn upgrade(&self, old: Master) -> Master {
        let (old_pid, old_workers) = (old.pid(), old.workers());
        process::kill("USR2", old_pid);
        until("a new master has its workers", || {
            self.pid()
                .is_some_and(|pid| pid != old_pid && process::children(pid).len() == WORKERS)
        });
        let new = Master {
            proc: Proc::adopt("nginx", self.pid().expect("checked above")),
        };
        let old_file = self.pid_file.with_extension("pid.oldbin");
        assert!(old_file.exists(), "{} names the old master", old_file.display());
        process::kill("WINCH", old_pid);
        until("the old workers are gone", || {
            let now = old.workers();
            old_workers.iter().all(|w| !now.contains(w))
        });
        old.stop("QUIT");
        until("its PID file is removed", || !old_file.exists());
        new
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }
}

/// A running master; it and its workers are killed when this is dropped.
#[derive(Debug)]
pub struct Master {
    proc: Proc,
}

impl Master {
    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    pub fn workers(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Sends HUP and waits until all workers are new ones.
    pub fn reload(&self) {
        let old = self.workers();
        process::kill("HUP", self.pid());
        until("nginx has new workers only", || {
            let now = self.workers();
            now.len() == WORKERS && now.iter().all(|pid| !old.contains(pid))
        });
    }

    /// Sends a signal and waits for the end of the master, which waits for its workers.
    pub fn stop(&self, signal: &str) {
        process::kill(signal, self.pid());
        self.proc.wait_gone();
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // Workers outlive a killed master; a killed worker is replaced by a living one.
        let workers: Vec<Proc> = self
            .workers()
            .into_iter()
            .map(|pid| Proc::adopt("nginx worker", pid))
            .collect();
        self.proc.signal(rustix::process::Signal::KILL);
        self.proc.wait_gone();
        drop(workers);
    }
}
