//! A real-time priority for the engine's thread: under load it is the scheduler that costs milliseconds, not the programs
//! in the kernel.

use std::io;

/// Gives the calling thread the lowest real-time priority, where that is allowed. Threads and processes that it starts
/// do not have it.
pub(super) fn prefer_this_thread() {
    // The kernel's own: musl's structure has more members, and its function only says that it is not there.
    let priority: libc::c_int = 1;
    // SAFETY: 0 is the calling thread, and the kernel reads one int at the address, during the call only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const priority,
        )
    };
    if result < 0 {
        let e = io::Error::last_os_error();
        tracing::info!(
            "the engine runs with an ordinary priority, so events may be told late under load: {e} (real-time needs \
             CAP_SYS_NICE)"
        );
    }
}
