//! Taking memory.

use std::cell::RefCell;

thread_local! {
    /// Kept, so that it stays resident.
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes that many MiB and touches every page.
pub(super) fn hoard(mib: usize) {
    for _ in 0..mib {
        let mut block = vec![0u8; 1 << 20];
        for page in block.iter_mut().step_by(4096) {
            *page = 1;
        }
        HOARD.with_borrow_mut(|h| h.push(std::hint::black_box(block)));
    }
}
