//! What `probe config discover` writes is accepted, and nothing is wrong with what it was made from.

use std::process::Command;

use probe_tests::{Daemon, Nginx, Redis, Sandbox, Watch};

#[test]
fn a_starter_file_is_accepted_and_quiet() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let _nginx = nginx.start();
    let redis = Redis::install(&sandbox);
    let _redis = redis.start();
    let exe = Daemon::install(&sandbox, "annad");
    let _daemon = Daemon::at(&exe).unix(&sandbox.path("a.sock")).tcp(0).start();
    let probe = |args: &[&str]| {
        let output = Command::new(probe_tests::probe_binary())
            .args(args)
            .output()
            .expect("run probe");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let found = probe(&["config", "discover"]);
    assert!(
        found.contains(&format!("{:?}", exe.display().to_string())),
        "{found}"
    );
    let file = sandbox.write("found.toml", &found);
    assert!(probe(&["config", "check", "--config", &file.display().to_string()]).starts_with("ok: "));
    // Other tests' daemons come and go.
    let ours = sandbox.dir().display().to_string();
    let services = found.split("\n[[service]]").skip(1).filter(|s| s.contains(&ours));
    let services: String = services.map(|s| format!("\n[[service]]{s}")).collect();
    assert_eq!(services.matches("[[service]]").count(), 3, "{found}");
    let watch = Watch::start(&sandbox, &services);
    watch.expect_nothing();
    watch.stop();
}
