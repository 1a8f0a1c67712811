//! What the lanes need of the machine.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, bail};

use crate::{apt, child, workspace};

/// Debian packages of the tests, and what for.
const PACKAGES: [(&str, &str); 13] = [
    (
        "redis-server",
        "a real daemon with a UNIX socket, a TCP port and a PID file",
    ),
    (
        "redis-tools",
        "redis-benchmark makes load; redis-cli stops a daemon by a command",
    ),
    ("nginx-light", "a real daemon with a master, workers and reloads"),
    ("lsof", "the tests show where it names the wrong process"),
    ("psmisc", "fuser: likewise"),
    ("procps", "the kill and ps that administrators use"),
    (
        "systemd-journal-remote",
        "writes the journal of the heartbeat tests",
    ),
    ("dbus-daemon", "a message bus for the stand-in of systemd"),
    ("bpftool", "lists what of eBPF is in the kernel"),
    ("python3", "small daemons in an interpreter"),
    (
        "python3-venv",
        "a place for schemathesis, which asks the API at random",
    ),
    (
        "prometheus",
        "scrapes the daemon; promtool judges metrics, alert rules and the dashboard",
    ),
    (
        "prometheus-alertmanager",
        "receives alerts of a hook, and clears them",
    ),
];

/// Daemons of the lane of that name, and what each shows. A machine may lack some: their tests say so.
const DAEMONS: [(&str, &str); 25] = [
    ("redis-server", "a socket, a port, a PID file"),
    ("redis-tools", "redis-cli stops it by a command"),
    ("nginx-light", "reloads, and an upgrade of its binary"),
    (
        "haproxy",
        "a master that executes itself anew, sockets that are handed over",
    ),
    (
        "apache2-bin",
        "graceful restarts, workers that outlive their master",
    ),
    (
        "memcached",
        "a daemon that serves TCP alone, and has no socket file",
    ),
    ("dovecot-core", "many processes and many sockets of one master"),
    ("dovecot-imapd", "what makes dovecot listen"),
    (
        "postgresql-15",
        "a PID file of several lines, three kinds of stop, recovery",
    ),
    ("gunicorn", "a daemon in Python, two masters side by side"),
    ("uwsgi-core", "a master that executes itself anew"),
    ("uwsgi-plugin-python3", "what uwsgi serves"),
    ("dbus-daemon", "a socket that another one may take away"),
    ("dbus-bin", "dbus-send reloads it"),
    ("rsyslog", "a datagram socket like /dev/log"),
    (
        "dnsmasq-base",
        "UDP and TCP on one port, a child for each connection",
    ),
    ("openssh-server", "sessions that outlive a restart, re-execution"),
    ("openssh-client", "sessions of that server"),
    ("supervisor", "a parent of other daemons"),
    ("monit", "starts daemons again"),
    ("nodejs", "a port that workers share"),
    ("tomcat10-user", "a Java server with scripts of its own"),
    ("openjdk-17-jre-headless", "what Tomcat runs in"),
    ("containerd", "several sockets in one directory"),
    ("procps", "kill, as administrators use it"),
];

/// Likewise, only unpacked: a machine has one package of their kind, and installing this one would remove its own.
const UNPACKED: [(&str, &str); 1] = [("chrony", "UDP alone, and a UNIX socket that takes datagrams")];

/// Installs the daemons that there are. One that cannot be installed is no failure here: it is named, and so is what is not
/// tested without it.
pub(crate) fn daemons() {
    let skipped = |name, reason, error| println!("skipped: {name} ({reason}) cannot be installed: {error:#}");
    let names = DAEMONS.map(|(name, _)| name);
    if apt::install(&names).is_err() {
        for (name, reason) in DAEMONS {
            if let Err(error) = apt::install(&[name]) {
                skipped(name, reason, error);
            }
        }
    }
    for (name, reason) in UNPACKED {
        if let Err(error) = unpack(name) {
            skipped(name, reason, error);
        }
    }
}

/// Unpacks a package under the target directory, and installs the libraries that it takes.
fn unpack(package: &str) -> anyhow::Result<()> {
    let place = workspace::target_dir()?.join("daemons").join(package);
    if apt::missing(&[package]).is_empty() || place.exists() {
        return Ok(());
    }
    let home = place.with_file_name("");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    // Made under another name, so that a run that was ended leaves nothing that looks whole.
    let made = tempfile::tempdir_in(&home).context("make a directory")?;
    let file = apt::download(package, made.path())?;
    let limit = Duration::from_secs(60);
    let field = child::capture(
        Command::new("dpkg-deb").arg("--field").arg(&file).arg("Depends"),
        limit,
    )?;
    apt::install(&libraries(&field))?;
    let root = made.path().join("root");
    child::capture(
        Command::new("dpkg-deb").arg("--extract").args([&file, &root]),
        limit,
    )?;
    fs::rename(&root, &place).with_context(|| format!("move {} to {}", root.display(), place.display()))
}

/// The libraries among what a package depends on: `libc6 (>= 2.34), adduser, …`.
fn libraries(depends: &str) -> Vec<&str> {
    let names = depends.split(',').filter_map(|d| d.split_whitespace().next());
    names.filter(|name| name.starts_with("lib")).collect()
}

/// Makes sure of the packages of the tests.
///
/// # Errors
/// Names the packages and what each is for where they can't be installed.
pub(crate) fn packages() -> anyhow::Result<()> {
    let names = PACKAGES.map(|(name, _)| name);
    let missing = apt::missing(&names);
    apt::install(&missing).with_context(|| {
        let lines = PACKAGES.iter().filter(|(name, _)| missing.contains(name));
        let lines: Vec<_> = lines.map(|(name, reason)| format!("{name} ({reason})")).collect();
        format!("the tests need {}", lines.join(", "))
    })
}

/// What makes questions from the API's own document; PyPI has it.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Makes sure of schemathesis, in an environment of its own under the target directory.
///
/// # Errors
/// When PyPI can't be reached, or Python has no `venv`.
pub(crate) fn schemathesis() -> anyhow::Result<()> {
    let place = workspace::target_dir()?.join("schemathesis");
    // Named by its version: another one is installed anew.
    let done = place.join(SCHEMATHESIS);
    if done.exists() {
        return Ok(());
    }
    let limit = Duration::from_secs(600);
    child::show(Command::new("python3").args(["-m", "venv"]).arg(&place), limit)?;
    let pip = place.join("bin/pip");
    child::show(
        Command::new(pip).args(["install", "--quiet", SCHEMATHESIS]),
        limit,
    )
    .with_context(|| format!("install {SCHEMATHESIS} from PyPI, which the tests of the API need"))?;
    fs::write(&done, "").with_context(|| format!("write {}", done.display()))
}

/// Makes sure of a part of the Rust toolchain that minimal installations lack, such as `clippy`.
pub(crate) fn component(name: &str, subcommand: &str) -> anyhow::Result<()> {
    let limit = Duration::from_secs(60);
    if child::capture(workspace::cargo().args([subcommand, "--version"]), limit).is_ok() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", name])
        .current_dir(workspace::root());
    if child::show(&mut rustup, Duration::from_secs(600)).is_err() {
        bail!("`cargo {subcommand}` is missing: rustup component add {name}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_what_else_a_package_takes() {
        assert_eq!(
            libraries("adduser, libc6 (>= 2.34), tzdata, libnettle8, libssl3 | libssl1.1\n"),
            ["libc6", "libnettle8", "libssl3"]
        );
    }

    #[test]
    fn each_package_has_its_reason() {
        assert!(
            PACKAGES
                .iter()
                .chain(&DAEMONS)
                .chain(&UNPACKED)
                .all(|(name, reason)| !name.is_empty() && reason.len() > 10)
        );
    }
}
