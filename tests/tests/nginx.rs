//! A real nginx: a master and two workers.

use probe_tests::{Nginx, Sandbox, Watch, kill};

/// Shorter than the sentinel's time.
const OVERLAP: &str = "overlap = \"700ms\"";

#[test]
fn start_reload_stop_and_restart_give_no_finding() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let watch = Watch::start(&sandbox, &nginx.service(&format!("{OVERLAP}\nexpected = false")));

    for stop in ["QUIT", "TERM"] {
        let master = nginx.start();
        master.reload();
        master.stop(stop);
    }
    let running = nginx.start();

    watch.expect_nothing();
    watch.stop();
    drop(running);
}

#[test]
fn stopping_an_expected_nginx_gives_no_finding() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let master = nginx.start();
    let watch = Watch::start(&sandbox, &nginx.service(OVERLAP));

    master.stop("TERM");

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn reload_while_it_is_watched_gives_no_finding() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let master = nginx.start();
    let watch = Watch::start(&sandbox, &nginx.service(OVERLAP));

    master.reload();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_killed_worker_is_no_crash_of_the_service() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let master = nginx.start();
    let watch = Watch::start(&sandbox, &nginx.service(OVERLAP));

    let killed = master.workers()[0];
    kill("KILL", killed);
    watch.expect_event("exit", "nginx", "the worker's", |e| {
        e.value["process"]["pid"] == killed
    });

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_second_nginx_with_the_same_pid_file_is_a_duplicate() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let first = nginx.start();
    let watch = Watch::start(&sandbox, &nginx.service(OVERLAP));

    let second = nginx.rival(&sandbox).start();

    let duplicate = watch.expect("duplicate-instance", "nginx");
    duplicate.says(first.pid()).says(second.pid());
    assert_eq!(duplicate.severity, "critical");
    second.stop("TERM");
    watch.expect_resolved("duplicate-instance", "nginx");
    watch.stop();
}
