//! Real servers, and clients that ask them for as much as they can serve.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use probe_tests::{Sandbox, free_port, until};
use probe_user::clock;

use crate::peer;

/// How long one run asks.
const RUN: Duration = Duration::from_millis(1_500);
const CLIENTS: usize = 4;

pub(super) struct Server {
    name: &'static str,
    exe: PathBuf,
    port: u16,
    /// What one client asks, and how long the answer is.
    question: Vec<u8>,
    answer: usize,
    child: Child,
}

/// Those that are installed, and which are not.
pub(super) fn start(sandbox: &Sandbox) -> anyhow::Result<(Vec<Server>, Vec<String>)> {
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    for (program, start) in [
        ("nginx", nginx as fn(&Sandbox) -> anyhow::Result<Server>),
        ("redis-server", redis),
    ] {
        match peer::is_there(program) {
            true => servers.push(start(sandbox)?),
            false => missing.push(format!("{program} is not installed")),
        }
    }
    Ok((servers, missing))
}

fn nginx(sandbox: &Sandbox) -> anyhow::Result<Server> {
    let port = free_port();
    let directory = sandbox.path("nginx");
    fs::create_dir_all(directory.join("root"))?;
    fs::write(directory.join("root/index.html"), "x".repeat(512))?;
    let exe = sandbox.install("/usr/sbin/nginx".as_ref(), "nginx.bin");
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{ access_log off; keepalive_requests 100000000;\n\
         client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fcgi;\n\
         uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; root {0}/root; }} }}\n",
        directory.display()
    );
    fs::write(directory.join("nginx.conf"), text)?;
    let mut command = Command::new(&exe);
    command
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .arg("-p")
        .arg(&directory);
    Server::start(
        "nginx",
        exe,
        command,
        port,
        b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n",
    )
}

fn redis(sandbox: &Sandbox) -> anyhow::Result<Server> {
    let port = free_port();
    let exe = sandbox.install("/usr/bin/redis-server".as_ref(), "redis.bin");
    let mut command = Command::new(&exe);
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--port",
    ]);
    command.arg(port.to_string()).arg("--dir").arg(sandbox.dir());
    Server::start(
        "redis",
        exe,
        command,
        port,
        b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n",
    )
}

impl Server {
    fn start(
        name: &'static str,
        exe: PathBuf,
        mut command: Command,
        port: u16,
        question: &[u8],
    ) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let mut server = Self {
            name,
            exe,
            port,
            question: question.to_vec(),
            answer: 0,
            child,
        };
        until(&format!("{name} listens"), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        // Each answer is as long as the first.
        let mut client = server.connect()?;
        client.write_all(question)?;
        client.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            server.answer += n;
        }
        ensure!(server.answer > 0, "{name} does not answer");
        Ok(server)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn declaration(&self) -> String {
        format!(
            "[[service]]\nname = {:?}\nexe = {:?}\nlisten = [\"tcp:127.0.0.1:{}\"]\n",
            self.name, self.exe, self.port
        )
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let client = TcpStream::connect(("127.0.0.1", self.port))?;
        client.set_nodelay(true)?;
        Ok(client)
    }

    pub(super) fn requests_per_second(&self) -> anyhow::Result<f64> {
        let (answered, end) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(self.connect()?);
        }
        let ask = |mut client: TcpStream| -> anyhow::Result<()> {
            let mut buffer = vec![0; self.answer];
            while !end.load(Ordering::Relaxed) {
                client.write_all(&self.question)?;
                client.read_exact(&mut buffer)?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let began = clock::now();
        thread::scope(|scope| {
            let asking: Vec<_> = clients.into_iter().map(|c| scope.spawn(|| ask(c))).collect();
            thread::sleep(RUN);
            end.store(true, Ordering::Relaxed);
            asking.into_iter().try_for_each(|a| a.join().unwrap_or(Ok(())))
        })?;
        Ok(answered.load(Ordering::Relaxed) as f64 / clock::now().since(began).as_secs_f64())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx's master ends its worker on SIGTERM; what is left runs a copy in the sandbox, which ends it.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        _ = self.child.wait();
    }
}
