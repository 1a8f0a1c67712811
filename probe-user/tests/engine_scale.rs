//! An hour in the life of a host with 10,000 services: the engine takes a million events in seconds, within its memory.
//!
//! The only test of its binary, because it measures the whole process: its processor time, which other load on the
//! machine does not stretch, and the most memory that it ever had.

mod scale_support;

use std::time::Duration;

use scale_support::Host;

const SERVICES: usize = 10_000;
const EVENTS: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const MEMORY_LIMIT_KIB: u64 = 256 * 1024;
const TIME_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn an_hour_of_ten_thousand_services() {
    // Without optimisation a tenth of the events shows that nothing grows; the time is told, not judged.
    let optimised = !cfg!(debug_assertions);
    let events = if optimised { EVENTS } else { EVENTS / 10 };
    let before = processor_time();
    let mut host = Host::new(SERVICES);
    host.begin();
    while host.edges < events {
        host.live();
        host.pass(HOUR / u32::try_from(EVENTS).expect("fits"));
    }
    host.pass(HOUR - HOUR.mul_f64(events as f64 / EVENTS as f64));
    let took = processor_time() - before;
    let memory = peak_memory_kib();

    println!(
        "{} edges and {} answers in {:.2} s of processor time, {:.0} events/s, peak {} MiB, {} findings",
        host.edges,
        host.answers,
        took.as_secs_f64(),
        (host.edges + host.answers) as f64 / took.as_secs_f64(),
        memory / 1024,
        host.opened,
    );
    assert!(
        host.opened > 0 && host.resolved == host.opened,
        "every crash was found and is over: {} opened, {} resolved",
        host.opened,
        host.resolved
    );
    assert!(
        memory < MEMORY_LIMIT_KIB,
        "{memory} KiB at most, limit {MEMORY_LIMIT_KIB}"
    );
    assert!(!optimised || took < TIME_LIMIT, "{took:?}, limit {TIME_LIMIT:?}");
}

fn processor_time() -> Duration {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("clock");
    Duration::from(t)
}

/// `VmHWM`: the most memory that the process ever had resident.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
