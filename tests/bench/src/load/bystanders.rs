//! Processes that hold open files and do nothing: what tools that walk `/proc` have to walk through.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use super::herd;

#[expect(dead_code, reason = "kept open")]
enum Open {
    File(File),
    Pipe(OwnedFd, OwnedFd),
    Sockets(UnixStream, UnixStream),
}

/// Of five descriptors three are files, one is an end of a pipe, one an end of a pair of sockets.
pub(super) fn play(processes: usize, descriptors: usize) -> anyhow::Result<()> {
    herd::keep(processes, |_| {
        let mut open = Vec::new();
        let mut left = descriptors;
        for n in 0.. {
            let next = match n % 5 {
                1 if left >= 2 => {
                    let (read, write) = nix::unistd::pipe()?;
                    left -= 2;
                    Open::Pipe(read, write)
                }
                3 if left >= 2 => {
                    let (one, other) = UnixStream::pair()?;
                    left -= 2;
                    Open::Sockets(one, other)
                }
                _ if left >= 1 => {
                    left -= 1;
                    Open::File(File::open("/dev/null")?)
                }
                _ => break,
            };
            open.push(next);
        }
        Ok(open)
    })
}
