//! A connection to a UNIX socket whose queue may be full.

use std::{io, os::fd::AsRawFd, os::unix::net, path::Path, time::Duration};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket},
};
use tokio::{net::UnixStream, time::sleep};

/// How long to wait before a full queue is asked again: nobody tells when there is room.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LAST_WAIT: Duration = Duration::from_millis(50);

/// Waits for room in the queue, without an end of its own: the caller has the limit. A blocking connect(2) would wait in
/// the kernel, where no limit of ours reaches it; a non-blocking one fails at once with EAGAIN (unix(7)), and is tried
/// again.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let mut wait = FIRST_WAIT;
    loop {
        match connect_to(fd.as_raw_fd(), &address) {
            Ok(()) => return UnixStream::from_std(net::UnixStream::from(fd)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                sleep(wait).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
            Err(e) => return Err(e.into()),
        }
    }
}
