//! The Debian package under the real systemd: from its installation to its purge. `cargo xtask vm --systemd` builds it and puts
//! it into the machine, and a later one of the same program.

use std::{
    env,
    fs::{self, File},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use probe_tests::{Objects, Output, Sandbox, Unit, kill, run, until};
use serde_json::Value;

const UNIT: &str = "probe.service";

/// Runs a program to its end, which must be a good one.
#[track_caller]
fn done(program: &str, args: &[&str]) -> String {
    let output = run(Command::new(program).args(args));
    assert_eq!(output.code, Some(0), "{program} {}: {output:?}", args.join(" "));
    output.stdout
}

fn property(name: &str) -> String {
    done("systemctl", &["show", "--value", "--property", name, UNIT])
        .trim_end()
        .to_owned()
}

fn main_pid() -> u32 {
    property("MainPID").parse().expect("a pid")
}

/// The installed program.
fn probe(args: &[&str]) -> Output {
    run(Command::new("/usr/bin/probe").args(args))
}

/// What it says of the service.
fn status(service: &str) -> Value {
    let output = probe(&["status", "--json"]);
    let status: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let services = status["services"].as_array().cloned().unwrap_or_default();
    services
        .into_iter()
        .find(|s| s["service"] == service)
        .unwrap_or_default()
}

/// Kinds of its open findings.
fn open(service: &str) -> Vec<String> {
    let status = status(service);
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    findings
        .iter()
        .filter_map(|f| f["kind"].as_str().map(str::to_owned))
        .collect()
}

fn packages() -> [PathBuf; 2] {
    let directory = env::var_os("PROBE_TEST_PACKAGES").expect("PROBE_TEST_PACKAGES");
    let mut packages: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the directory of the packages")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    packages.sort();
    packages.try_into().expect("a package and a later one")
}

/// A socket of the daemon, in a directory of its own below `parent`.
fn socket_below(parent: &str) -> PathBuf {
    let directory = Path::new(parent).join("package-test");
    fs::create_dir_all(&directory).expect("a directory for a socket");
    directory.join("annad.sock")
}

/// Shows what the installed daemon said, where a test fails.
struct Journal;

impl Drop for Journal {
    fn drop(&mut self) {
        if thread::panicking() {
            let output = run(Command::new("journalctl").args(["--no-pager", "--unit", UNIT]));
            eprintln!("{}", output.stdout);
        }
    }
}

#[test]
fn from_the_installation_to_the_purge() {
    if !Unit::possible() {
        return;
    }
    let [first, later] = packages().map(|p| p.display().to_string());
    let _told = Journal;

    // Ready means ready: systemd waits for it.
    done("dpkg", &["--install", &first]);
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(property("SubState"), "running");
    assert_eq!(property("Type"), "notify");
    let pid = main_pid();
    // Nobody has declared anything, and this host is healthy.
    let output = probe(&["check"]);
    assert_eq!(output.code, Some(0), "{output:?}");

    // Sockets where a unit with a view of its own would not see them.
    let (tmp, home) = (socket_below("/tmp"), socket_below("/home"));
    let sandbox = Sandbox::new();
    let unit = Unit::file(&sandbox, "annad")
        .arg(&format!("--unix={}", tmp.display()))
        .arg(&format!("--unix={}", home.display()))
        .load();
    let listen = format!(
        "listen = [\"unix:{}\", \"unix:{}\"]",
        tmp.display(),
        home.display()
    );
    let hook = "[[hook]]\nname = \"journal\"\nseverity = \"critical\"\njournal = true\n";
    fs::write(
        "/etc/probe/probe.d/annad.toml",
        format!("{hook}{}", unit.declared(&format!("{listen}\nexpected = false"))),
    )
    .expect("a configuration");
    done("systemctl", &["reload", UNIT]);
    until("it has taken the new configuration", || {
        status("annad")["service"] == "annad"
    });
    assert_eq!(main_pid(), pid, "a reload is no restart");
    let daemon = unit.start();
    until("the daemon is ready", || status("annad")["ready"] == true);
    assert_eq!(open("annad"), [""; 0], "a healthy daemon");

    // What happens to the service is told, also in fields of the journal.
    let killer = kill("KILL", daemon);
    until("both files are stale", || {
        open("annad").iter().filter(|k| *k == "stale-socket").count() == 2
    });
    assert!(
        open("annad").contains(&"crashed".to_owned()),
        "{}",
        status("annad")
    );
    let crashed = || {
        let text = done("journalctl", &["--output=json", "--quiet", "PROBE_KIND=crashed"]);
        text.lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .next()
    };
    until("the journal has it", || crashed().is_some());
    let entry = crashed().unwrap_or_default();
    assert_eq!(entry["PROBE_SERVICE"], "annad", "{entry}");
    assert_eq!(entry["PROBE_SEVERITY"], "critical", "{entry}");
    let message = entry["MESSAGE"].as_str().unwrap_or_default();
    assert!(message.contains(&format!("({killer})")), "{message}");

    // One that hangs is noticed by systemd, and starts anew.
    kill("STOP", pid);
    until("the watchdog has started it anew", || {
        property("NRestarts") == "1" && property("ActiveState") == "active" && main_pid() != pid
    });
    let pid = main_pid();
    until("it knows of what was before", || {
        open("annad").contains(&"stale-socket".to_owned())
    });

    // An upgrade takes over at once, and the history stays.
    done("dpkg", &["--install", &later]);
    assert_eq!(property("ActiveState"), "active");
    assert_ne!(main_pid(), pid);
    let history = probe(&["history", "--kind", "crashed", "--service", "annad"]).stdout;
    assert!(history.contains(&format!("({killer})")), "{history}");
    assert!(probe(&["--version"]).stdout.starts_with("probe "));
    let reclaimed = probe(&["reclaim", "annad"]);
    assert_eq!(reclaimed.code, Some(0), "{reclaimed:?}");
    unit.start();
    until("all is well again", || {
        status("annad")["ready"] == true && open("annad").is_empty()
    });
    let api = File::open("/run/probe").map(|_| Path::new("/run/probe/probe.sock").metadata());
    assert!(api.is_ok_and(|m| m.is_ok_and(|m| m.file_type().is_socket())));
    unit.stop();

    // Nothing of it stays.
    let loaded = Objects::of(main_pid());
    assert!(loaded.count("prog") > 0 && loaded.any_is_left(), "{loaded:?}");
    done("dpkg", &["--purge", "probe"]);
    for path in [
        "/run/probe",
        "/var/lib/probe",
        "/etc/probe",
        "/usr/bin/probe",
        "/sys/fs/bpf/probe",
    ] {
        assert!(!Path::new(path).exists(), "{path} is still there");
    }
    assert!(UnixStream::connect("/run/probe/probe.sock").is_err());
    until("the kernel has let go of what it had loaded", || {
        !loaded.any_is_left()
    });
    for directory in [tmp, home].iter().filter_map(|p| p.parent()) {
        fs::remove_dir_all(directory).expect("remove the directory of a socket");
    }
}
