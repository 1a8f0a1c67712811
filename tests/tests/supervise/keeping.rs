//! What stays the same: the run, its count, its logs and its child, over the ends of children and of probe.

use std::{fs, time::Duration};

use probe_tests::{Proc, run};
use probe_user::run::store::Phase;
use rustix::process::Signal;

use crate::{Site, row};

#[test]
fn restarts_come_with_growing_pauses_and_keep_the_run() {
    let site = Site::new("heal = { backoff = \"40ms..160ms\", give_up_after = 5 }");
    let mut command = site.command(&["--restart", "on-failure", "--keep-logs", "2", "annad", "--"]);
    command.args(["sh", "-c", "echo $$; exit 3"]);
    let mut supervisor = site.start(command);
    let mut children = Vec::new();
    let mut pauses: Vec<u64> = Vec::new();
    for n in 0..5 {
        children.push(supervisor.child());
        if n < 4 {
            let line = supervisor.says("starting again in");
            let ms = line.rsplit(' ').nth(1).unwrap();
            pauses.push(ms.parse().unwrap());
        }
    }

    supervisor.ends_with(3);

    assert!(supervisor.has_said("gave up"), "{:?}", supervisor.said);
    for (pause, full) in pauses.iter().zip([40, 80, 160, 160]) {
        assert!((full / 2..=full).contains(pause), "{pauses:?}");
    }
    let first = &children[0];
    for (n, child) in children.iter().enumerate() {
        assert_eq!((&child.identity, child.restart), (&first.identity, n as u64));
    }
    let row = site.row();
    assert_eq!(
        (row.identity.as_str(), row.restart_count),
        (first.identity.as_str(), 4)
    );
    assert_eq!((row.phase, row.exit.as_deref()), (Phase::Ended, Some("code 3")));
    // The newest, and two of the earlier ones.
    let pids: Vec<String> = (0..4).map(|n| site.log(n).trim().to_owned()).collect();
    let of = |n: usize| children[n].pid.to_string();
    assert_eq!(pids, [of(4), of(3), of(2), String::new()]);
}

#[test]
fn earlier_logs_are_kept_by_size() {
    let site = Site::new("heal = { backoff = \"1ms..1ms\", give_up_after = 3 }");
    let mut command = site.command(&["--restart", "always", "--keep-log-size", "1500B", "annad", "--"]);
    command.args(["sh", "-c", "head -c 1000 /dev/zero"]);

    let output = run(&mut command);

    assert_ne!(output.code, Some(0), "it gave up: {output:?}");
    let sizes: Vec<usize> = (0..3).map(|n| site.log(n).len()).collect();
    assert_eq!(sizes, [1000, 1000, 0]);
}

#[test]
fn an_end_in_good_order_is_no_failure() {
    let site = Site::new("");
    let mut command = site.command(&["--restart", "on-failure", "annad", "--"]);
    let output = run(command.arg("true"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let first = site.row();
    // What is started after that is another run.
    let output = run(site.command(&["annad", "--"]).arg("true"));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_ne!(site.row().identity, first.identity);
    assert_eq!(site.row().restart_count, 0);
}

#[test]
fn the_child_outlives_probe_and_is_taken_over() {
    let site = Site::new("");
    let mut first = site.run(&[], &[]);
    let child = first.child();
    site.logs("ready pid=");

    first.kill();

    // No pipe broke.
    site.order("ping");
    site.logs("ok");
    let mut second = site.run(&[], &[]);
    assert_eq!(second.child(), child);
    assert!(second.has_said("took over"), "{:?}", second.said);
    site.order("exit 7");
    // The kernel tells how somebody else's child ended from 6.15 on.
    second.ends_with(if tells_ends() { 7 } else { 125 });
    let wanted = if tells_ends() { "code 7" } else { "unknown" };
    assert_eq!(site.row().exit.as_deref(), Some(wanted));
}

fn tells_ends() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn another_command_does_not_take_over() {
    let site = Site::new("");
    let mut first = site.run(&[], &[]);
    let child = first.child();
    first.kill();

    let mut other = site.run(&[], &["--on", "USR1=catch"]);

    other.ends_with(125);
    assert!(other.has_said("was another command"), "{:?}", other.said);
    assert!(Proc::adopt("annad", child.pid).is_alive());
}

#[test]
fn a_child_that_ended_meanwhile_is_started_again() {
    let site = Site::new("");
    let mut first = site.run(&["--restart", "always"], &[]);
    let old = first.child();
    first.kill();
    let child = Proc::adopt("annad", old.pid);
    site.order("exit 0");
    child.wait_gone();

    let mut second = site.run(&["--restart", "always"], &["--on", "TERM=clean"]);
    let new = second.child();

    assert_eq!((&new.identity, new.restart), (&old.identity, 1));
    second.signal(Signal::TERM);
    second.code();
}

/// As after a power failure: probe and its children are gone, the database is there.
#[test]
fn every_run_that_was_not_over_is_resumed() {
    let site = Site::new("");
    let finished = run(site.command(&["finished", "--"]).args(["sh", "-c", "exit 4"]));
    assert_eq!(finished.code, Some(4));
    let mut first = site.run(&["--restart", "always", "--limit", "1h"], &["--on", "TERM=clean"]);
    let annad = first.child();
    let mut command = site.command(&["other", "--"]);
    command.args(["sleep", "1000"]);
    let mut second = site.start(command);
    let other = second.child();
    for (supervisor, child) in [(&mut first, &annad), (&mut second, &other)] {
        supervisor.kill();
        let child = Proc::adopt("child", child.pid);
        child.signal(Signal::KILL);
        child.wait_gone();
    }

    let mut resumed = site.start(site.command(&["--resume"]));
    let mut children = [resumed.child(), resumed.child()];
    children.sort_by_key(|c| c.identity != annad.identity);

    assert_eq!((&children[0].identity, children[0].restart), (&annad.identity, 1));
    assert_eq!((&children[1].identity, children[1].restart), (&other.identity, 1));
    assert_eq!(site.row().command.limit, Some(Duration::from_secs(3600)));
    assert_eq!(row(&site.state(), "finished").restart_count, 0);
    site.logs("ready pid=");
    resumed.signal(Signal::TERM);
    resumed.ends_with(143);
    assert!(
        resumed.said.iter().all(|l| !l.contains("finished")),
        "{:?}",
        resumed.said
    );
}
