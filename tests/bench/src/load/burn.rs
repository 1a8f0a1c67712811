//! Work for the processors, with an ordinary priority.

use std::{hint::black_box, thread};

use super::child::{Load, READY, until_told_to_end};

pub(super) fn play() -> anyhow::Result<()> {
    thread::spawn(|| {
        for n in 0_u64.. {
            black_box(n);
        }
    });
    println!("{READY}");
    until_told_to_end();
    Ok(())
}

/// One for each processor, so that none is ever idle.
pub(crate) fn all_cores() -> anyhow::Result<Vec<Load>> {
    let cores = thread::available_parallelism()?;
    (0..cores.get()).map(|_| Load::own(&["burn"])).collect()
}
