//! Counts what is allocated, and the CPU time of this thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// The system's allocator, counted.
pub(crate) struct Meter;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// What is measured runs in one thread at a time: a locked instruction for each count would cost more than many an allocation.
fn add(counter: &AtomicUsize, by: usize) -> usize {
    let now = counter.load(Relaxed).wrapping_add(by);
    counter.store(now, Relaxed);
    now
}

fn grown(by: usize) {
    add(&ALLOCATIONS, 1);
    let live = add(&LIVE, by);
    if live > PEAK.load(Relaxed) {
        PEAK.store(live, Relaxed);
    }
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps to `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        add(&LIVE, layout.size().wrapping_neg());
        // SAFETY: the caller keeps to `dealloc`'s contract, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(&LIVE, layout.size().wrapping_neg());
        grown(size);
        // SAFETY: the caller keeps to `realloc`'s contract, and the memory came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

pub(crate) fn allocations() -> usize {
    ALLOCATIONS.load(Relaxed)
}

/// The most bytes that were allocated at once since the last [`forget_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Relaxed)
}

pub(crate) fn forget_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// How long this thread has run: what else the machine does is not in it.
pub(crate) fn cpu() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every kernel has this clock"))
}

/// How much of a measured span is the measuring itself: asking for this clock is a system call, and the engine's spans are
/// not much longer.
pub(crate) fn overhead() -> Duration {
    const SPANS: u32 = 100_000;
    let all: Duration = (0..SPANS)
        .map(|_| {
            let began = cpu();
            cpu() - began
        })
        .sum();
    all / SPANS
}
