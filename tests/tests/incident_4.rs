//! Incident 4: the supervisor that must know its sockets: who holds them, and which life of its job this is.

use probe_tests::{Daemon, Sandbox, Watch};

#[test]
fn one_job_with_a_restart_count_and_a_foreign_holder() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "job");
    let (path, pid_file) = (sandbox.path("job.sock"), sandbox.path("job.pid"));
    let more = format!(
        "listen = [\"unix:{}\"]\npid_file = {pid_file:?}\nsingleton = true\nexpected = false",
        path.display()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("job", &exe, &more));
    let start = || {
        Daemon::at(&exe)
            .unix(&path)
            .pid_file(&pid_file)
            .arg("--take-over")
            .start()
    };

    // A crash leaves its socket and its PID file; the next life of the same job takes their place.
    let first = start();
    generation(&watch, 1);
    let killer = first.kill("KILL");
    watch.expect("stale-socket", "job").by(killer);
    watch.expect("stale-pid-file", "job").by(killer).says(first.pid());
    let second = start();
    generation(&watch, 2);
    watch.expect_resolved("stale-socket", "job");
    watch.expect_resolved("stale-pid-file", "job");

    // Somebody else takes the socket of a stopped job: named, so that `singleton` may end it.
    second.kill("TERM");
    second.wait_gone();
    watch.forget();
    let foreign = Daemon::at(&Daemon::install(&sandbox, "foreign"))
        .unix(&path)
        .arg("--take-over")
        .start();
    watch.expect("address-taken", "job").by(foreign.pid());
    foreign.kill("TERM");
    foreign.wait_gone();
    watch.expect_resolved("address-taken", "job");
    let third = start();
    generation(&watch, 3);
    watch.forget();
    watch.expect_nothing();
    watch.stop();
    drop(third);
}

fn generation(watch: &Watch, n: u64) {
    watch.expect_event("ready", "job", &format!("generation {n}"), |e| {
        e.value["generation"] == n && e.value["restart_count"] == n - 1
    });
}
