//! The message bus.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, kill};

use crate::site::{Site, foreground, tool, until_unix};

const SEND: &str = "/usr/bin/dbus-send";

struct Bus {
    site: Site,
    exe: PathBuf,
    socket: PathBuf,
    argument: String,
}

impl Bus {
    fn new() -> Option<Self> {
        let mut site = Site::new("dbus", &["/usr/bin/dbus-daemon", SEND])?;
        let exe = site.exe("/usr/bin/dbus-daemon");
        let socket = site.path("/run/dbus/system_bus_socket");
        let text = format!(
            "<busconfig>\n<type>system</type>\n<listen>unix:path={}</listen>\n<auth>EXTERNAL</auth>\n\
             <policy context=\"default\"><allow user=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy>\n</busconfig>\n",
            socket.display()
        );
        let config = site.write("system.conf", &text);
        let argument = format!("--config-file={}", config.display());
        site.replace("--system", &argument);
        Some(Self {
            site,
            exe,
            socket,
            argument,
        })
    }

    fn start(&self) -> Proc {
        let mut command = Command::new(&self.exe);
        command.args([&self.argument, "--nofork", "--nopidfile"]);
        let bus = foreground(&self.site.sandbox, &mut command);
        until_unix(&self.socket);
        bus
    }

    fn reload(&self) {
        let bus = format!("--bus=unix:path={}", self.socket.display());
        tool(Command::new(SEND).args([
            &bus,
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus.ReloadConfig",
        ]));
    }
}

#[test]
fn start_reload_stop_and_restart_give_no_finding() {
    let Some(bus) = Bus::new() else { return };
    let first = bus.start();
    let watch = bus.site.watch();

    bus.reload();
    kill("HUP", first.pid());
    bus.reload();
    kill("TERM", first.pid());
    first.wait_gone();
    let second = bus.start();

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_second_bus_takes_the_path_away() {
    let Some(bus) = Bus::new() else { return };
    let first = bus.start();
    let watch = bus.site.watch();

    let second = bus.start();

    watch
        .expect("orphaned-listener", "dbus")
        .by(second.pid())
        .says(first.pid());
    watch.expect_exactly(&[("duplicate-instance", "dbus"), ("orphaned-listener", "dbus")]);
    watch.stop();
}
