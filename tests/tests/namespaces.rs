//! Ports, paths and pids of daemons that do not see what the host sees.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Daemon, Proc, Sandbox, Watch, free_port, kill};

const EXPECTED: &str = "expected = true";

fn any(port: u16) -> String {
    format!("0.0.0.0:{port}")
}

/// A daemon in a network namespace of its own.
fn apart(exe: &Path, port: u16) -> Daemon {
    Daemon::unshared(exe, &["--net"])
        .arg("--tcp")
        .arg(&any(port))
        .start()
}

fn service(name: &str, exe: &Path, port: u16, netns: &str) -> String {
    let more = format!("listen = [\"tcp:{port}\"]\nnetns = {netns:?}\n{EXPECTED}");
    Daemon::service(name, exe, &more)
}

/// Closes and opens the port; probe must see both, by events, whoever listens there elsewhere.
fn close_and_listen(watch: &Watch, daemon: &mut Daemon, port: u16) {
    watch.expect_nothing();
    daemon.tell(&format!("close tcp:{}", any(port)));
    watch.expect("not-listening", "annad");
    daemon.tell(&format!("listen tcp:{}", any(port)));
    watch.expect_resolved("not-listening", "annad");
    watch.forget();
}

#[test]
fn another_namespace_s_port_is_not_the_host_s() {
    let sandbox = Sandbox::new();
    let (exe, other) = (
        Daemon::install(&sandbox, "annad"),
        Daemon::install(&sandbox, "other"),
    );
    let port = free_port();
    let mut daemon = Daemon::at(&exe).arg("--tcp").arg(&any(port)).start();
    let mut stranger = apart(&other, port);
    let watch = Watch::start(&sandbox, &service("annad", &exe, port, "host"));

    close_and_listen(&watch, &mut daemon, port);

    // Nor is what happens there of any interest.
    stranger.tell(&format!("close tcp:{}", any(port)));
    stranger.tell(&format!("listen tcp:{}", any(port)));
    stranger.kill("KILL");
    stranger.wait_gone();
    let _later = apart(&other, port);
    watch.expect_nothing();
    let theirs = watch.lines();
    assert!(
        !theirs
            .iter()
            .any(|l| l.value["kind"] == "listen" && l.value["service"] == "annad"),
        "{theirs:#?}"
    );
    watch.stop();
}

#[test]
fn the_main_process_s_namespace() {
    let sandbox = Sandbox::new();
    let (exe, other) = (
        Daemon::install(&sandbox, "annad"),
        Daemon::install(&sandbox, "other"),
    );
    let port = free_port();
    let _stranger = Daemon::at(&other).arg("--tcp").arg(&any(port)).start();
    let mut daemon = apart(&exe, port);
    let watch = Watch::start(&sandbox, &service("annad", &exe, port, "main"));

    close_and_listen(&watch, &mut daemon, port);

    // The next one has another namespace.
    daemon.kill("TERM");
    daemon.wait_gone();
    let mut daemon = apart(&exe, port);
    close_and_listen(&watch, &mut daemon, port);
    watch.stop();
}

/// A file that stands for a namespace, as `ip netns add` makes it.
struct NetnsFile(PathBuf);

impl NetnsFile {
    fn of(daemon: &Daemon, path: PathBuf) -> Self {
        fs::write(&path, "").expect("a file");
        let from = format!("/proc/{}/ns/net", daemon.pid());
        let none = None::<&str>;
        nix::mount::mount(
            Some(from.as_str()),
            &path,
            none,
            nix::mount::MsFlags::MS_BIND,
            none,
        )
        .expect("bind mount");
        Self(path)
    }
}

impl Drop for NetnsFile {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_namespace_s_file() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let port = free_port();
    let mut daemon = apart(&exe, port);
    let file = NetnsFile::of(&daemon, sandbox.path("netns"));
    let watch = Watch::start(
        &sandbox,
        &service("annad", &exe, port, &file.0.display().to_string()),
    );

    close_and_listen(&watch, &mut daemon, port);
    watch.stop();
}

#[test]
fn two_services_with_the_same_port_each_in_its_own_namespace() {
    let sandbox = Sandbox::new();
    let (one, two) = (
        Daemon::install(&sandbox, "annad"),
        Daemon::install(&sandbox, "berta"),
    );
    let port = free_port();
    let (first, _second) = (apart(&one, port), apart(&two, port));
    let config = service("annad", &one, port, "main") + &service("berta", &two, port, "main");
    let watch = Watch::start(&sandbox, &config);
    watch.expect_nothing();

    first.kill("KILL");

    watch.expect("crashed", "annad");
    watch.expect_exactly(&[("crashed", "annad"), ("not-running", "annad")]);
    watch.stop();
}

/// A directory that a daemon is locked into.
fn jail(sandbox: &Sandbox) -> PathBuf {
    let jail = sandbox.path("jail");
    fs::create_dir_all(jail.join("run")).expect("directories");
    jail
}

#[test]
fn a_chrooted_daemon_s_socket_and_pid_file() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let jail = jail(&sandbox);
    // A link that leads elsewhere for the host.
    symlink("/run", jail.join("var")).expect("a link");
    let start = || {
        Daemon::at(&exe)
            .arg("--chroot")
            .arg(&jail.display().to_string())
            .arg("--take-over")
            .unix(Path::new("/var/probe-test-a.sock"))
            .pid_file(Path::new("/run/probe-test-a.pid"))
            .start()
    };
    let daemon = start();
    let more =
        "listen = [\"unix:/var/probe-test-a.sock\"]\npid_file = \"/run/probe-test-a.pid\"\nexpected = true";
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, more));
    watch.expect_nothing();

    let mut rm = Proc::spawn(Command::new("rm").arg(jail.join("run/probe-test-a.sock")));
    rm.wait();
    watch.expect("orphaned-listener", "annad").by(rm.pid());
    watch.forget();

    let killer = kill("KILL", daemon.pid());
    daemon.wait_gone();
    watch.expect("stale-pid-file", "annad").by(killer);
    let _daemon = start();
    watch.expect_resolved("stale-pid-file", "annad");
    watch.expect_resolved("orphaned-listener", "annad");
    watch.forget();
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_daemon_that_locks_itself_in_after_it_has_bound() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (jail, socket, pid_file) = (jail(&sandbox), sandbox.path("a.sock"), sandbox.path("a.pid"));
    let more = format!(
        "listen = [\"unix:{}\"]\npid_file = {pid_file:?}\n{EXPECTED}",
        socket.display()
    );
    let mut daemon = Daemon::at(&exe).unix(&socket).pid_file(&pid_file).start();
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    daemon.tell(&format!("chroot {}", jail.display()));
    watch.expect_nothing();

    let mut rm = Proc::spawn(Command::new("rm").arg(&socket));
    rm.wait();

    watch.expect("orphaned-listener", "annad").by(rm.pid());
    watch.stop();
}

#[test]
fn a_private_directory_is_the_daemon_s_own() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let hidden = sandbox.path("tmp");
    fs::create_dir(&hidden).expect("a directory");
    let socket = hidden.join("a.sock");
    let start = || Daemon::with_private(&exe, &hidden).unix(&socket).start();
    let daemon = start();
    let more = format!("listen = [\"unix:{}\"]\n{EXPECTED}", socket.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    watch.expect_nothing();

    let inside = PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), socket.display()));
    let mut rm = Proc::spawn(Command::new("rm").arg(inside));
    assert!(rm.wait().success());
    watch.expect("orphaned-listener", "annad").by(rm.pid());
    watch.forget();

    daemon.kill("TERM");
    daemon.wait_gone();
    let _daemon = start();
    watch.expect_resolved("orphaned-listener", "annad");
    watch.forget();
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_pid_file_from_inside_a_pid_namespace() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("a.pid");
    let mut daemon = Daemon::unshared(&exe, &["--pid"]).pid_file(&pid_file).start();
    assert_eq!(fs::read_to_string(&pid_file).expect("it is there").trim(), "1");
    let more = format!("pid_file = {pid_file:?}\n{EXPECTED}");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    watch.expect_nothing();

    // The host's number of a process that is not in there.
    daemon.tell(&format!("pid-file {}", std::process::id()));
    watch.expect("stale-pid-file", "annad");
    daemon.tell("pid-file");
    let pid = daemon.pid();
    watch.expect_resolved("stale-pid-file", "annad");
    watch.expect_event("pid_file", "annad", "the host's pid", |l| {
        l.raw.contains(&pid.to_string())
    });
    watch.forget();

    // What it leaves behind names nobody of the host's.
    let killer = daemon.kill("KILL");
    watch.expect("stale-pid-file", "annad").by(killer).says(pid);
    watch.stop();
}
