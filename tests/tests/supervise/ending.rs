//! Children that do not end, or do not hear, at the limit.

use probe_tests::{ControlGroup, Proc, kill};

use crate::Site;

/// SIGKILL is pending while a control group is frozen.
#[test]
fn one_that_nothing_ends_is_told() {
    let Some(freezer) = ControlGroup::freezer() else {
        return;
    };
    let site = Site::new("stop_within = \"100ms\"");
    let mut supervisor = site.run(&["--limit", "1s"], &[]);
    let child = supervisor.child();
    freezer.add(child.pid);
    freezer.freeze(true);

    supervisor.ends_with(124);

    assert!(
        supervisor.has_said("lives on after SIGKILL: it is frozen by the control group"),
        "{:?}",
        supervisor.said
    );
    let child = Proc::adopt("annad", child.pid);
    assert!(child.is_alive());
    freezer.freeze(false);
    child.wait_gone();
}

#[test]
fn a_stopped_one_hears_of_the_stop() {
    let site = Site::new("");
    let mut supervisor = site.run(&["--limit", "1s"], &["--on", "TERM=exit:0"]);
    let child = supervisor.child();
    site.logs("ready pid=");
    kill("STOP", child.pid);

    supervisor.ends_with(124);

    assert!(!supervisor.has_said("sent KILL"), "{:?}", supervisor.said);
    assert_eq!(site.row().restart_count, 0);
}
