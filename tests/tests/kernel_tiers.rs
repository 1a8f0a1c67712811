//! What probe does where the kernel refuses its trampolines: it starts, says what it lost, and goes on in the tracepoint tier.
//! `cargo xtask vm` runs this on several kernels with ftrace turned off, which refuses them all.

use std::sync::LazyLock;

use probe_tests::{Sandbox, Stage, probe, run};
use serde_json::Value;

/// Hooks that only a trampoline can serve, and those that have a second way.
const LOST: [&str; 4] = ["unix_bind", "unix_listen", "unix_shutdown", "unix_release"];
const SECOND_BEST: [&str; 4] = ["inet_listen", "inet_bind", "inet6_bind", "inet_release"];

/// What doctor says where nothing else is asked for. Loading all programs takes long in an emulated machine: once is enough.
fn auto() -> &'static Value {
    static REPORT: LazyLock<Value> = LazyLock::new(|| doctor("auto"));
    &REPORT
}

/// What `probe doctor --json` says of each hook.
fn doctor(tier: &str) -> Value {
    let output = run(&mut probe(&["doctor", "--json", "--tier", tier]));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    serde_json::from_str(&output.stdout).expect("doctor's JSON")
}

fn hook<'a>(report: &'a Value, name: &str) -> &'a Value {
    let hooks = report["hooks"].as_array().expect("hooks");
    hooks
        .iter()
        .find(|h| h["hook"] == name)
        .unwrap_or_else(|| panic!("no hook {name}"))
}

/// Whether this kernel takes a trampoline at all.
fn takes_trampolines() -> bool {
    auto()["hooks"]
        .as_array()
        .is_some_and(|hooks| hooks.iter().any(|h| h["tier"] == "fentry"))
}

#[test]
fn where_every_trampoline_is_refused_doctor_says_what_is_lost() {
    if takes_trampolines() {
        eprintln!("skipped: this kernel takes trampolines while kernel.ftrace_enabled is 1");
        return;
    }
    let report = auto();
    assert_eq!(report["problem"], Value::Null);
    for name in LOST {
        let hook = hook(report, name);
        assert_eq!(hook["attached"], false, "{hook}");
        assert!(!hook["reason"].as_str().unwrap_or_default().is_empty(), "{hook}");
    }
    for name in SECOND_BEST {
        let hook = hook(report, name);
        assert_eq!(
            (&hook["attached"], &hook["tier"]),
            (&true.into(), &"tracepoint".into()),
            "{hook}"
        );
        // The way that was refused, and the kernel's words.
        let reason = hook["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(" of inet"), "{hook}");
    }
    let cannot_see = report["cannot_see"].to_string();
    for lost in [
        "UNIX sockets that fail",
        "IPv4 sockets that fail",
        "IPv6 sockets that fail",
    ] {
        assert!(cannot_see.contains(lost), "{cannot_see}");
    }
}

#[test]
fn where_every_trampoline_is_refused_each_service_says_what_is_lost() {
    if takes_trampolines() {
        eprintln!("skipped: this kernel takes trampolines while kernel.ftrace_enabled is 1");
        return;
    }
    let stage = Stage::new(&[("name", "abstract"), ("port", "tcp:127.0.0.1")]);
    let line = stage.watching("name");
    assert_eq!(line.value["tier"]["unix_socket"], "tracepoint", "{}", line.raw);
    for lost in [
        "UNIX sockets that fail",
        "listen()",
        "shutdown()",
        "abstract addresses",
    ] {
        assert!(line.raw.contains(lost), "{}", line.raw);
    }
    // Of what it does not have, nothing is said.
    let line = stage.watching("port");
    assert!(line.raw.contains("IPv4 sockets that fail"), "{}", line.raw);
    assert!(!line.raw.contains("UNIX"), "{}", line.raw);
    stage.stop();
}

#[test]
fn the_fentry_tier_is_an_error_where_the_kernel_refuses_it() {
    if takes_trampolines() {
        eprintln!("skipped: this kernel takes trampolines while kernel.ftrace_enabled is 1");
        return;
    }
    let unix = Sandbox::new().path("a.sock").display().to_string();
    let output = run(&mut probe(&["watch", "--tier", "fentry", "--unix", &unix]));
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    let error = output.stderr.trim();
    assert_eq!(error.lines().count(), 1, "{error}");
    for word in ["fentry tier", "unix_bind", "--tier auto"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_tracepoint_tier_takes_no_trampoline() {
    let report = doctor("tracepoint");
    for hook in report["hooks"].as_array().expect("hooks") {
        assert_ne!(hook["tier"], "fentry", "{hook}");
    }
    for name in LOST {
        let reason = hook(&report, name)["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            reason.contains("the tracepoint tier has no hook for it"),
            "{reason}"
        );
    }
}

#[test]
fn this_kernel_has_every_member_that_is_read() {
    let cannot_see = auto()["cannot_see"].to_string();
    assert!(!cannot_see.contains("this kernel has no"), "{cannot_see}");
}

/// As in the tracepoint tier, also where it was not asked for.
#[test]
fn where_every_trampoline_is_refused_sockets_are_seen_all_the_same() {
    if takes_trampolines() {
        eprintln!("skipped: this kernel takes trampolines while kernel.ftrace_enabled is 1");
        return;
    }
    let services = [("file", "unix"), ("tcp4", "tcp:127.0.0.1"), ("udp6", "udp:[::1]")];
    let mut stage = Stage::new(&services);
    for (service, _) in services {
        assert!(!stage.is_fentry(service));
        let begin = stage.beginning(service);
        stage.tell(service, "listen");
        stage.expect(service, begin);
        stage.kill(service);
        stage
            .watch
            .expect_event("close", service, "of its socket", |_| true);
        stage.expect(service, &[begin, &["close"]].concat());
    }
    stage.watch.expect("stale-socket", "file");
    stage.stop();
}
