//! How a `probe run` ends, and who is ended with it.

use std::{fs, process::Stdio};

use probe_tests::{Proc, run, until};
use probe_user::run::store::Phase;

use crate::{Site, living, none_lives, until_living};

#[test]
fn the_end_of_the_command_is_its_own() {
    let site = Site::bare();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -USR1 $$", 128 + 10)] {
        let output = run(&mut site.script(&[], script));
        assert_eq!(output.code, Some(code), "{script}: {output:?}");
        assert_eq!(site.row().phase, Phase::Ended);
    }
    let mut absent = site.run(&["job", "--", "/nonexistent/command"]);
    let output = run(&mut absent);
    assert_eq!(output.code, Some(127), "{output:?}");
    fs::write(site.sandbox.path("wrong.toml"), "[[service]]\nnam = \"job\"\n").unwrap();
    let mut wrong = probe_tests::probe(&["run", "--config"]);
    let output = run(wrong
        .arg(site.sandbox.path("wrong.toml"))
        .args(["job", "--", "true"]));
    assert_eq!(output.code, Some(125), "{output:?}");
}

#[test]
fn at_the_limit_the_whole_tree_is_gone() {
    let site = Site::new(|_| {
        "[[service]]\nname = \"job\"\nscript = \"/nonexistent/job\"\nstop_within = \"300ms\"\n".to_owned()
    });
    let sleeper = site.sleeper();
    let script = r#"
        s=$1/sleeper; trap "" TERM
        setsid "$s" 1000 &
        (setsid sh -c 'trap "" TERM; "$1" 1000 & "$1" 1000' sh "$s" &)
        "$s" 1000"#;
    let mut run = Proc::spawn(site.script(&["--limit", "1s"], script).stderr(Stdio::piped()));
    until_living(&sleeper, 4);
    let status = run.wait();
    assert_eq!(status.code(), Some(124), "{}", crate::stderr(run.child()));
    none_lives(&sleeper);
    assert_eq!(site.row().phase, Phase::Ended);
}

/// What it left would be in the way of the next one.
#[test]
fn what_a_command_leaves_behind_is_ended_too() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let output = run(&mut site.script(&[], r#"setsid "$1/sleeper" 1000 & exit 3"#));
    assert_eq!(output.code, Some(3), "{output:?}");
    none_lives(&sleeper);
}

#[test]
fn a_second_one_is_refused_and_told_of_the_first() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let mut first = Proc::spawn(&mut site.script(&[], r#"exec "$1/sleeper" 1000"#));
    until_living(&sleeper, 1);
    let mut second = site.script(&["--wait", "100ms"], r#": > "$1/second""#);
    let output = run(&mut second);
    assert_eq!(output.code, Some(125), "{output:?}");
    assert!(
        output.stderr.contains(&first.pid().to_string()),
        "it names the holder: {output:?}"
    );
    assert!(
        !site.sandbox.path("second").exists(),
        "the second command never ran"
    );
    assert_eq!(living(&sleeper).len(), 1, "and the first runs on");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.wait().code(), Some(128 + 15));
    none_lives(&sleeper);
    // The lock went with its holder, and nothing stale is left.
    assert_eq!(
        run(&mut site.script(&["--wait", "100ms"], "exit 5")).code,
        Some(5)
    );
}

#[test]
fn signals_are_passed_on_and_a_stop_ends_the_run() {
    let site = Site::bare();
    let script = r#"
        trap "echo hup >> $1/heard" HUP; trap "echo usr1 >> $1/heard" USR1; trap "exit 6" TERM
        : > "$1/ready"; while :; do sleep 0.02; done"#;
    let mut run = Proc::spawn(&mut site.script(&["--restart", "always"], script));
    until("the traps are set", || site.sandbox.path("ready").exists());
    for (signal, word) in [("HUP", "hup\n"), ("USR1", "usr1\n")] {
        probe_tests::kill(signal, run.pid());
        until(&format!("{signal} came"), || site.read("heard").ends_with(word));
    }
    assert_eq!(site.read("heard"), "hup\nusr1\n", "each once");
    probe_tests::kill("TERM", run.pid());
    assert_eq!(run.wait().code(), Some(6), "a stop is no reason to start again");
    assert_eq!(site.row().phase, Phase::Ended);
}

#[test]
fn one_that_ignores_a_stop_is_killed_after_stop_within() {
    let site = Site::new(|_| {
        "[[service]]\nname = \"job\"\nscript = \"/nonexistent/job\"\nstop_within = \"300ms\"\n".to_owned()
    });
    let sleeper = site.sleeper();
    let script = r#"trap "" TERM; "$1/sleeper" 1000 & : > "$1/ready"; while :; do wait; done"#;
    let mut run = Proc::spawn(&mut site.script(&[], script));
    until("the trap is set", || site.sandbox.path("ready").exists());
    until_living(&sleeper, 1);
    probe_tests::kill("TERM", run.pid());
    assert_eq!(run.wait().code(), Some(128 + 9));
    none_lives(&sleeper);
}
