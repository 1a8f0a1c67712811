//! `probe hook test`: the daemon sends the sample where one runs.

use probe_tests::{Daemon, Probed, Sandbox, children, schema::assert_fits};

#[test]
fn the_daemon_sends_it_unless_there_is_none() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let hook = "[[hook]]\nname = \"page\"\non = [\"crashed\"]\nexec = [\"/bin/sh\", \"-c\", \"echo for $PPID; cat\"]\n";
    let config = Daemon::service("annad", &exe, "expected = false") + hook;
    let mut probed = Probed::start(&sandbox, &config);

    let tested = probed.ask_json(&["hook", "test", "page"]);
    assert_fits("hook-test", &tested);
    assert_eq!(
        (&tested["outcome"], &tested["exit_code"]),
        (&"ok".into(), &0.into()),
        "{tested}"
    );
    let output = |tested: &serde_json::Value| tested["output"].as_str().expect("text").to_owned();
    // What it runs, its spawner runs.
    let [spawner] = children(probed.pid())[..] else {
        panic!("a daemon has one child: {:?}", children(probed.pid()));
    };
    let by_daemon = format!("for {spawner}\\n");
    assert!(output(&tested).starts_with(&by_daemon), "{tested}");
    assert!(output(&tested).contains("this is a test"), "{tested}");

    let direct = probed.ask_json(&["hook", "test", "page", "--direct"]);
    assert_fits("hook-test", &direct);
    assert!(!output(&direct).starts_with(&by_daemon), "{direct}");
    assert!(output(&direct).contains("this is a test"), "{direct}");

    let unknown = probed.ask(&["hook", "test", "pgae"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("pgae"), "{unknown:?}");

    probed.stop();
    let alone = probed.ask_json(&["hook", "test", "page"]);
    assert_eq!(alone["outcome"], "ok", "{alone}");
}
