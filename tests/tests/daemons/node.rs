//! A Node server: a primary and workers that share a port, as the module `cluster` does it.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, children, kill};

use crate::site::{Site, foreground, until_children, until_renewed, until_tcp};

const WORKERS: usize = 2;
const SERVER: &str = r"
const cluster = require('node:cluster');
const http = require('node:http');
if (cluster.isPrimary) {
  let stopping = false;
  const replaced = new Set();
  for (let i = 0; i < WORKERS; i++) cluster.fork();
  cluster.on('exit', worker => { if (!stopping && !replaced.has(worker.id)) cluster.fork(); });
  process.on('SIGHUP', () => {
    for (const old of Object.values(cluster.workers)) {
      replaced.add(old.id);
      cluster.fork().once('listening', () => old.disconnect());
    }
  });
  process.on('SIGTERM', () => { stopping = true; cluster.disconnect(() => process.exit(0)); });
} else {
  http.createServer((request, response) => response.end('ok')).listen(PORT, '127.0.0.1');
}
";

struct Node {
    site: Site,
    exe: PathBuf,
    script: PathBuf,
    port: u16,
}

impl Node {
    fn new() -> Option<Self> {
        let mut site = Site::new("node", &["/usr/bin/node"])?;
        let (exe, port) = (site.exe("/usr/bin/node"), site.port("tcp:127.0.0.1:3000"));
        let script = site.path("/srv/app/server.js");
        let text = SERVER
            .replace("WORKERS", &WORKERS.to_string())
            .replace("PORT", &port.to_string());
        site.write("server.js", &text);
        Some(Self {
            site,
            exe,
            script,
            port,
        })
    }

    fn start(&self) -> Proc {
        let primary = foreground(&self.site.sandbox, Command::new(&self.exe).arg(&self.script));
        until_tcp(self.port);
        until_children(primary.pid(), WORKERS);
        primary
    }
}

#[test]
fn start_rolling_reload_stop_and_restart_give_no_finding() {
    let Some(node) = Node::new() else { return };
    let first = node.start();
    let watch = node.site.watch();

    let workers = children(first.pid());
    kill("HUP", first.pid());
    until_renewed(first.pid(), &workers, WORKERS);
    until_tcp(node.port);
    kill("TERM", first.pid());
    first.wait_gone();
    let second = node.start();

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_signal_that_nothing_handles_names_its_sender() {
    let Some(node) = Node::new() else { return };
    let primary = node.start();
    let watch = node.site.watch();

    let sender = kill("USR2", primary.pid());

    watch.expect("unhandled-signal", "node").by(sender).says("USR2");
    watch.expect("not-running", "node");
    watch.expect_exactly(&["crashed", "not-running", "unhandled-signal"].map(|kind| (kind, "node")));
    watch.stop();
}
