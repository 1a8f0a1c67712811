//! `probe exec`: how a command ends is how it ends.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use probe_tests::{Output, Proc, Sandbox, kill, probe, probe_binary, run, until};

use crate::{Site, none_lives, until_living};

fn exec(arguments: &[&str]) -> Output {
    let mut command = probe(&["exec"]);
    command.args(arguments).env_remove("PROBE_LIMIT");
    run(&mut command)
}

#[test]
fn the_end_of_the_command_is_its_own() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let output = exec(&["--limit", "60s", "--", "sh", "-c", script]);
        assert_eq!(output.code, Some(code), "{script}: {output:?}");
        assert_eq!(output.stderr, "", "{script}");
    }
    let said = exec(&["--limit", "60s", "--", "echo", "one", "two"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "one two\n"));
}

#[test]
fn errors_of_its_own_have_their_codes() {
    let absent = exec(&["--limit", "60s", "--", "/nonexistent/command"]);
    assert_eq!(absent.code, Some(127), "{absent:?}");
    assert!(absent.stderr.contains("/nonexistent/command"), "{absent:?}");
    let none = exec(&["--limit", "60s", "--", "/etc/passwd"]);
    assert_eq!(none.code, Some(126), "{none:?}");
    let mut command = probe(&["exec", "--", "true"]);
    let wrong = run(command.env("PROBE_LIMIT", "soon"));
    assert_eq!(wrong.code, Some(125), "{wrong:?}");
    assert!(wrong.stderr.contains("PROBE_LIMIT"), "{wrong:?}");
}

/// A command, what it forked, what went into a session of its own, an orphan, and those that ignore TERM.
#[test]
fn at_the_limit_the_whole_tree_is_gone() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let script = r#"
        s=$1; trap "" TERM
        "$s" 1000 &
        setsid "$s" 1000 &
        (setsid sh -c '"$1" 1000 & "$1" 1000' sh "$s" &)
        "$s" 1000"#;
    let mut command = probe(&[
        "exec", "--limit", "1s", "--grace", "300ms", "--", "sh", "-c", script, "sh",
    ]);
    command.arg(&sleeper);
    let mut child = Proc::spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()));
    until_living(&sleeper, 5);
    let status = child.wait();
    let said = crate::stderr(child.child());
    assert_eq!(status.code(), Some(124), "{said}");
    assert!(said.contains("did not end within 1s"), "{said}");
    none_lives(&sleeper);
}

#[test]
fn one_that_ends_in_time_leaves_its_children_alone() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let mut command = probe(&[
        "exec",
        "--limit",
        "60s",
        "--",
        "sh",
        "-c",
        r#"setsid "$1" 1000 & exit 3"#,
        "sh",
    ]);
    let output = run(command.arg(&sleeper));
    assert_eq!(output.code, Some(3), "{output:?}");
    // A limit that was not reached ends nobody.
    until_living(&sleeper, 1);
}

#[test]
fn the_limit_of_the_variable_and_of_the_configuration() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let mut by_variable = probe(&["exec", "--"]);
    by_variable.arg(&sleeper).arg("1000").env("PROBE_LIMIT", "200ms");
    assert_eq!(run(&mut by_variable).code, Some(124));

    let config = site
        .sandbox
        .write("limits.toml", "[limits]\nsleeper = \"200ms\"\n");
    let mut by_name = probe(&["exec", "--config"]);
    by_name
        .arg(config)
        .arg("--")
        .arg(&sleeper)
        .arg("1000")
        .env_remove("PROBE_LIMIT");
    assert_eq!(run(&mut by_name).code, Some(124));
    none_lives(&sleeper);
}

#[test]
fn signals_are_passed_on() {
    let sandbox = Sandbox::new();
    let script = r#"trap "exit 9" USR1; : > "$1/ready"; while :; do sleep 0.05; done"#;
    let mut command = probe(&["exec", "--limit", "60s", "--", "sh", "-c", script, "sh"]);
    let mut child = Proc::spawn(command.arg(sandbox.dir()).stdin(Stdio::null()));
    until("the trap is set", || sandbox.path("ready").exists());
    kill("USR1", child.pid());
    assert_eq!(child.wait().code(), Some(9));
}

/// Nobody would be left to keep the limit.
#[test]
fn when_it_is_killed_the_command_hears_of_it() {
    let site = Site::bare();
    let sleeper = site.sleeper();
    let mut command = probe(&["exec", "--limit", "60s", "--"]);
    let child = Proc::spawn(command.arg(&sleeper).arg("1000").stdin(Stdio::null()));
    until_living(&sleeper, 1);
    crate::crash(child);
    until_living(&sleeper, 0);
}

#[test]
fn an_ordinary_user_needs_nothing() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    // The build directory may be closed to others.
    let probe = sandbox.install(&probe_binary(), "probe");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&probe);
        command
            .args(arguments)
            .env_remove("PROBE_LIMIT")
            .env_remove("XDG_STATE_HOME")
            .env("HOME", &home)
            .current_dir("/")
            .uid(65534)
            .gid(65534);
        run(&mut command)
    };
    let limited = as_nobody(&["exec", "--limit", "100ms", "--", "sleep", "1000"]);
    assert_eq!(limited.code, Some(124), "{limited:?}");
    let output = as_nobody(&["run", "job", "--", "sh", "-c", "echo of nobody; exit 4"]);
    assert_eq!(output.code, Some(4), "{output:?}");
    let log = home.join(".local/state/probe/logs/job.log");
    assert_eq!(
        fs::read_to_string(&log).unwrap_or_default(),
        "of nobody\n",
        "{}",
        log.display()
    );
}
