//! What runs on this host, as services that nobody had to declare.
//!
//! Listeners are grouped by the root process of those who hold them. What is read from the host is in [`Host`]; the
//! grouping is a pure function of it and of [`Listeners`].

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    address::{Address, Inet},
    config::{Config, Service},
    engine::membership::{is_interpreter, is_service_manager},
    event::{FileId, PathState, PidFileContent, ProcId, Process},
    sources::{
        observer::{Found, Listeners, Observer},
        path, pid_file,
        sock_diag::DiagError,
        view::View,
    },
};

/// Directory entries looked at under `/run`.
const ENTRIES: usize = 20_000;
/// How deep socket files are looked for.
const DEPTH: usize = 6;
/// PID files that are read.
const PID_FILES: usize = 1024;

/// So much of its name the kernel keeps.
const COMM: usize = 15;

/// Facts of the host besides its listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// This process: it never appears.
    pub own_pid: u32,
    /// First and last port that the kernel gives to sockets which ask for none.
    pub ephemeral_ports: (u16, u16),
    /// PID files that name something.
    pub pid_files: Vec<(PathBuf, u32)>,
    /// Socket files under `/run`.
    pub socket_files: Vec<(PathBuf, FileId)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// None of them expected to run: what was not declared may end at will.
    pub services: Vec<Service>,
    /// Socket files that no live socket is bound to, in any network namespace that a process lives in.
    pub unheld: Vec<PathBuf>,
}

impl Host {
    /// Reads `/run`. What can't be read is left out.
    pub fn read() -> Self {
        let mut run = Walk::new();
        run.directory(Path::new("/run"), 0);
        // Mostly a link to /run, which is not walked twice.
        let var_run = Path::new("/var/run");
        if fs::symlink_metadata(var_run).is_ok_and(|m| m.is_dir()) {
            run.directory(var_run, 0);
        }
        let pid_files = run.pid_files.into_iter().filter_map(|path| {
            match pid_file::read(&path, None, &View::default()).content {
                PidFileContent::Pid(pid) => Some((path, pid)),
                _ => None,
            }
        });
        let socket_files = run
            .sockets
            .into_iter()
            .filter_map(|path| match path::state(&path) {
                PathState::Socket(file) => Some((path, file)),
                _ => None,
            });
        Self {
            own_pid: std::process::id(),
            ephemeral_ports: ephemeral_ports(),
            pid_files: pid_files.collect(),
            socket_files: socket_files.collect(),
        }
    }
}

/// The kernel's default where it can't be read.
fn ephemeral_ports() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => (first, last),
        _ => (32768, 60999),
    }
}

/// Nobody may open what systemd mounts over paths that a unit is not to reach: `/run/systemd/inaccessible/sock`.
fn is_placeholder(socket: &fs::DirEntry) -> bool {
    use std::os::unix::fs::PermissionsExt;
    socket
        .metadata()
        .is_ok_and(|m| m.permissions().mode() & 0o777 == 0)
}

/// A bounded walk that follows no link and enters no file system that may hang.
struct Walk {
    left: usize,
    /// Mount points below `/run` that are no tmpfs: a dead FUSE server hangs whoever looks at its mount.
    foreign: BTreeSet<PathBuf>,
    pid_files: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
}

impl Walk {
    fn new() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let foreign = table.lines().filter_map(|line| {
            let point = line.split(' ').nth(4)?;
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            // Blanks are written as \040; such a mount is not entered by another name either.
            (kind != "tmpfs").then(|| PathBuf::from(point.replace("\\040", " ")))
        });
        // The directory that was asked for is walked whatever it lies on.
        let foreign = foreign
            .filter(|p| p != Path::new("/run") && p != Path::new("/var/run"))
            .collect();
        Self {
            left: ENTRIES,
            foreign,
            pid_files: Vec::new(),
            sockets: Vec::new(),
        }
    }

    fn directory(&mut self, directory: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let mut names: Vec<_> = entries.flatten().take(self.left).collect();
        self.left -= names.len();
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            use std::os::unix::fs::FileTypeExt;
            let path = entry.path();
            // From the directory itself, without a look at the file.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() {
                if !is_placeholder(&entry) {
                    self.sockets.push(path);
                }
            } else if kind.is_dir() && depth < DEPTH && !self.foreign.contains(&path) {
                self.directory(&path, depth + 1);
            } else if kind.is_file()
                && depth < 2
                && path.extension().is_some_and(|e| e == "pid")
                && self.pid_files.len() < PID_FILES
            {
                self.pid_files.push(path);
            }
        }
    }
}

/// A service to be: root processes that share addresses.
#[derive(Default)]
struct Group<'a> {
    roots: BTreeSet<ProcId>,
    sockets: Vec<&'a Found>,
}

/// Adds what runs here and is not declared, and the socket files that nothing holds.
///
/// # Errors
/// When the kernel can't be asked for its sockets.
pub fn declare(config: &mut Config, observer: &mut Observer) -> Result<(), DiagError> {
    let listeners = observer.listening_everything()?;
    let found = discover(&listeners, &Host::read());
    let unheld = found.unheld.iter().filter_map(|path| {
        let path = path.to_str()?;
        Some(Service {
            listen: vec![format!("unix:{path}").parse().ok()?],
            expected: false,
            ..Service::named(path)
        })
    });
    let declared: BTreeSet<Address> = config.services.iter().flat_map(|s| s.listen.clone()).collect();
    let names: BTreeSet<String> = config.services.iter().map(|s| s.name.clone()).collect();
    let more = found.services.into_iter().chain(unheld);
    config.services.extend(more.filter(|s| {
        // What the configuration declares is not declared a second time.
        !names.contains(&s.name) && !s.listen.iter().any(|a| declared.contains(a))
    }));
    Ok(())
}

/// Groups the listeners by the roots of their holders.
pub fn discover(listeners: &Listeners, host: &Host) -> Discovery {
    let groups = groups(listeners, host);
    let exes: Vec<Option<&Process>> = groups.iter().map(|g| common_executable(g, listeners)).collect();
    let units: Vec<Option<&str>> = groups.iter().map(|g| common_unit(g, listeners)).collect();
    let mut services = Vec::with_capacity(groups.len());
    let mut names = BTreeSet::new();
    for (i, group) in groups.iter().enumerate() {
        let unit = units[i].filter(|unit| units.iter().filter(|u| **u == Some(unit)).count() == 1);
        let exe = exes[i].filter(|exe| {
            !is_interpreter(exe)
                && exes
                    .iter()
                    .flatten()
                    .filter(|other| same_file(exe, other))
                    .count()
                    == 1
        });
        let root = group.roots.first().and_then(|id| listeners.processes.get(id));
        let base = match (units[i], root) {
            (Some(unit), _) => unit.trim_end_matches(".service").to_owned(),
            (None, Some(root)) => name(root),
            (None, None) => "unknown".to_owned(),
        };
        let mut service = Service::named(unique(base, &mut names));
        service.expected = false;
        service.unit = unit.map(str::to_owned);
        service.exe = exe.and_then(|exe| exe.exe.clone());
        service.listen = addresses(group, &groups, i);
        service.max_instances = u32::try_from(group.roots.len()).unwrap_or(u32::MAX).max(1);
        let mut pid_files = host
            .pid_files
            .iter()
            .filter(|(_, pid)| group.roots.iter().any(|root| root.pid == *pid));
        service.pid_file = pid_files
            .next()
            .map(|(path, _)| path.to_string_lossy().into_owned());
        services.push(service);
    }
    let unheld = host
        .socket_files
        .iter()
        .filter(|(_, file)| !listeners.files.contains(file));
    Discovery {
        services,
        unheld: unheld.map(|(path, _)| path.clone()).collect(),
    }
}

/// In the order of their first root.
fn groups<'a>(listeners: &'a Listeners, host: &Host) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for found in listeners.sockets.iter().filter(|f| is_wanted(&f.address, host)) {
        let Some(root) = root(found, listeners, host) else {
            continue;
        };
        // Sockets that share an address (SO_REUSEPORT) are one service, whoever holds them.
        let belongs = |g: &Group<'_>| {
            g.roots.contains(&root) || g.sockets.iter().any(|other| other.address == found.address)
        };
        let mut merged = Group {
            roots: [root].into(),
            sockets: vec![found],
        };
        let (mut theirs, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(belongs);
        for group in &mut theirs {
            merged.roots.append(&mut group.roots);
            merged.sockets.append(&mut group.sockets);
        }
        groups = others;
        groups.push(merged);
    }
    groups.sort_by_key(|g| g.roots.first().copied());
    groups
}

fn is_wanted(address: &Address, host: &Host) -> bool {
    let (first, last) = host.ephemeral_ports;
    match address {
        // A client's socket, on a port that the kernel chose.
        Address::Udp(inet) => !(first..=last).contains(&inet.port),
        Address::Tcp(_) => true,
        // Five hexadecimal digits: a name that the kernel chose.
        Address::Abstract(name) => !(name.len() == 5 && name.bytes().all(|b| b.is_ascii_hexdigit())),
        // One that can be written down and read again.
        Address::Unix(path) => address
            .to_string()
            .parse()
            .is_ok_and(|parsed: Address| parsed.path() == Some(path)),
    }
}

/// The process that stands for all holders of a socket.
fn root(found: &Found, listeners: &Listeners, host: &Host) -> Option<ProcId> {
    let holders: BTreeSet<ProcId> = found.socket.holders.iter().map(|h| h.process).collect();
    let candidates = holders.iter().filter_map(|id| listeners.processes.get(id));
    // systemd holds sockets for services that it starts on demand; all processes descend from it.
    let candidates = candidates.filter(|p| p.id.pid != host.own_pid && !is_service_manager(p));
    let roots = candidates.map(|holder| {
        let mut root = holder;
        while let Some(parent) = root.parent.and_then(|id| listeners.processes.get(&id)) {
            // A shell that starts a script runs the same interpreter and is no part of it, unless it holds the socket.
            let kin = same_file(root, parent) && (!is_interpreter(root) || root.argv == parent.argv);
            if is_service_manager(parent)
                || parent.id.pid == host.own_pid
                || !(kin || holders.contains(&parent.id))
            {
                break;
            }
            root = parent;
        }
        root
    });
    roots.min_by_key(|root| (root.start, root.id)).map(|root| root.id)
}

fn same_file(one: &Process, other: &Process) -> bool {
    match (one.exe_id, other.exe_id) {
        (Some(a), Some(b)) => a == b,
        _ => one.exe.is_some() && one.exe == other.exe,
    }
}

/// What people call it: the executable's file name, unless it was started under another one. `redis-server` is a link to
/// `redis-check-rdb` in Debian.
fn name(process: &Process) -> String {
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let exe = process.exe.as_deref().map(file_name);
    let comm = process.comm.as_str();
    // A process can call itself anything, `MainThread` for example: what its command line says too is believed.
    let is_comm = |name: &String| *name == comm || comm.len() == COMM && name.starts_with(comm);
    let called = || {
        let words = process.argv.iter().take(2);
        let words = words.filter_map(|element| element.split_ascii_whitespace().next());
        words.map(file_name).find(is_comm)
    };
    match exe {
        Some(exe) if exe.starts_with(comm) => exe,
        Some(exe) => called().unwrap_or(exe),
        None if comm.is_empty() => "unknown".to_owned(),
        None => comm.to_owned(),
    }
}

/// The executable of all roots, if it is one, still there to be named.
fn common_executable<'a>(group: &Group<'_>, listeners: &'a Listeners) -> Option<&'a Process> {
    let mut roots = group.roots.iter().map(|id| listeners.processes.get(id));
    let first = roots.next()??;
    roots
        .all(|root| root.is_some_and(|root| same_file(first, root)))
        .then_some(first)
}

fn common_unit<'a>(group: &Group<'_>, listeners: &'a Listeners) -> Option<&'a str> {
    let mut roots = group
        .roots
        .iter()
        .map(|id| listeners.processes.get(id)?.unit.as_deref());
    let first = roots.next()?.filter(|unit| unit.ends_with(".service"))?;
    roots.all(|unit| unit == Some(first)).then_some(first)
}

/// The addresses of a group. A wildcard is written without an address, unless another group listens on the same port of
/// one address: that one would otherwise be taken for a stranger on this port.
fn addresses(group: &Group<'_>, groups: &[Group<'_>], index: usize) -> Vec<Address> {
    let elsewhere = |address: &Address| {
        let others = groups
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != index)
            .flat_map(|(_, g)| &g.sockets);
        others.map(|f| &f.address).any(|other| match (address, other) {
            (Address::Tcp(a), Address::Tcp(b)) | (Address::Udp(a), Address::Udp(b)) => a.port == b.port,
            _ => false,
        })
    };
    let addresses = group.sockets.iter().map(|found| {
        let exact = |inet: &Inet| Inet {
            ip: found.socket.ip,
            port: inet.port,
        };
        match &found.address {
            Address::Tcp(inet) if elsewhere(&found.address) => Address::Tcp(exact(inet)),
            Address::Udp(inet) if elsewhere(&found.address) => Address::Udp(exact(inet)),
            other => other.clone(),
        }
    });
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

fn unique(base: String, names: &mut BTreeSet<String>) -> String {
    let mut name = base.clone();
    let mut n = 2;
    while !names.insert(name.clone()) {
        name = format!("{base}-{n}");
        n += 1;
    }
    name
}

#[cfg(test)]
mod tests;
