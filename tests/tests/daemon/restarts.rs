//! The client's part of the daemon that was restarted twenty times: each start is waited for and asked about, in time.

use std::time::Duration;

use probe_tests::{Probed, Sandbox};
use probe_user::clock;

use crate::scene::Service;

const RESTARTS: u32 = 20;
/// What people wanted of the average answer.
const AVERAGE: Duration = Duration::from_millis(500);

#[test]
fn twenty_restarts_are_waited_for_and_answered_in_time() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let probed = Probed::start(&sandbox, &service.toml(""));
    let mut table = Vec::new();
    for n in 0..RESTARTS {
        let after = n.to_string();
        let daemon = service.start();
        let ready = probed.ask(&[
            "wait",
            "annad",
            "--ready",
            "--after-generation",
            &after,
            "--timeout",
            "10s",
        ]);
        assert_eq!(ready.code, Some(0), "restart {n}: {ready:?}\n{}", probed.log());
        let began = clock::now();
        let status = probed.ask(&["status", "annad"]);
        table.push(clock::now().since(began));
        // 7 would be a time-out.
        assert_eq!(status.code, Some(0), "restart {n}: {status:?}\n{}", probed.log());
        assert!(
            status.stdout.contains(&format!("annad ({})", daemon.pid())),
            "{status:?}"
        );
        assert_eq!(status.stderr, "", "restart {n}");
        daemon.kill("TERM");
        let stopped = probed.ask(&["wait", "annad", "--stopped", "--timeout", "10s"]);
        assert_eq!(stopped.code, Some(0), "restart {n}: {stopped:?}");
    }
    let average = table.iter().sum::<Duration>() / RESTARTS;
    println!("{RESTARTS} of {RESTARTS}, {average:?} on average: {table:?}");
    assert!(average < AVERAGE, "{average:?}: {table:?}");
    assert_eq!(probed.service("annad")["generation"], RESTARTS);
}
