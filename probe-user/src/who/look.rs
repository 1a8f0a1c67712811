//! Looks at one address of this host, once.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{Answer, Seen, State, answer, sight::Sight};
use crate::{
    address::{Address, Site},
    clock::{self, Nanos},
    config::Netns,
    event::{AddressState, PathState, ProcId, Socket},
    kernel::{HeldUnix, TaskFiles},
    sources::{
        observer::{HolderFinder, KernelTables, Observer, ProcessLister, Task},
        path,
        sock_diag::{Diag, DiagError},
        view::View,
    },
};

/// How to look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The network namespace that ports and abstract names are meant in: `Host` or `Path`.
    pub netns: Netns,
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WhoError(#[from] DiagError);

/// Who holds the address now.
///
/// # Errors
/// When the kernel can't be asked for sockets at all; everything else that could not be seen stands in the answer.
pub fn look(address: &Address, options: &Options) -> Result<Answer, WhoError> {
    Ok(Looker::new()?.look(address, options))
}

/// Looks again and again. What it has found is asked for first the next time, and where nobody else can hold the socket,
/// that is the answer: then a look takes as long beside ten thousand processes as beside ten.
pub struct Looker {
    observer: Observer,
    asked: Asked,
    files: Files,
}

impl Looker {
    /// # Errors
    /// When the kernel can't be asked for sockets at all.
    pub fn new() -> Result<Self, WhoError> {
        let tables = Searching::default();
        let (asked, files) = (Arc::clone(&tables.asked), Arc::clone(&tables.files));
        Ok(Self {
            observer: Observer::new(Some(Box::new(tables)))?.with_bound(),
            asked,
            files,
        })
    }

    /// Who holds the address now. What could not be seen stands in the answer.
    pub fn look(&mut self, address: &Address, options: &Options) -> Answer {
        let (meant, links_to) = follow(address);
        let view = View {
            netns: options.netns.clone(),
            ..View::default()
        };
        let (at, wall_offset_ns) = (clock::now(), clock::wall_offset());
        let site = Site::from(meant.clone());
        self.observer.forget_unless_unchanged(&site, &view);
        self.take_asked();
        let mut state = self.observer.site(&site, &view);
        let mut asked = self.take_asked();
        // It was not searched, because whoever held it still does.
        let mut certain = false;
        if asked.is_none() && !state.sockets.is_empty() {
            certain = state.sockets.iter().all(|s| all_holders(&self.files, s));
            if !certain && let Some(anew) = self.observer.site_anew(&site, &view) {
                state = anew;
                asked = self.take_asked();
                // Whoever else had it open a moment ago has let it go.
                certain = asked.is_none() && state.sockets.iter().all(|s| all_holders(&self.files, s));
            }
        }
        state.address = address.clone();
        let made = match (&state.path, meant.path()) {
            (Some(PathState::Socket(_)), Some(path)) => made(path, wall_offset_ns),
            _ => None,
        };

        let mut seen = Seen {
            state: &state,
            at,
            wall_offset_ns,
            made,
            links_to,
            all_holders: true,
            namespaces_unseen: false,
            cannot_see: Vec::new(),
        };
        // The iterator sees every process of this pid namespace.
        let all_seen = certain || matches!(asked, Some(Ok(())));
        if let Some(Err(why)) = asked {
            tracing::info!("/proc was walked: {why}");
        }
        let doubtful = !state.sockets.is_empty() && !all_seen || is_dead(&state);
        if doubtful {
            let sight = Sight::read();
            if !state.sockets.is_empty() && !all_seen {
                seen.all_holders = sight.sees_descriptors();
                seen.cannot_see.extend(sight.descriptors());
            }
            if is_dead(&state) {
                seen.namespaces_unseen = sight.is_blind_to_namespaces();
                seen.cannot_see.extend(sight.namespaces());
            }
        }
        let mut found = answer(&seen);
        if found.state == State::Free && matches!(address, Address::Tcp(_)) && !sees_bound_tcp() {
            let what = "TCP sockets that are bound and do not listen: Linux shows them from 6.8 on";
            found.cannot_see.push(what.to_owned());
        }
        found
    }

    fn take_asked(&self) -> Option<Result<(), String>> {
        lock(&self.asked).take()
    }
}

impl std::fmt::Debug for Looker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looker").finish_non_exhaustive()
    }
}

/// Whether nobody but the known holders has the socket open.
fn all_holders(files: &Files, socket: &Socket) -> bool {
    let holders: Vec<_> = socket.holders.iter().map(|h| (h.process, h.fd)).collect();
    lock(files).has_no_other(socket.inode, &holders)
}

/// A socket file that no socket of this network namespace explains.
fn is_dead(state: &AddressState) -> bool {
    let Some(PathState::Socket(file)) = &state.path else {
        return false;
    };
    !state.sockets.iter().any(|s| s.file == Some(*file))
}

/// A client follows a symbolic link at the end of a path.
fn follow(address: &Address) -> (Address, Option<String>) {
    let Address::Unix(given) = address else {
        return (address.clone(), None);
    };
    if path::state(given) != PathState::Other("symbolic link".into()) {
        return (address.clone(), None);
    }
    match target(given) {
        Ok(target) => {
            let text = target.to_string_lossy().into_owned();
            (Address::Unix(target), Some(text))
        }
        // A loop of links: the kernel's error says so.
        Err(_) => (address.clone(), None),
    }
}

/// Where a link leads to, also where nothing is.
fn target(link: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(link) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let directory = link.parent().unwrap_or(Path::new("/"));
            Ok(directory.join(fs::read_link(link)?))
        }
        other => other,
    }
}

/// When a socket file was made. Where the file system does not tell, when it was last changed: nobody writes to one.
fn made(path: &Path, wall_offset_ns: i64) -> Option<Nanos> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::BTIME | StatxFlags::MTIME).ok()?;
    let time = if found.stx_mask & StatxFlags::BTIME.bits() != 0 {
        found.stx_btime
    } else {
        found.stx_mtime
    };
    let wall = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let boot = wall - i128::from(wall_offset_ns);
    Some(Nanos(u64::try_from(boot).unwrap_or(0)))
}

/// Asks the kernel for such a socket of our own.
fn sees_bound_tcp() -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
    use std::os::fd::AsRawFd;
    let ask = || -> Option<bool> {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .ok()?;
        bind(
            fd.as_raw_fd(),
            &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)),
        )
        .ok()?;
        let port = getsockname::<SockaddrIn>(fd.as_raw_fd()).ok()?.port();
        let found = Diag::open().ok()?.tcp_bound(libc::AF_INET as u8, port).ok()?;
        Some(!found.is_empty())
    };
    ask().unwrap_or(false)
}

/// For an [`Observer`] that looks once: the kernel's iterator over open files, loaded when it is first needed.
pub fn tables() -> Box<dyn KernelTables> {
    Box::new(Searching::default())
}

/// Whether the kernel answered, when it was last asked.
type Asked = Arc<Mutex<Option<Result<(), String>>>>;
/// Both of a [`Looker`]'s ways to ask need the kernel's types.
type Files = Arc<Mutex<TaskFiles>>;

#[derive(Default)]
struct Searching {
    files: Files,
    asked: Asked,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HolderFinder for Searching {
    fn holders(&mut self, inodes: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
        let found = lock(&self.files).holders(inodes);
        let told = found.as_ref().map(|_| ()).map_err(ToString::to_string);
        *lock(&self.asked) = Some(told);
        found.map_err(io::Error::other)
    }

    fn unix(&mut self, pid: u32, inode: u64) -> Option<HeldUnix> {
        lock(&self.files).unix(pid, inode).ok()
    }

    fn has_no_other(&mut self, inode: u64, holders: &[(ProcId, i32)]) -> bool {
        lock(&self.files).has_no_other(inode, holders)
    }
}

impl ProcessLister for Searching {
    fn processes(&mut self) -> io::Result<Vec<Task>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
