//! What the kernel tells of processes: each fork, exec and end once, however many there are at a time. `cargo xtask vm` runs
//! this on several kernels.

use std::{collections::BTreeMap, thread};

use probe_tests::Stage;

/// Children of each of the two crowds.
const EACH: usize = 300;

/// Where a task can be preempted inside of a tracepoint's programs, one end makes the kernel skip the program for another.
#[test]
fn two_crowds_at_once_are_told_without_a_loss() {
    let mut stage = Stage::new(&[("crowded", "unix")]);
    let mut crowds = [stage.another("crowded"), stage.another("crowded")];
    thread::scope(|s| {
        for crowd in &mut crowds {
            s.spawn(|| crowd.tell(&format!("burst {EACH}")));
        }
    });
    // Everything before is told.
    stage.expect("crowded", &[]);

    let lines = stage.watch.lines();
    let told = |kind: &str| {
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for line in lines.iter().filter(|l| l.value["kind"] == kind) {
            if line.value["service"] == "crowded"
                && let Some(pid) = line.value["process"]["pid"].as_u64()
            {
                *times.entry(pid).or_default() += 1;
            }
        }
        times
    };
    for kind in ["fork", "exit"] {
        let times = told(kind);
        let twice: Vec<u64> = times
            .iter()
            .filter(|(_, n)| **n > 1)
            .map(|(pid, _)| *pid)
            .collect();
        assert_eq!((times.len(), twice), (2 * EACH, Vec::new()), "{kind}");
    }
    let lost: Vec<_> = lines.iter().filter(|l| l.kind() == "lost").collect();
    assert!(lost.is_empty(), "{lost:#?}");
    stage.stop();
}
