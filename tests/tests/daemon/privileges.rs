//! What the daemon keeps of root once it is set up, and who runs programs in its place.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use probe_tests::{Deadline, Probed, Sandbox, children, http, kill, state, unassigned_port, until};
use rustix::process::Signal;

use crate::scene::{Service, hook, noted, noting};

/// By name, as `probe.service` and `daemon/sandbox.rs` have it, with its number in the kernel's interface.
const KEPT: [(&str, u64); 8] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("KILL", 5),
    ("SETUID", 7),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
];

fn status(path: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("{path}/status")).unwrap_or_default();
    let lines = text.lines().filter_map(|l| l.split_once(":\t"));
    lines.map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

fn field(status: &[(String, String)], name: &str) -> String {
    let found = status.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn threads(pid: u32) -> Vec<Vec<(String, String)>> {
    let directory = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon lives");
    let all = directory.flatten().map(|t| status(&t.path().to_string_lossy()));
    // One that has just ended has no status.
    all.filter(|s| !s.is_empty()).collect()
}

/// The process that runs programs for the daemon.
fn spawner(probed: &Probed) -> u32 {
    let all = children(probed.pid());
    assert_eq!(all.len(), 1, "the daemon has one child: {all:?}");
    all[0]
}

#[test]
fn every_thread_has_the_named_capabilities_no_new_privileges_and_a_filter() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let probed = Probed::start(&sandbox, &service.toml(""));
    // Threads that are started later are looked at too: a look at an address and a question to the history take one each.
    probed.http("GET", &format!("/v1/who?address=unix:{}", service.path.display()));
    probed.ask(&["history"]);
    let kept = KEPT.iter().fold(0, |set, (_, bit)| set | 1_u64 << bit);
    let threads = threads(probed.pid());
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        let set = |name: &str| u64::from_str_radix(&field(&thread, name), 16).unwrap_or(u64::MAX);
        for name in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(
                set(name),
                kept,
                "{name} of {}, expected {KEPT:?}",
                field(&thread, "Name")
            );
        }
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0));
        assert_eq!(field(&thread, "NoNewPrivs"), "1", "{thread:?}");
        assert_eq!(field(&thread, "Seccomp"), "2", "{thread:?}");
    }
    // What runs programs must not change what they can do.
    let spawner = status(&format!("/proc/{}", spawner(&probed)));
    assert_eq!(field(&spawner, "Name"), "probe-spawner");
    assert_eq!(
        (&*field(&spawner, "NoNewPrivs"), &*field(&spawner, "Seccomp")),
        ("0", "0")
    );
}

#[test]
fn a_hook_is_the_spawner_s_child_and_its_own_user_s() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let told = sandbox.path("told");
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let hook_of = format!(
        "\n[[hook]]\nname = \"who\"\non = [\"crashed\"]\nuser = \"nobody\"\n\
         exec = [\"/bin/sh\", \"-c\", \"id -u > $0.new; id -G >> $0.new; cat /proc/$PPID/comm >> $0.new; grep CapEff /proc/self/status >> $0.new; \
         ls /proc/self/fd | wc -l >> $0.new; mv $0.new $0\", {told:?}]\n"
    );
    let probed = Probed::start(&sandbox, &format!("{}{hook_of}", service.toml("")));
    let daemon = service.ready(&probed);
    service.kill(&daemon);
    until("the hook has told", || told.exists());
    let said = noted(&told);
    assert_eq!(said[0], "65534");
    assert!(
        !said[1].split(' ').any(|g| g == "0"),
        "it has root's group: {said:?}"
    );
    assert_eq!(said[2], "probe-spawner");
    assert_eq!(said[3], "CapEff:\t0000000000000000");
    // Its input, its outputs, and the directory that ls reads.
    assert_eq!(said[4].trim(), "4", "{said:?}");
    // It is counted once it has ended.
    until("the hook is counted", || {
        hook(&probed, "who")["results"]["ok"] == 1
    });
}

#[test]
fn a_daemon_without_its_spawner_says_so_and_ends() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let mut probed = Probed::start(&sandbox, &service.toml(""));
    kill("KILL", spawner(&probed));
    probed.expect_log("the spawner has ended (killed by KILL)");
    probed.ended_with(1);
    // Whoever starts it again has both again.
    probed.begin();
    spawner(&probed);
}

#[test]
fn the_spawner_outlives_stop_signals_but_not_the_daemon() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let pids = sandbox.path("pids");
    let hook_of = format!(
        "\n[[hook]]\nname = \"long\"\non = [\"crashed\"]\ntimeout = \"60s\"\n\
         exec = [\"/bin/sh\", \"-c\", \"sleep 600 & echo $! > $0.new; echo $$ >> $0.new; mv $0.new $0; wait\", {pids:?}]\n"
    );
    let mut probed = Probed::start(&sandbox, &format!("{}{hook_of}", service.toml("")));
    let daemon = service.ready(&probed);
    let spawner = spawner(&probed);
    // As a service manager that stops the unit.
    for signal in ["TERM", "INT", "HUP"] {
        kill(signal, spawner);
    }
    service.kill(&daemon);
    until("the hook runs", || pids.exists());
    let hook: Vec<u32> = noted(&pids).iter().map(|p| p.parse().unwrap()).collect();
    probed.kill();
    for pid in hook.into_iter().chain([spawner]) {
        until("nothing is left", || matches!(state(pid), None | Some('Z' | 'X')));
    }
}

#[test]
fn who_is_not_root_reads_at_most_and_never_acts() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file = sandbox.path("noted");
    let port = unassigned_port();
    let probed = Probed::with(
        &sandbox,
        &format!("api_tcp = \"127.0.0.1:{port}\""),
        &format!("{}{}", service.toml(""), noting("note", &file, "")),
    );
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    // The mode of the file keeps others out; who it is is looked at as well.
    fs::set_permissions(probed.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let ask = |method: &str, path: &str| {
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
            s.sendall(f'{sys.argv[2]} {sys.argv[3]} HTTP/1.1\\r\\nhost: a\\r\\ncontent-type: application/json\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\n{{}}'.encode())\n\
            print(s.recv(65536).decode().split()[1])";
        let output = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
            ])
            .arg(probed.socket())
            .args([method, path])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for (method, path) in [
        ("POST", "/v1/reload"),
        ("POST", "/v1/silences"),
        ("DELETE", "/v1/silences/1"),
        ("POST", "/v1/hooks/note/test"),
        ("GET", "/v1/services"),
        ("GET", "/metrics"),
    ] {
        assert_eq!(ask(method, path), "403", "{method} {path}");
    }
    // Whoever may read, as everybody may through the port, may not act.
    for (method, path, code) in [
        ("GET", "/v1/services", 200),
        ("POST", "/v1/reload", 403),
        ("POST", "/v1/silences", 403),
        ("DELETE", "/v1/silences/1", 403),
        ("POST", "/v1/hooks/note/test", 403),
    ] {
        let answer = http::over_tcp(port, method, path, "").expect("an answer");
        assert_eq!(answer.code, code, "{method} {path}");
    }
    assert_eq!(noted(&file), Vec::<String>::new());
}

#[test]
fn a_spawner_that_hangs_makes_a_hook_fail_and_hangs_nobody() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file: PathBuf = sandbox.path("noted");
    let mut probed = Probed::start(
        &sandbox,
        &format!(
            "{}{}",
            service.toml(""),
            noting("note", &file, "timeout = \"1s\"")
        ),
    );
    let daemon = service.ready(&probed);
    let spawner = spawner(&probed);
    kill("STOP", spawner);
    service.kill(&daemon);
    until("it is found all the same", || {
        probed.service("annad")["verdict"] == "finding"
    });
    until("the hook waits for it", || hook(&probed, "note")["busy"] == true);
    let began = Deadline::after(Duration::from_secs(5));
    probed.signal(Signal::TERM);
    probed.ended_with(0);
    assert!(
        began.left().is_some(),
        "its stop takes under a second, and more only on a loaded machine"
    );
    kill("CONT", spawner);
    until("the spawner ends too", || {
        matches!(state(spawner), None | Some('Z' | 'X'))
    });
}
