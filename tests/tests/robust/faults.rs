//! Faults of the host: each is said while it lasts, and over by itself when its cause is gone.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe_tests::{ControlGroup, Daemon, MemoryGroup, Probed, Sandbox, table::row, until, until_within};
use serde_json::Value;

use crate::scene::{NAME, Scene};

const TABLE: &str = "faults";

/// A file system of a given size, for as long as this lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).expect("a directory");
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .expect("mount tmpfs");
        Self(path.to_owned())
    }

    fn remount(&self, flags: MsFlags) {
        let none: Option<&str> = None;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT | flags, none).expect("remount tmpfs");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn history(probed: &Probed) -> Value {
    probed.status()["probe"]["history"].take()
}

/// A daemon of ours with a socket, and its table.
fn service(sandbox: &Sandbox) -> (Daemon, String) {
    let exe = Daemon::install(sandbox, NAME);
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).on("USR1=catch").start();
    let table = Daemon::service(NAME, &exe, &format!("listen = [\"unix:{}\"]\n", path.display()));
    (daemon, table)
}

/// Signals that the history has.
fn kept(probed: &Probed) -> usize {
    let output = probed.ask(&["history", "--kind", "signal", "--json"]);
    output.stdout.lines().count()
}

#[test]
fn a_full_disk_is_named_and_written_to_again() {
    let sandbox = Sandbox::new();
    let tmpfs = Tmpfs::mount(&sandbox.path("state"), "size=4m,mode=0700");
    let (daemon, table) = service(&sandbox);
    let probed = Probed::start(&sandbox, &table);
    until("the history is written", || {
        history(&probed)["state"] == "writing"
    });
    let filler = tmpfs.0.join("filler");
    let mut file = fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    until("the full disk is named", || {
        daemon.kill("USR1");
        history(&probed)["state"] == "failing"
    });
    let error = history(&probed)["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("full"), "{error}");
    // It watches on.
    assert_eq!(probed.service(NAME)["verdict"], "ok");
    fs::remove_file(&filler).expect("the filler");
    drop(file);
    until_within(Duration::from_secs(60), "it is written again", || {
        history(&probed)["state"] == "writing"
    });
    let before = kept(&probed);
    daemon.kill("USR1");
    until("what happens is kept", || kept(&probed) > before);
    row(TABLE, &["disk full", &error, "written again once there is room"]);
}

#[test]
fn a_read_only_state_directory_is_named_and_written_to_again() {
    let sandbox = Sandbox::new();
    let tmpfs = Tmpfs::mount(&sandbox.path("state"), "size=16m,mode=0700");
    tmpfs.remount(MsFlags::MS_RDONLY);
    let (daemon, table) = service(&sandbox);
    let probed = Probed::start(&sandbox, &table);
    until("the state directory is named", || {
        history(&probed)["state"] == "failing"
    });
    let error = history(&probed)["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(probed.service(NAME)["verdict"], "ok");
    tmpfs.remount(MsFlags::empty());
    until_within(Duration::from_secs(60), "it is written again", || {
        history(&probed)["state"] == "writing"
    });
    daemon.kill("USR1");
    until("what happens is kept", || kept(&probed) > 0);
    row(
        TABLE,
        &[
            "read-only state directory",
            &error,
            "written again once it may be",
        ],
    );
}

#[test]
fn bpffs_that_is_unmounted_is_named_and_pinned_to_again() {
    let mut scene = Scene::new("settle_every = \"1s\"\n");
    let pinned = |scene: &Scene| scene.probed.status()["probe"]["pinned"].take();
    assert_eq!(pinned(&scene)["why_not"], Value::Null);
    let before = scene.bpffs.pinned();
    scene.bpffs.unmount();
    until("it is named", || pinned(&scene)["directory"].is_null());
    let why = pinned(&scene)["why_not"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("lies on no bpffs"), "{why}");
    // Programs and maps are held all the same.
    let killer = scene.daemon.kill("KILL");
    assert_eq!(scene.expect("crashed")["actor"]["pid"], killer);
    scene.bpffs.mount_again();
    until("everything is pinned again", || {
        pinned(&scene)["directory"].is_string()
    });
    assert_eq!(scene.bpffs.pinned(), before);
    // And that counts: the next one goes on with it.
    scene.probed.kill();
    scene.probed.begin();
    assert_eq!(scene.takeover()["adopted"], true);
    row(
        TABLE,
        &[
            "bpffs unmounted while it runs",
            &why,
            "pinned again once it is mounted; the next daemon adopts it",
        ],
    );
}

#[test]
fn a_socket_directory_that_is_removed_and_made_again_is_watched_again() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, NAME);
    let directory = sandbox.path("run");
    let path = directory.join("annad.sock");
    let start = || {
        fs::create_dir(&directory).expect("a directory");
        Daemon::at(&exe).unix(&path).start()
    };
    let daemon = start();
    let table = Daemon::service(NAME, &exe, &format!("listen = [\"unix:{}\"]\n", path.display()));
    let probed = Probed::start(&sandbox, &table);
    let open = |kind: &str| {
        let service = probed.service(NAME);
        let mut findings = service["findings"].as_array().cloned().unwrap_or_default();
        findings.retain(|f| f["kind"] == kind);
        findings.pop()
    };
    for round in 0..2 {
        let mut rm = Command::new("rm").arg("-r").arg(&directory).spawn().expect("rm");
        let pid = rm.id();
        rm.wait().expect("rm");
        until("it is found", || open("orphaned-listener").is_some());
        if round == 0 {
            daemon.kill("KILL");
            daemon.wait_gone();
            let second = start();
            until("it is over", || {
                let s = probed.service(NAME);
                s["main"]["pid"] == second.pid() && s["findings"] == serde_json::json!([])
            });
            std::mem::forget(second);
        } else {
            // The directory that was made later tells who does it, as the first one did.
            let finding = open("orphaned-listener").unwrap_or_default();
            assert_eq!(finding["actor"]["pid"], pid, "{finding:#}");
        }
    }
    row(
        TABLE,
        &[
            "socket directory removed and made again",
            "orphaned-listener",
            "watched again: the next removal names its rm",
        ],
    );
}

#[test]
fn a_control_group_that_is_removed_and_made_again_is_the_same_unit() {
    let unit = format!("probe-robust-{}.service", std::process::id());
    let Some(group) = ControlGroup::new(&unit) else {
        return;
    };
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, NAME);
    let table = format!("[[service]]\nname = \"annad\"\nunit = {unit:?}\nexpected = true\n");
    let start = || {
        let daemon = Daemon::at(&exe).start();
        group.add(daemon.pid());
        daemon
    };
    let first = start();
    let probed = Probed::with(&sandbox, "settle_every = \"1s\"\n", &table);
    let main = || probed.service(NAME)["main"]["pid"].clone();
    until("it is the main process", || main() == first.pid());
    first.kill("KILL");
    first.wait_gone();
    let open = || probed.service(NAME)["findings"].to_string();
    until("its end is found", || open().contains("not-running"));
    until("the group is gone", || fs::remove_dir(group.path()).is_ok());
    fs::create_dir(group.path()).expect("the group again");
    let second = start();
    until("it is the main process", || main() == second.pid());
    until("the finding is over", || !open().contains("not-running"));
    row(
        TABLE,
        &[
            "control group removed and made again",
            "not-running",
            "the new group's process is the main one",
        ],
    );
}

#[test]
fn without_descriptors_it_says_so_and_recovers() {
    let scene = Scene::new("settle_every = \"1s\"\n");
    let pid = rustix::process::Pid::from_raw(scene.probed.pid().cast_signed());
    let files = rustix::process::Resource::Nofile;
    let old = rustix::process::getrlimit(files);
    // The hard limit stays: not everybody may raise it again.
    let few = rustix::process::Rlimit {
        current: Some(8),
        ..old
    };
    let old = rustix::process::prlimit(pid, files, few).expect("prlimit");
    let reached = || std::os::unix::net::UnixStream::connect(scene.probed.socket());
    let waiting = reached().expect("the kernel takes the connection");
    scene
        .probed
        .expect_log("a connection cannot be taken: Too many open files");
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    rustix::process::prlimit(pid, files, old).expect("prlimit");
    drop(waiting);
    assert_eq!(scene.expect("crashed")["actor"]["pid"], killer);
    scene.expect("stale-socket");
    row(
        TABLE,
        &[
            "EMFILE",
            "a connection cannot be taken: Too many open files",
            "answers again, and knows what happened meanwhile",
        ],
    );
}

#[test]
fn maps_without_memory_are_an_error_that_says_so() {
    let sandbox = Sandbox::new();
    let (_daemon, table) = service(&sandbox);
    let group = match MemoryGroup::new("probe-robust", 200) {
        Ok(group) => group,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut probed = Probed::declared(&sandbox, "ring = \"512MiB\"\n", &table, &Default::default());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "read go; exec \"$@\"", "sh"])
        .arg(probe_tests::probe_binary())
        .args(["daemon", "--config"])
        .arg(probed.config())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("sh");
    group.add(child.id());
    drop(child.stdin.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(1), "{status} {said}");
    let error = said.lines().last().unwrap_or_default();
    assert!(
        error.matches("`EVENTS`").count() == 1 && error.contains("Cannot allocate memory"),
        "{said}"
    );
    // With memory the same starts.
    probed.rewrite("512MiB", "1MiB");
    probed.begin();
    assert_eq!(probed.service(NAME)["verdict"], "ok");
    row(TABLE, &["ENOMEM from maps", error, "starts once there is memory"]);
}

#[test]
fn a_removed_api_socket_is_made_again() {
    let scene = Scene::new("");
    let socket = scene.probed.socket().to_owned();
    for _ in 0..3 {
        fs::remove_file(&socket).expect("the socket");
        until("it answers again", || {
            let asked = probe_tests::http::over_unix(&socket, "GET", "/healthz", "");
            asked.is_ok_and(|a| a.code == 200)
        });
    }
    scene.probed.expect_log("somebody has removed");
    row(
        TABLE,
        &[
            "API socket deleted",
            "somebody has removed …; it is there again",
            "answers again at once",
        ],
    );
}

#[test]
fn hidden_processes_are_unknown_and_not_dead() {
    let sandbox = Sandbox::new();
    let (daemon, table) = service(&sandbox);
    let config = sandbox.write("check.toml", &table);
    // Seen by whoever may see everything, and hidden from others.
    let check = |uid: &str| {
        let script = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=$0 --regid=$0 --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "/bin/sh", "-c", script, uid])
            .arg(probe_tests::probe_binary())
            .args(["check", "--config"])
            .arg(&config);
        probe_tests::run(&mut command)
    };
    let root = check("0");
    assert_eq!(root.code, Some(0), "{root:?}");
    let other = check("65534");
    assert_eq!(other.code, Some(3), "{other:?}");
    assert!(other.stdout.contains("UNKNOWN"), "{other:?}");
    drop(daemon);
    row(
        TABLE,
        &[
            "/proc with hidepid=2, as nobody",
            other.stdout.lines().next().unwrap_or_default(),
            "root sees everything: OK",
        ],
    );
}

#[test]
fn a_webhook_that_answers_for_ever_delays_nobody() {
    let sandbox = Sandbox::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in server.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut stream = stream;
                _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
                // A byte of the head now and then, for as long as anybody listens.
                while stream.write_all(b"y").is_ok() {
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    let exe = Daemon::install(&sandbox, NAME);
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let noted = sandbox.path("noted");
    let table = Daemon::service(NAME, &exe, &format!("listen = [\"unix:{}\"]\n", path.display()));
    let probed = Probed::start(
        &sandbox,
        &format!(
            "{table}[[hook]]\nname = \"slow\"\nseverity = \"warning\"\nwebhook = \"http://{address}/\"\ntimeout = \"1s\"\n\
             [[hook]]\nname = \"note\"\nseverity = \"warning\"\nexec = [\"/bin/sh\", \"-c\", \"echo {{kind}} >> {}\"]\n",
            noted.display()
        ),
    );
    daemon.kill("KILL");
    daemon.wait_gone();
    until("the other hook tells", || {
        fs::metadata(&noted).is_ok_and(|m| m.len() > 0)
    });
    let slow = || {
        let hooks = probed.status()["probe"]["hooks"].take();
        hooks
            .as_array()
            .into_iter()
            .flatten()
            .find(|h| h["hook"] == "slow")
            .cloned()
            .unwrap_or_default()
    };
    until("its time limit ends an attempt", || {
        slow()["failed_attempts"].as_u64().is_some_and(|n| n > 0)
    });
    assert_eq!(probed.http("GET", "/healthz").code, 200);
    row(
        TABLE,
        &[
            "a webhook that answers slowly for ever",
            "the hook's failed attempts are counted",
            "other hooks and the API go on",
        ],
    );
}
