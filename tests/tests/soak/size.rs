//! What probe's daemon takes: memory of its own, descriptors, threads.

use std::{fs, time::Duration};

use probe_tests::Deadline;

const EACH: Duration = Duration::from_secs(1);
/// Memory may grow by so much: an allocator keeps what it was given in other portions, and what a line takes is estimated.
const KB: u64 = 2048;
/// By so much in a short life: for some minutes other lines take the place of those that are kept, 4 MB a minute. A short soak
/// finds what leaks fast.
const SHORT_KB: u64 = 8192;
/// A life of so many looks is long.
const LONG: usize = 600;
/// Descriptors come and go with the processes that are looked at.
const FDS: u64 = 3;

#[derive(Default)]
pub(crate) struct Sizes {
    taken: Vec<[u64; 3]>,
    next: Option<Deadline>,
}

/// What it looked like.
pub(crate) struct Flat {
    pub(crate) rows: Vec<(&'static str, String)>,
    pub(crate) grown: Vec<String>,
}

const MEASURES: [&str; 3] = [
    "memory without the lines kept for late readers, KB",
    "descriptors",
    "threads",
];

impl Sizes {
    /// Looks once a second.
    pub(crate) fn look(&mut self, pid: u32, kept: impl FnOnce() -> u64) {
        if self.next.is_some_and(|next| next.left().is_some()) {
            return;
        }
        self.next = Some(Deadline::after(EACH));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let field = |name: &str| {
            let value = status.lines().find_map(|l| l.strip_prefix(name)).expect(name);
            let number = value.split_whitespace().next().expect("a number");
            number.parse::<u64>().expect("a number")
        };
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .count();
        let memory = field("RssAnon:").saturating_sub(kept());
        self.taken.push([memory, fds as u64, field("Threads:")]);
    }

    /// Compares the second fourth with the last one: in the first, other lines take the place of those that are kept, and memory is
    /// handed out in other portions than before.
    pub(crate) fn flat(&self) -> Flat {
        let fourth = self.taken.len() / 4;
        assert!(fourth >= 2, "{} looks are too few", self.taken.len());
        let (mut rows, mut grown) = (Vec::new(), Vec::new());
        let memory = if self.taken.len() < LONG { SHORT_KB } else { KB };
        for (i, (what, more)) in MEASURES.into_iter().zip([memory, FDS, 0]).enumerate() {
            let median = |part: &[[u64; 3]]| {
                let mut values: Vec<u64> = part.iter().map(|s| s[i]).collect();
                values.sort_unstable();
                values[values.len() / 2]
            };
            let first = median(&self.taken[fourth..2 * fourth]);
            let last = median(&self.taken[self.taken.len() - fourth..]);
            let most = self.taken.iter().map(|s| s[i]).max().unwrap_or(0);
            let text =
                format!("{first} in the second fourth of its last life, {last} in the last, {most} at most");
            if last > first + more {
                grown.push(format!("{what}: {text}; {:?}", self.taken));
            }
            rows.push((what, text));
        }
        Flat { rows, grown }
    }
}
