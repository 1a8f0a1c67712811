//! chrony: UDP alone, a UNIX socket that takes datagrams, and orders by `chronyc`.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Proc, kill};

use crate::site::{Site, background, program, tool, until_socket_file};

const EXE: &str = "/usr/sbin/chronyd";
/// chronyd uses no directory that others could write to.
const DIRECTORY_MODE: u32 = 0o750;

struct Chrony {
    site: Site,
    exe: PathBuf,
    chronyc: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Chrony {
    fn new() -> Option<Self> {
        let (chronyd, chronyc) = (program("chrony", EXE), program("chrony", "/usr/bin/chronyc"));
        let mut site = Site::new("chrony", &[&chronyd, &chronyc])?;
        let exe = site.exe_from(EXE, Path::new(&chronyd));
        let port = site.port("udp:127.0.0.1:323");
        let run = site.dir().join("run");
        DirBuilder::new()
            .mode(DIRECTORY_MODE)
            .create(&run)
            .expect("its directory");
        let mut at = |original: &str| {
            let name = Path::new(original).file_name().expect("a file");
            let path = run.join(name);
            site.replace(original, &path.display().to_string());
            path
        };
        let (pid_file, socket) = (at("/run/chrony/chronyd.pid"), at("/run/chrony/chronyd.sock"));
        // It follows nobody's clock but the machine's own, and serves nobody.
        let text = format!(
            "port 0\ncmdport {port}\nbindcmdaddress 127.0.0.1\nbindcmdaddress {}\npidfile {}\nlocal stratum 10\n",
            socket.display(),
            pid_file.display()
        );
        let config = site.write("chrony.conf", &text);
        Some(Self {
            site,
            exe,
            chronyc: PathBuf::from(chronyc),
            pid_file,
            socket,
            config,
            port,
        })
    }

    /// `-x`: it leaves the machine's clock alone.
    fn chronyd(&self) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(["-x", "-u", "root", "-f"]).arg(&self.config);
        command
    }

    fn start(&self) -> Proc {
        let running = background(&mut self.chronyd(), &self.pid_file);
        until_socket_file(&self.socket);
        self.asked_by_udp();
        running
    }

    fn asked_by_udp(&self) {
        let port = self.port.to_string();
        let tracking = tool(Command::new(&self.chronyc).args(["-h", "127.0.0.1", "-p", &port, "tracking"]));
        assert!(tracking.contains("Stratum         : 10"), "{tracking}");
    }

    fn order(&self, order: &str) {
        tool(Command::new(&self.chronyc).arg("-h").arg(&self.socket).arg(order));
    }
}

#[test]
fn start_orders_shutdown_by_command_and_restart_give_no_finding() {
    let Some(chrony) = Chrony::new() else { return };
    let mut running = chrony.start();
    let watch = chrony.site.watch();

    for order in ["rekey", "cyclelogs"] {
        chrony.order(order);
        chrony.asked_by_udp();
    }
    // The same program as a tool: it prints its configuration.
    tool(chrony.chronyd().arg("-p"));
    chrony.order("shutdown");
    running.wait_gone();
    for signal in ["TERM", "HUP"] {
        running = chrony.start();
        kill(signal, running.pid());
        running.wait_gone();
    }
    running = chrony.start();

    watch.expect_nothing();
    watch.stop();
    drop(running);
}

#[test]
fn a_crash_leaves_a_datagram_socket_stale_and_the_next_start_clears_it() {
    let Some(chrony) = Chrony::new() else { return };
    let first = chrony.start();
    let watch = chrony.site.watch();

    let killer = kill("KILL", first.pid());
    first.wait_gone();
    watch.expect("crashed", "chrony").by(killer).says(first.pid());
    let kinds = ["crashed", "not-running", "stale-pid-file", "stale-socket"];
    watch.expect_exactly(&kinds.map(|kind| (kind, "chrony")));

    let second = chrony.start();
    for kind in kinds {
        watch.expect_resolved(kind, "chrony");
    }
    watch.stop();
    drop(second);
}
