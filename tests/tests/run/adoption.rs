//! A `probe run` that is killed: its child goes on, the next one takes it over, and there is never a second child.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use probe_tests::{Proc, Watch, run, until};
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

/// When a `probe run` is killed.
#[derive(Debug, Clone, Copy)]
enum During {
    Start,
    Run,
    Pause,
    Stop,
}

/// Ten times, at every stage; the kernel's own record says how many children lived at each instant.
#[test]
fn killed_ten_times_there_is_one_child_at_most() {
    let site = Site::new(|_| {
        "[[service]]\nname = \"job\"\nscript = \"/nonexistent/job\"\nstop_within = \"60s\"\n\
         heal = { reclaim = true, backoff = \"300ms..300ms\" }\n"
            .to_owned()
    });
    // Ends at once while there is a file `fail`; TERM asks it to stop, and it does so when there is a file `end`.
    let child = site.sandbox.install(std::path::Path::new("/bin/bash"), "child");
    let script = r#"
        asked=; trap 'asked=1; echo asked >> "$0/asked"' TERM
        echo x >> "$0/starts"
        [ -e "$0/fail" ] && exit 1
        until [ -n "$asked" ] && [ -e "$0/end" ]; do read -t 0.02 < "$0/never" || :; done"#;
    let made = Command::new("mkfifo")
        .arg(site.sandbox.path("never"))
        .status()
        .unwrap();
    assert!(made.success());
    // Held open both ways, so that opening it never waits.
    let _never = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(site.sandbox.path("never"))
        .unwrap();
    let watch = Watch::start(
        &site.sandbox,
        &format!("[[service]]\nname = \"job\"\nexpected = false\nexe = {child:?}\nmax_instances = 9\n"),
    );
    let start = || {
        let mut command = site.run(&["--restart", "always", "job", "--"]);
        command.arg(&child).args(["-c", script]).arg(site.sandbox.dir());
        Proc::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()))
    };
    let starts = || site.read("starts").lines().count();
    let fail = site.sandbox.path("fail");
    let mut identities = Vec::new();
    let stages = [During::Start, During::Run, During::Pause, During::Stop];
    for round in 0..10 {
        let stage = stages[round % stages.len()];
        let before = starts();
        let run = start();
        match stage {
            // Somewhere between its first step and the child's: each round at another point.
            During::Start => until("it has begun", || {
                let log = site.sandbox.path("state/runs.db");
                log.exists() && (round == 0 || starts() > before || !living(&child).is_empty())
            }),
            During::Run => until("the child runs", || {
                !living(&child).is_empty() && site.row().phase == Phase::Running
            }),
            During::Pause => {
                fs::write(&fail, "").unwrap();
                for pid in living(&child) {
                    probe_tests::kill("KILL", pid);
                }
                until("it waits to start again", || {
                    site.row().phase == Phase::Starting && living(&child).is_empty()
                });
                fs::remove_file(&fail).unwrap();
            }
            During::Stop => {
                until("the child runs", || {
                    !living(&child).is_empty() && site.row().phase == Phase::Running
                });
                run.signal(rustix::process::Signal::TERM);
                until("the child was asked", || site.sandbox.path("asked").exists());
                fs::remove_file(site.sandbox.path("asked")).unwrap();
            }
        }
        crash(run);
        if matches!(stage, During::Stop) {
            // The next one waits for the end of the stop before it starts another child.
            let next = start();
            until("the lock is the next one's", || holds_lock(&site, next.pid()));
            fs::write(site.sandbox.path("end"), "").unwrap();
            until("another child was started", || starts() > before + 1);
            fs::remove_file(site.sandbox.path("end")).unwrap();
            crash(next);
        }
        if site.sandbox.path("state/runs.db").exists()
            && let Ok(Some(row)) = probe_user::run::store::Runs::open(&site.sandbox.path("state"))
                .unwrap()
                .get("job")
        {
            identities.push(row.identity);
        }
    }
    // The last one takes over what there is, and ends it in good order.
    let mut last = start();
    until("the child runs", || {
        !living(&child).is_empty() && site.row().phase == Phase::Running
    });
    let row = site.row();
    fs::write(site.sandbox.path("end"), "").unwrap();
    last.signal(rustix::process::Signal::TERM);
    last.wait();
    until_living(&child, 0);
    watch.expect_event("exit", "job", "of the last child", |_| living(&child).is_empty());

    identities.push(row.identity);
    identities.dedup();
    assert_eq!(identities.len(), 1, "one run: {identities:?}");
    let (most, lives) = at_once(&watch);
    println!(
        "{} starts, {lives} lives in the kernel's record, at most {most} at once, restart_count {}",
        starts(),
        row.restart_count
    );
    assert_eq!(most, 1, "{:#?}", watch.lines());
    assert_eq!(lives, row.restart_count + 1);
    watch.stop_filtered(|_| true);
}

/// The greatest number of children that lived at the same instant, and how many there were.
fn at_once(watch: &Watch) -> (usize, u64) {
    let mut edges: BTreeMap<(u64, u8), i32> = BTreeMap::new();
    let mut lives = 0;
    for line in watch.lines() {
        let of_job = line.value["service"] == "job" && line.value["time_source"] == "kernel";
        let at = line.value["boot_ns"].as_u64().unwrap_or_default();
        match line.value["kind"].as_str().unwrap_or_default() {
            _ if !of_job => {}
            "exec" => {
                lives += 1;
                *edges.entry((at, 1)).or_default() += 1;
            }
            "exit" => *edges.entry((at, 0)).or_default() -= 1,
            _ => {}
        }
    }
    let (mut now, mut most) = (0, 0);
    for change in edges.values() {
        now += change;
        most = most.max(now);
    }
    (usize::try_from(most).unwrap_or(0), lives)
}
