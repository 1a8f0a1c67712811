//! What the daemon does by itself, where it is told to.

use probe_tests::{Probed, Sandbox, until};

use crate::scene::{Service, noted};

#[test]
fn a_stale_socket_is_reclaimed_and_the_service_restarted_once() {
    let sandbox = Sandbox::new();
    let (quiet, loud) = (Service::new(&sandbox, "quiet"), Service::new(&sandbox, "loud"));
    let ran = sandbox.path("ran");
    let heal = |name: &str| {
        format!(
            "singleton = true\nheal = {{ reclaim = true, backoff = \"50ms..60s\", \
             restart = [\"/bin/sh\", \"-c\", \"test -e $1 || echo $0 >> $2\", {name:?}, \"{}.sock\", {ran:?}] }}",
            sandbox.path(name).display()
        )
    };
    let config = format!("{}{}", quiet.toml(&heal("quiet")), loud.toml(&heal("loud")));
    let probed = Probed::start(&sandbox, &config);
    probed.ask_json(&["silence", "quiet", "--for", "1h", "--reason", "an upgrade"]);
    let daemons = (quiet.ready(&probed), loud.ready(&probed));
    quiet.kill(&daemons.0);
    until("it is found all the same", || {
        probed.service("quiet")["verdict"] == "finding"
    });
    loud.kill(&daemons.1);
    // The program notes its name only where the dead socket was removed before it ran.
    until("the other one was restarted", || !noted(&ran).is_empty());
    let next = loud.ready(&probed);
    until("nothing is wrong with it", || {
        probed.service("loud")["verdict"] == "ok"
    });
    assert_eq!(noted(&ran), ["loud"]);
    assert!(quiet.path.exists(), "what is silenced stays as it is");
    assert_eq!(probed.service("loud")["generation"], 2);
    assert_eq!(probed.service("loud")["main"]["pid"], next.pid());

    until("the history has both actions, once each", || {
        let told = probed
            .ask(&["history", "--kind", "action", "--service", "loud", "--json"])
            .stdout;
        let count = |what: &str| told.matches(&format!("\"action\":\"{what}\"")).count();
        (count("reclaim"), count("restart")) == (1, 1)
    });
    let told = probed
        .ask(&["history", "--kind", "action", "--service", "quiet", "--json"])
        .stdout;
    assert!(!told.contains("restart") && !told.contains("reclaim"), "{told}");
}
