//! What stays the same: the run, its count, its logs and its child, over the ends of children and of probe.

use std::fs;

use probe_tests::{Proc, run};
use rustix::process::Signal;

use crate::Site;

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
