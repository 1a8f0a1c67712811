//! redis with its own tool: `redis-cli shutdown`.

use std::process::Command;

use probe_tests::{Proc, kill};

use crate::site::{Site, foreground, tool, until_named, until_tcp, until_unix};

struct Redis {
    site: Site,
    exe: std::path::PathBuf,
    socket: std::path::PathBuf,
    pid_file: std::path::PathBuf,
    config: std::path::PathBuf,
    port: u16,
}

impl Redis {
    fn new() -> Option<Self> {
        let mut site = Site::new("redis", &["/usr/bin/redis-server", "/usr/bin/redis-cli"])?;
        let (exe, port) = (site.exe("/usr/bin/redis-server"), site.port("tcp:127.0.0.1:6379"));
        let socket = site.path("/run/redis/redis-server.sock");
        let pid_file = site.path("/run/redis/redis-server.pid");
        let text = format!(
            "bind 127.0.0.1\nport {port}\nunixsocket {}\npidfile {}\ndir {}\nsave \"\"\n",
            socket.display(),
            pid_file.display(),
            site.dir().display()
        );
        let config = site.write("redis.conf", &text);
        Some(Self {
            site,
            exe,
            socket,
            pid_file,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let proc = foreground(&self.site.sandbox, Command::new(&self.exe).arg(&self.config));
        until_tcp(self.port);
        until_unix(&self.socket);
        until_named(&self.pid_file, proc.pid());
        proc
    }
}

#[test]
fn start_shutdown_by_command_and_restart_give_no_finding() {
    let Some(redis) = Redis::new() else { return };
    let first = redis.start();
    let watch = redis.site.watch();

    tool(Command::new("redis-cli").args(["-p", &redis.port.to_string(), "shutdown", "nosave"]));
    first.wait_gone();
    let second = redis.start();
    kill("TERM", second.pid());
    second.wait_gone();
    let third = redis.start();

    watch.expect_nothing();
    watch.stop();
    drop(third);
}

#[test]
fn a_removed_socket_orphans_the_listener() {
    let Some(redis) = Redis::new() else { return };
    let running = redis.start();
    let watch = redis.site.watch();

    tool(Command::new("rm").arg(&redis.socket));

    watch.expect("orphaned-listener", "redis").says(running.pid());
    watch.expect_exactly(&[("orphaned-listener", "redis")]);
    watch.stop();
}
