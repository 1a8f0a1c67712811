//! A `probe run` that is killed: its child goes on, and the next one takes it over. `supervise` shows that there is never a second child.

use std::process::Stdio;

use probe_tests::{Proc, run, until};
use probe_user::run::store::Phase;

use crate::{Site, crash, living, none_lives, until_living};

#[test]
fn the_next_one_takes_the_child_over() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let script = r#"exec "$1/sleeper" 1000"#;
    let first = Proc::spawn(&mut site.script(&[], script));
    until_living(&sleeper, 1);
    until("it is written down", || site.row().phase == Phase::Running);
    let (child, identity) = (living(&sleeper), site.row().identity);
    crash(first);
    assert_eq!(living(&sleeper), child, "the child lives on");

    let mut second = Proc::spawn(&mut site.script(&[], script));
    // It passes a signal on only to a child that it has taken over.
    until("the lock is the second one's", || holds_lock(&site, second.pid()));
    second.signal(rustix::process::Signal::TERM);
    let status = second.wait();
    until_living(&sleeper, 0);
    let row = site.row();
    assert_eq!(
        (row.identity, row.restart_count),
        (identity, 0),
        "one run, one start"
    );
    // Somebody else was its parent; the kernel tells its status where it can, else it is unknown.
    assert!([Some(128 + 15), Some(125)].contains(&status.code()), "{status}");
}

fn holds_lock(site: &Site, pid: u32) -> bool {
    site.read("state/locks/job.run.lock")
        .contains(&format!("\"pid\":{pid},"))
}

#[test]
fn another_command_does_not_take_a_child_over() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let first = Proc::spawn(&mut site.script(&[], r#"exec "$1/sleeper" 1000"#));
    until_living(&sleeper, 1);
    until("it is written down", || site.row().phase == Phase::Running);
    crash(first);
    let output = run(&mut site.script(&[], "exit 0"));
    assert_eq!(output.code, Some(125), "{output:?}");
    assert!(
        output.stderr.contains(&living(&sleeper)[0].to_string()),
        "{output:?}"
    );
}

/// After a cold start every run that was not over goes on as the same run; one that was over does not.
#[test]
fn resume_starts_what_was_recorded() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    assert_eq!(run(&mut site.run(&["over", "--", "true"])).code, Some(0));
    let first = Proc::spawn(&mut site.script(
        &["--restart", "always"],
        r#"echo started; exec "$1/sleeper" 1000"#,
    ));
    until_living(&sleeper, 1);
    until("it is written down", || site.row().phase == Phase::Running);
    let identity = site.row().identity;
    crash(first);
    for pid in living(&sleeper) {
        probe_tests::kill("KILL", pid);
    }
    until_living(&sleeper, 0);

    let mut resumed = Proc::spawn(site.run(&["--resume"]).stdin(Stdio::null()).stderr(Stdio::null()));
    until_living(&sleeper, 1);
    until("it is written down", || site.row().phase == Phase::Running);
    let row = site.row();
    assert_eq!((row.identity, row.restart_count), (identity, 1));
    resumed.signal(rustix::process::Signal::TERM);
    resumed.wait();
    none_lives(&sleeper);
    assert_eq!(site.row().phase, Phase::Ended);
    let nothing = run(&mut site.run(&["--resume"]));
    assert_eq!(nothing.code, Some(0), "nothing is left to resume: {nothing:?}");
}
