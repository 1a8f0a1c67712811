//! Programs and maps outlive a killed daemon, in each tier and on each kernel: the next daemon tells what happened meanwhile.

use probe_tests::{Bpffs, Daemon, Probed, Sandbox, until};
use serde_json::Value;

const NAME: &str = "annad";
const MEANWHILE: usize = 200;

/// Lines of the history.
fn history(probed: &Probed, kind: &str) -> Vec<Value> {
    let output = probed.ask(&["history", "--json", "--kind", kind]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let lines = output.stdout.lines();
    lines.map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

#[test]
fn the_daemon_after_a_killed_one_goes_on_with_its_programs() {
    let sandbox = Sandbox::new();
    let bpffs = Bpffs::mount(&sandbox);
    let exe = Daemon::install(&sandbox, NAME);
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe)
        .unix(&path)
        .on("USR1=catch")
        .on("USR2=catch")
        .start();
    let listen = format!("listen = [\"unix:{}\"]\n", path.display());
    let mut probed = Probed::with(&sandbox, &bpffs.toml(), &Daemon::service(NAME, &exe, &listen));
    until("it is the main process, and ready", || {
        let s = probed.service(NAME);
        s["main"]["pid"] == daemon.pid() && s["ready"] == true
    });
    assert!(probed.status()["probe"]["pinned"]["directory"].is_string());
    daemon.tell("raise USR1");
    until("what was said is written down", || {
        !history(&probed, "signal").is_empty()
    });
    let pinned = bpffs.pinned();
    probed.kill();
    daemon.tell(&format!("raise USR2 {MEANWHILE}"));
    let killer = daemon.kill("KILL");
    daemon.wait_gone();
    probed.begin();

    let mut crashed = Value::Null;
    until("the crash is told", || {
        let findings = probed.service(NAME)["findings"].take();
        let findings = findings.as_array().cloned().unwrap_or_default();
        crashed = findings
            .into_iter()
            .find(|f| f["kind"] == "crashed")
            .unwrap_or_default();
        !crashed.is_null()
    });
    assert_eq!(crashed["actor"]["pid"], killer, "{crashed:#}\n{}", probed.log());
    let epoch = probed.status()["epoch"].clone();
    let mut takeover = Value::Null;
    until("the takeover is written down", || {
        let of_it = |l: &Value| l["action"] == "takeover" && l["epoch"] == epoch;
        takeover = history(&probed, "action")
            .into_iter()
            .find(of_it)
            .unwrap_or_default();
        !takeover.is_null()
    });
    assert_eq!(takeover["adopted"], true, "{takeover:#}");
    assert_eq!(takeover["lost"], 0, "{takeover:#}");
    assert_eq!(takeover["reattached"], serde_json::json!([]), "{takeover:#}");
    let signals = history(&probed, "signal");
    let meanwhile = signals.iter().filter(|l| l["signal"] == "USR2").count();
    assert_eq!(meanwhile, MEANWHILE, "{takeover:#}");
    assert_eq!(bpffs.pinned(), pinned, "the same programs and maps");
}
