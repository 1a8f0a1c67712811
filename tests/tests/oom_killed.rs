//! The kernel's OOM killer.

use probe_tests::{MemoryGroup, Scene};

#[test]
fn a_daemon_that_takes_more_memory_than_its_group_may_have() {
    let group = match MemoryGroup::new("probe-test-oom", 64) {
        Ok(group) => group,
        Err(why) => return println!("skipped: {why}"),
    };
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();
    group.add(daemon.pid());

    daemon.send("alloc 256");

    let killed = watch.expect("oom-killed", "annad");
    killed.says(daemon.pid());
    assert_eq!(killed.severity, "critical");
    assert!(killed.actor.is_none(), "the kernel did it: {killed:?}");
    daemon.wait_gone();
    watch.stop();
    drop(daemon);
}
