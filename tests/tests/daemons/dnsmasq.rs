//! dnsmasq as a name server: UDP, and TCP with a child for each connection.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use probe_tests::{Daemon, Proc, kill, until};

use crate::site::{Site, background};

/// Asks for the address of `a.test`.
const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";

struct Dnsmasq {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Dnsmasq {
    fn new() -> Option<Self> {
        let mut site = Site::new("dnsmasq", &["/usr/sbin/dnsmasq"])?;
        let (exe, port) = (site.exe("/usr/sbin/dnsmasq"), site.port("tcp:127.0.0.1:53"));
        site.place("udp:127.0.0.1:53", port);
        let pid_file = site.path("/run/dnsmasq/dnsmasq.pid");
        let text = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\naddress=/test/127.0.0.9\n\
             pid-file={}\nlog-facility={}/dnsmasq.log\n",
            pid_file.display(),
            site.dir().display()
        );
        let config = site.write("dnsmasq.conf", &text);
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
            Command::new(&self.exe).arg("-C").arg(&self.config),
            &self.pid_file,
        );
        self.asked_by_udp();
        self.asked_by_tcp();
        running
    }

    fn asked_by_udp(&self) {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        client
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a time-out");
        client
            .connect((Ipv4Addr::LOCALHOST, self.port))
            .expect("its port");
        until("it answers by UDP", || {
            let mut answer = [0; 512];
            client.send(QUERY).is_ok()
                && client
                    .recv(&mut answer)
                    .is_ok_and(|n| answer[..n].ends_with(&[127, 0, 0, 9]))
        });
    }

    fn asked_by_tcp(&self) {
        until("it answers by TCP", || {
            let mut answer = vec![0; 2];
            let mut ask = || {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                let length = u16::try_from(QUERY.len()).expect("short").to_be_bytes();
                stream.write_all(&[&length, QUERY].concat())?;
                stream.read_exact(&mut answer)
            };
            ask().is_ok()
        });
    }
}

#[test]
fn start_queries_reload_stop_and_restart_give_no_finding() {
    let Some(dnsmasq) = Dnsmasq::new() else { return };
    let first = dnsmasq.start();
    let watch = dnsmasq.site.watch();

    for signal in ["HUP", "USR1", "USR2"] {
        kill(signal, first.pid());
        dnsmasq.asked_by_udp();
        dnsmasq.asked_by_tcp();
    }
    kill("TERM", first.pid());
    first.wait_gone();
    let second = dnsmasq.start();

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_crash_and_a_stranger_on_its_port() {
    let Some(dnsmasq) = Dnsmasq::new() else { return };
    let running = dnsmasq.start();
    let watch = dnsmasq.site.watch();

    let killer = kill("KILL", running.pid());
    running.wait_gone();
    watch.expect("crashed", "dnsmasq").by(killer).says(running.pid());
    let stranger = Daemon::install(&dnsmasq.site.sandbox, "stranger");
    let stranger = Daemon::at(&stranger).tcp(dnsmasq.port).start();

    watch.expect("address-taken", "dnsmasq").says(stranger.pid());
    watch.expect_exactly(
        &["address-taken", "crashed", "not-running", "stale-pid-file"].map(|k| (k, "dnsmasq")),
    );
    watch.stop();
}
