//! Waits for all that a [`Runtime`] must react to, on one descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use nix::{
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    unistd,
};

use super::Runtime;
use crate::clock::Nanos;

const SOURCE: u64 = 0;
const TIMER: u64 = 1;
const WAKER: u64 = 2;

/// The runtime's descriptors, its deadline on the boot clock, and a way for others to wake who waits.
///
/// Readable while something is to be done, so another poller can wait on it too.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<Nanos>,
    waker: Arc<EventFd>,
}

/// Wakes whoever waits on a [`Poller`], from any thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Wakes nobody.
    ///
    /// # Errors
    /// When the kernel gives no more descriptors.
    pub(crate) fn of_nobody() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    pub fn wake(&self) {
        // The counter is full: it is awake already.
        _ = self.0.write(1);
    }
}

/// What a [`Poller`] woke for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// [`Runtime::drain`].
    pub sources: bool,
    /// [`Runtime::tick`].
    pub deadline: bool,
    /// Somebody called [`Waker::wake`].
    pub woken: bool,
}

impl Poller {
    /// # Errors
    /// When the kernel gives no more descriptors.
    pub fn new(runtime: &Runtime) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        let waker = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        epoll.add(waker.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        let poller = Self {
            epoll,
            timer,
            armed: None,
            waker,
        };
        poller.follow(runtime)?;
        Ok(poller)
    }

    /// Takes over descriptors that the runtime has opened anew.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn follow(&self, runtime: &Runtime) -> io::Result<()> {
        for fd in runtime.fds() {
            match self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, SOURCE)) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// Has [`Self::wait`] and the descriptor become ready at the deadline.
    ///
    /// # Errors
    /// Those of `timerfd_settime`.
    pub fn arm(&mut self, deadline: Option<Nanos>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        match deadline {
            None => self.timer.unset()?,
            Some(at) => {
                // A time of zero would mean never.
                let at = TimeSpec::from_duration(std::time::Duration::from_nanos(at.0.max(1)));
                self.timer
                    .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        self.armed = deadline;
        Ok(())
    }

    /// Waits until something is to be done, or gives what is to be done now.
    ///
    /// # Errors
    /// Those of `epoll_wait`.
    pub fn wait(&mut self, block: bool) -> io::Result<Ready> {
        let mut events = [EpollEvent::empty(); 8];
        let timeout = match block {
            true => EpollTimeout::NONE,
            false => EpollTimeout::ZERO,
        };
        let n = match self.epoll.wait(&mut events, timeout) {
            Ok(n) => n,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        let mut ready = Ready::default();
        for event in &events[..n] {
            match event.data() {
                TIMER => {
                    ready.deadline = true;
                    // It expires once, and is set anew for whatever is due next.
                    self.armed = None;
                    self.take_expiration();
                }
                WAKER => {
                    ready.woken = true;
                    _ = self.waker.read();
                }
                _ => ready.sources = true,
            }
        }
        Ok(ready)
    }

    fn take_expiration(&self) {
        let mut count = [0; 8];
        // Not ready any more: then there is nothing to take.
        _ = unistd::read(self.timer.as_fd(), &mut count);
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.epoll.0.as_raw_fd()
    }
}
