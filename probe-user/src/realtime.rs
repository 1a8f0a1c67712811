//! A real-time priority for the threads between the kernel and a watcher: under load it is the scheduler that costs
//! milliseconds, not the programs in the kernel.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Gives the calling thread the lowest real-time priority. Threads and processes that it starts do not have it.
///
/// # Errors
/// Where that is not allowed.
pub(crate) fn prefer_this_thread() -> io::Result<()> {
    set(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1)
}

/// Gives the calling thread an ordinary priority again.
///
/// # Errors
/// The kernel allows that always.
pub(crate) fn leave_to_others() -> io::Result<()> {
    set(libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0)
}

/// Lets this process's threads take that priority also without CAP_SYS_NICE, which the sandbox gives up: the API's thread leaves
/// it to others and comes back to it.
///
/// # Errors
/// Where the limit cannot be raised: then the first that gives the priority up does not get it again.
pub(crate) fn keep_the_right() -> io::Result<()> {
    let now = getrlimit(Resource::Rtprio);
    // Without a number there is no limit.
    let at_least_one = |limit: Option<u64>| limit.map(|n| n.max(1));
    let limit = Rlimit {
        current: at_least_one(now.current),
        maximum: at_least_one(now.maximum),
    };
    setrlimit(Resource::Rtprio, limit)?;
    Ok(())
}

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    // The kernel's own: musl's structure has more members, and its function only says that it is not there.
    // SAFETY: 0 is the calling thread, and the kernel reads one int at the address, during the call only.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
