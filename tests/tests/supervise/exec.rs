//! `probe exec`: a time limit for a command.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use probe_tests::{Proc, probe, run};
use rustix::process::Signal;

use crate::{Running, Site};

fn exec(options: &[&str], argv: &[&str]) -> Command {
    let mut command = probe(&["exec"]);
    command.args(options).arg("--").args(argv);
    command
}

#[test]
fn the_code_or_the_signal_becomes_its_own() {
    for (argv, code) in [
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -KILL $$"], 137),
        (vec!["/nonexistent/program"], 127),
        (vec!["/dev/null"], 126),
    ] {
        let output = run(&mut exec(&["--limit", "1m"], &argv));
        assert_eq!(output.code, Some(code), "{argv:?}: {output:?}");
    }
    let output = run(exec(&[], &["true"]).env("PROBE_LIMIT", "soon"));
    assert_eq!(output.code, Some(125), "{output:?}");
    assert!(output.stderr.contains("PROBE_LIMIT"), "{output:?}");
}

#[test]
fn the_limit_comes_from_the_option_the_variable_or_the_name() {
    let site = Site::new("");
    let config = site.config.to_str().unwrap();
    let limited = |command: &mut Command, words: &str| {
        let output = run(command);
        assert_eq!(output.code, Some(124), "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
    };
    limited(
        &mut exec(&["--limit", "100ms"], &["sleep", "1000"]),
        "within 100ms",
    );
    let mut by_variable = exec(&["--config", config], &["sleep", "1000"]);
    limited(by_variable.env("PROBE_LIMIT", "200ms"), "within 200ms");
    limited(
        &mut exec(&["--config", config], &["sleep", "1000"]),
        "within 300ms",
    );
    // None for any other name.
    let output = run(&mut exec(&["--config", config], &["true"]));
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// All of it holds the write end of one pipe: its end is the end of the last of them.
const TREE: &str = "trap '' TERM
echo first
setsid sh -c 'echo session; sleep 1000 & echo in it; wait' &
(sh -c 'echo orphan; exec sleep 1000' &)
wait";

#[test]
fn the_whole_tree_is_gone() {
    let mut command = exec(&["--limit", "2s", "--grace", "100ms"], &["sh", "-c", TREE]);
    let mut limited = Proc::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut output = BufReader::new(limited.child().stdout.take().unwrap());
    let mut lines = Vec::new();
    for _ in 0..4 {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        lines.push(line.trim().to_owned());
    }
    lines.sort();
    assert_eq!(lines, ["first", "in it", "orphan", "session"]);
    let stranger = Proc::spawn(Command::new("sleep").arg("1000"));

    assert_eq!(limited.wait().code(), Some(124));

    // Nobody can write any more; otherwise this would wait for 1000 s.
    assert_eq!(output.read(&mut [0; 64]).unwrap(), 0);
    assert!(stranger.is_alive());
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'echo caught >&2; exit 9' USR1; echo here >&2; while :; do sleep 0.05; done";
    let mut limited = Running::start(exec(&["--limit", "1m"], &["bash", "-c", script]));
    limited.says("here");

    limited.signal(Signal::USR1);

    limited.says("caught");
    limited.ends_with(9);
}

/// Nobody would be left to keep the limit.
#[test]
fn it_does_not_outlive_probe() {
    let mut limited = Running::start(exec(
        &["--limit", "1m"],
        &["sh", "-c", "echo $$ >&2; exec sleep 1000"],
    ));
    let pid = limited.says("").parse().unwrap();
    let child = Proc::adopt("sleep", pid);

    limited.kill();

    child.wait_gone();
}
