//! Both tiers come to the same findings: two probes, one in each tier, watch the same daemons. `cargo xtask vm` runs this on
//! several kernels.

use std::{collections::BTreeSet, path::Path, process::Command};

use probe_tests::{Daemon, Proc, Sandbox, Watch, free_port, others_within};

/// A daemon of ours as a service of its own, with a socket file and a port.
struct Member {
    daemon: Daemon,
    address: String,
}

fn toml(name: &str, exe: &Path, listen: &[String], more: &str) -> String {
    format!(
        "\n[[service]]\nname = {name:?}\nexe = {exe:?}\nlisten = {listen:?}\nready_within = {:?}\n\
         relisten_within = \"300ms\"\noverlap = \"700ms\"\n{more}\n",
        others_within()
    )
}

/// Runs before anybody watches.
fn member(sandbox: &Sandbox, config: &mut String, name: &str, address: &str) -> Member {
    let exe = Daemon::install(sandbox, name);
    let mut daemon = Daemon::at(&exe).arg("--reuse-port").start();
    daemon.tell(&format!("listen {address}"));
    config.push_str(&toml(name, &exe, &[address.to_owned()], ""));
    let address = address.to_owned();
    Member { daemon, address }
}

/// Runs a program to its end.
fn done(program: &str, args: &[&Path]) {
    assert!(Proc::spawn(Command::new(program).args(args)).wait().success());
}

/// What was found, and by whom it was done.
fn found(watch: &Watch) -> BTreeSet<(String, String, String, Option<u32>)> {
    let findings = watch.lines().into_iter().filter_map(|l| l.finding());
    findings
        .filter(|f| f.state == "opened" && f.service != "sentinel")
        .map(|f| (f.kind, f.service, f.subject, f.actor.map(|a| a.pid)))
        .collect()
}

#[test]
fn both_tiers_find_the_same() {
    let (stage, one, other) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    let file = |name: &str| format!("unix:{}", stage.path(&format!("{name}.sock")).display());
    let port = |scheme: &str| format!("{scheme}:127.0.0.1:{}", free_port());
    let path = |m: &Member| m.address["unix:".len()..].to_owned();
    let mut config = String::new();
    let mut add = |name: &str, address: &str| member(&stage, &mut config, name, address);
    let killed = ["unix", "tcp", "udp", "abstract"].map(|kind| match kind {
        "unix" => add("unix", &file("unix")),
        "abstract" => add("abstract", &format!("unix:@{}", stage.path("name").display())),
        scheme => add(scheme, &port(scheme)),
    });
    let mut asked = add("asked", &file("asked"));
    let mut closed = [
        add("closed-file", &file("closed")),
        add("closed-port", &port("tcp")),
    ];
    let removed = add("removed", &file("removed"));
    let renamed = add("renamed", &file("renamed"));
    let replaced = add("replaced", &file("replaced"));
    let doubled = add("doubled", &port("tcp"));
    let taken = port("tcp");
    let exe = Daemon::install(&stage, "taken");
    config.push_str(&toml(
        "taken",
        &exe,
        std::slice::from_ref(&taken),
        "expected = false",
    ));

    let fentry = Watch::start_in("auto", &one, &config);
    let watching = fentry.expect_line("watching", "of a service", |l| l.value["service"] == "unix");
    if watching.value["tier"]["unix_socket"] != "fentry" {
        eprintln!("skipped: this kernel has only one tier: it refuses trampolines");
        fentry.stop();
        return;
    }
    let tracepoint = Watch::start_in("tracepoint", &other, &config);

    // Nothing comes of this.
    let left = path(&asked);
    asked.daemon.tell(&format!("unlink {left}"));
    asked.daemon.kill("TERM");
    asked.daemon.wait_gone();

    for member in &killed {
        member.daemon.kill("KILL");
        member.daemon.wait_gone();
    }
    for member in &mut closed {
        member.daemon.tell(&format!("close {}", member.address));
    }
    done("rm", &[Path::new(&path(&removed))]);
    done(
        "mv",
        &[path(&renamed), path(&renamed) + ".old"]
            .each_ref()
            .map(Path::new),
    );
    let stranger = Daemon::install(&stage, "stranger");
    let mut strangers = [0; 2].map(|_| Daemon::at(&stranger).start());
    done("rm", &[Path::new(&path(&replaced))]);
    strangers[0].tell(&format!("listen {}", replaced.address));
    strangers[1].tell(&format!("listen {taken}"));
    let mut second = Daemon::at(&stage.path("doubled")).arg("--reuse-port").start();
    second.tell(&format!("listen {}", doubled.address));

    let expected = [
        ("crashed", "unix"),
        ("not-running", "unix"),
        ("stale-socket", "unix"),
        ("crashed", "tcp"),
        ("not-running", "tcp"),
        ("crashed", "udp"),
        ("not-running", "udp"),
        ("crashed", "abstract"),
        ("not-running", "abstract"),
        ("not-listening", "closed-file"),
        ("stale-socket", "closed-file"),
        ("not-listening", "closed-port"),
        ("orphaned-listener", "removed"),
        ("orphaned-listener", "renamed"),
        ("orphaned-listener", "replaced"),
        ("address-taken", "replaced"),
        ("address-taken", "taken"),
        ("duplicate-instance", "doubled"),
    ];
    for watch in [&fentry, &tracepoint] {
        watch.expect_exactly(&expected);
    }
    let (left, mut right) = (found(&fentry), found(&tracepoint));
    // Where the kernel refuses fanotify, only trampolines tell who changed a path: the tracepoint tier says that it can't.
    for (kind, service, subject, actor) in &left {
        let unknown = (kind.clone(), service.clone(), subject.clone(), None);
        if kind == "orphaned-listener" && actor.is_some() && right.remove(&unknown) {
            let line = tracepoint.expect_line("watching", "of it", |l| l.value["service"] == **service);
            assert!(line.raw.contains("who changed a path"), "{}", line.raw);
            right.insert((kind.clone(), service.clone(), subject.clone(), *actor));
        }
    }
    assert_eq!(
        left, right,
        "left: in the fentry tier; right: in the tracepoint tier"
    );
    fentry.stop();
    tracepoint.stop();
}
