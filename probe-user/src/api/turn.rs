//! When the API's thread has a real-time priority: while it hands out lines that were just said, and not for longer than a
//! moment. Under load it is the scheduler that costs a watcher milliseconds, not the daemon.
//!
//! The thread rests with that priority, so that a line wakes it at once. Whatever a client can make it do beyond that, a
//! question or more lines than fit into a moment, is done with an ordinary priority, until the thread rests again.

use std::{cell::Cell, time::Duration};

use crate::{
    clock::{self, Nanos},
    realtime,
};

/// How long it may go on with the priority that it was woken with.
const MOMENT: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It never had such a priority.
    Ordinary,
    /// It has one, since this time.
    Preferred(Nanos),
    /// It has given it up until it rests.
    Demoted,
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Ordinary) };
}

/// From now on the calling thread is preferred, where that is allowed.
pub(super) fn prefer_this_thread() {
    match realtime::prefer_this_thread() {
        Ok(()) => TURN.set(Turn::Preferred(clock::now())),
        Err(e) => tracing::info!(
            "the API's thread runs with an ordinary priority, so watchers may be told late under load: {e} (real-time \
             needs CAP_SYS_NICE)"
        ),
    }
}

/// The thread has been woken.
pub(super) fn begin() {
    if let Turn::Preferred(_) = TURN.get() {
        TURN.set(Turn::Preferred(clock::now()));
    }
}

/// The thread has nothing left to do.
pub(super) fn rest() {
    if TURN.get() == Turn::Demoted {
        // Whoever took the right away does not give it back.
        TURN.set(match realtime::prefer_this_thread() {
            Ok(()) => Turn::Preferred(clock::now()),
            Err(_) => Turn::Ordinary,
        });
    }
}

/// What follows may take its time.
pub(super) fn demote() {
    if let Turn::Preferred(_) = TURN.get()
        && realtime::leave_to_others().is_ok()
    {
        TURN.set(Turn::Demoted);
    }
}

/// More follows: with an ordinary priority, if this has taken more than a moment.
pub(super) fn go_on() {
    if let Turn::Preferred(since) = TURN.get()
        && clock::now().since(since) > MOMENT
    {
        demote();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: 0 is the calling thread; nothing is passed.
        let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
        policy as libc::c_int & !libc::SCHED_RESET_ON_FORK
    }

    #[test]
    fn a_turn_is_short_and_questions_have_none() {
        prefer_this_thread();
        if TURN.get() == Turn::Ordinary {
            eprintln!("skipped: real-time priorities are not allowed here");
            return;
        }
        assert_eq!(policy(), libc::SCHED_FIFO);
        begin();
        demote();
        assert_eq!(policy(), libc::SCHED_OTHER);
        // A line that comes in between does not bring it back; rest does.
        begin();
        assert_eq!(policy(), libc::SCHED_OTHER);
        rest();
        assert_eq!(policy(), libc::SCHED_FIFO);
        begin();
        while clock::now().since(match TURN.get() {
            Turn::Preferred(since) => since,
            other => panic!("{other:?}"),
        }) <= MOMENT
        {}
        go_on();
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
