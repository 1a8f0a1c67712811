//! Who asks: as the kernel tells it of a UNIX socket's other end.

use std::{io, net::SocketAddr, os::fd::AsRawFd};

use tokio::net::UnixStream;

/// Groups that are looked at of one peer.
const GROUPS: usize = 256;

/// Whoever is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Unix {
        pid: Option<i32>,
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    Tcp(SocketAddr),
}

impl Peer {
    /// # Errors
    /// Those of `getsockopt`.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self::Unix {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: groups(stream).unwrap_or_default(),
        })
    }

    /// Root, whoever the daemon runs as, and the group's members. Whoever reaches the loopback port may read.
    pub(crate) fn may_read(&self, group: Option<u32>) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Unix { gid, groups, .. } => {
                let member = group.is_some_and(|g| g == *gid || groups.contains(&g));
                self.may_act() || member
            }
        }
    }

    /// Root, and whoever the daemon runs as.
    pub(crate) fn may_act(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix { uid, .. } => *uid == 0 || *uid == nix::unistd::geteuid().as_raw(),
        }
    }

    /// The user, where the kernel told.
    pub(crate) fn uid(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { uid, .. } => Some(*uid),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { pid, uid, gid, .. } => {
                match pid {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => f.write_str("a process")?,
                }
                write!(f, " of user {uid}, group {gid}")
            }
        }
    }
}

/// Supplementary groups when the peer connected (`SO_PEERGROUPS`, Linux 4.13).
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS];
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
    // SAFETY: the kernel writes at most `bytes` bytes into the buffer, which is that long, and says how many.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer::Unix {
            pid: Some(1),
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn who_may_what() {
        let other = nix::unistd::geteuid().as_raw() + 1000;
        assert!(peer(0, 0, &[]).may_act() && peer(0, 0, &[]).may_read(None));
        assert!(!peer(other, 5, &[]).may_read(None));
        assert!(!peer(other, 5, &[6]).may_read(Some(7)));
        assert!(peer(other, 7, &[]).may_read(Some(7)));
        assert!(peer(other, 5, &[6, 7]).may_read(Some(7)));
        assert!(!peer(other, 7, &[7]).may_act());
        let tcp = Peer::Tcp(([127, 0, 0, 1], 9).into());
        assert!(tcp.may_read(None) && !tcp.may_act());
    }

    #[tokio::test]
    async fn the_kernel_tells_who_it_is() {
        let (a, _b) = UnixStream::pair().unwrap();
        let Peer::Unix { pid, uid, groups, .. } = Peer::of(&a).unwrap() else {
            panic!("a UNIX socket")
        };
        assert_eq!(pid, i32::try_from(std::process::id()).ok());
        assert_eq!(uid, nix::unistd::geteuid().as_raw());
        let mut mine: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .collect();
        mine.sort_unstable();
        let mut groups = groups;
        groups.sort_unstable();
        assert_eq!(groups, mine);
    }
}
