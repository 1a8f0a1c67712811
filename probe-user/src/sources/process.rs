//! Processes as `/proc` shows them: identity, parent, executable, arguments, unit.
//!
//! `/proc/PID` is not read in one piece: between two of its files the pid may have come to name another process. Every
//! reader here compares the start time before and after, and answers "no such process" when it can't get one in peace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::path;
use crate::{
    clock::Nanos,
    event::{ProcId, Process, TICKS},
};

/// Bytes kept of the argument vector: as many as the kernel's record of an exec keeps.
pub const ARGV_BYTES: usize = probe_abi::ARGV_LEN;
/// Most bytes of one small `/proc` file that are read.
const FILE_BYTES: u64 = 16 * 1024;
/// How often a process is read anew when its pid changed hands under the reader.
const ATTEMPTS: usize = 3;

/// The fields of `/proc/PID/stat` that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: u8,
    pub ppid: u32,
    pub threads: u32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// `None` when it is no line of `/proc/PID/stat`. The command name may hold blanks and parentheses, so it ends at
    /// the *last* closing one.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line
            .iter()
            .rposition(|b| *b == b')')
            .filter(|close| *close > open)?;
        let comm = String::from_utf8_lossy(&line[open + 1..close]).into_owned();
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // proc(5) counts from 1: state is field 3, ppid 4, num_threads 20, starttime 22.
        let state = *fields.next()?.as_bytes().first()?;
        let ppid = fields.next()?.parse().ok()?;
        let threads = fields.nth(15)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self {
            comm,
            state,
            ppid,
            threads,
            start_ticks,
        })
    }

    /// A zombie is no live process; one whose first thread alone has ended is.
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }
}

/// One live process. `None`: there is none of that pid, or it has ended and waits to be reaped.
///
/// # Errors
/// When `/proc` itself can't be read.
pub fn read(pid: u32) -> io::Result<Option<Process>> {
    for _ in 0..ATTEMPTS {
        let Some(stat) = stat(pid)?.filter(Stat::is_alive) else {
            return Ok(None);
        };
        let mut process = skeleton(pid, stat);
        process.parent = process.parent.and_then(|p| identity(p.pid));
        // A thread's id opens a directory too, though no process has it.
        let Some((tgid, uid)) = owner(pid) else { continue };
        if tgid != pid {
            return Ok(None);
        }
        process.uid = Some(uid);
        process.unit = unit(pid);
        complete(&mut process);
        if identity(pid) == Some(process.id) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// Adds what only `/proc` can tell of a process that something else listed: path of the executable, arguments.
/// The caller compares the identity afterwards where that matters.
pub fn complete(process: &mut Process) {
    complete_executable(process);
    // In the middle of an exec the new image has no arguments yet; a kernel thread never has any.
    for attempt in 0..ATTEMPTS {
        if !process.argv.is_empty() || process.exe.is_none() {
            break;
        }
        if attempt > 0 {
            std::thread::yield_now();
        }
        process.argv = argv(process.id.pid);
    }
}

/// The same without arguments, which cost the most.
pub fn complete_executable(process: &mut Process) {
    let pid = process.id.pid;
    if process.exe.is_none() {
        (process.exe, process.exe_deleted) = exe(pid);
    }
    if process.exe_id.is_none() {
        process.exe_id = path::exe_id(pid).ok();
    }
    if process.exe.is_none() {
        complete_by_thread(process);
    }
}

/// A process whose first thread has ended keeps its executable and arguments where its other threads are.
fn complete_by_thread(process: &mut Process) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", process.id.pid)) else {
        return;
    };
    let threads = tasks
        .flatten()
        .filter_map(|t| t.file_name().to_str()?.parse::<u32>().ok());
    // The others of a process are read by their own ids, as processes are.
    for thread in threads.filter(|t| *t != process.id.pid).take(ATTEMPTS) {
        (process.exe, process.exe_deleted) = exe(thread);
        if process.exe.is_some() {
            process.exe_id = path::exe_id(thread).ok();
            process.argv = argv(thread);
            return;
        }
    }
}

fn skeleton(pid: u32, stat: Stat) -> Process {
    Process {
        id: ProcId {
            pid,
            start_ticks: stat.start_ticks,
        },
        start: Nanos(stat.start_ticks.saturating_mul(1_000_000_000 / TICKS)),
        // The start time is filled in by the caller.
        parent: (stat.ppid != 0).then_some(ProcId {
            pid: stat.ppid,
            start_ticks: 0,
        }),
        comm: stat.comm,
        uid: None,
        exe: None,
        exe_deleted: false,
        exe_id: None,
        argv: Vec::new(),
        unit: None,
    }
}

/// All thread group ids that `/proc` shows, ascending.
///
/// # Errors
/// When `/proc` can't be listed.
pub fn all_pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    Ok(pids)
}

/// All live processes, by one walk of `/proc`. Those that end meanwhile are left out.
///
/// # Errors
/// When `/proc` can't be listed.
pub fn all() -> io::Result<Vec<Process>> {
    Ok(all_pids()?
        .into_iter()
        .filter_map(|pid| read(pid).ok().flatten())
        .collect())
}

/// Who a pid is now; `None` where no live process has it. Reads `/proc/PID/stat` only.
pub fn identity(pid: u32) -> Option<ProcId> {
    let stat = stat(pid).ok().flatten().filter(Stat::is_alive)?;
    Some(ProcId {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// The parent's pid and identity. `None` for pid 1, kernel threads' root, and what has ended.
pub fn parent(id: ProcId) -> Option<ProcId> {
    let stat = stat(id.pid)
        .ok()
        .flatten()
        .filter(|s| s.start_ticks == id.start_ticks)?;
    (stat.ppid != 0).then(|| identity(stat.ppid)).flatten()
}

/// Whether two processes share their table of descriptors, as clone(2) with `CLONE_FILES` makes them. `None`: it can't be told.
pub(crate) fn shares_descriptors(one: u32, other: u32) -> Option<bool> {
    /// `linux/kcmp.h`
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: five numbers; the kernel touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) } {
        0 => Some(true),
        1..=3 => Some(false),
        _ => None,
    }
}

/// The living children of a process, where the kernel keeps that list (`CONFIG_PROC_CHILDREN`); empty elsewhere.
/// Only those of its first thread and of its other threads that exist now.
pub fn children(id: ProcId) -> Vec<ProcId> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", id.pid)) else {
        return found;
    };
    for task in tasks.flatten() {
        let Ok(text) = read_limited(&task.path().join("children")) else {
            continue;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        found.extend(
            text.split_ascii_whitespace()
                .filter_map(|p| p.parse().ok())
                .filter_map(identity),
        );
    }
    found
}

/// `roots` and everything in `all` that descends from them.
pub fn with_descendants(roots: &BTreeSet<ProcId>, all: &BTreeMap<ProcId, Process>) -> BTreeSet<ProcId> {
    let mut children: BTreeMap<ProcId, Vec<ProcId>> = BTreeMap::new();
    for process in all.values() {
        if let Some(parent) = process.parent {
            children.entry(parent).or_default().push(process.id);
        }
    }
    let mut found = BTreeSet::new();
    let mut todo: Vec<ProcId> = roots.iter().copied().collect();
    while let Some(id) = todo.pop() {
        if found.insert(id) {
            todo.extend(children.get(&id).into_iter().flatten());
        }
    }
    found
}

fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match read_limited(Path::new(&format!("/proc/{pid}/stat"))) {
        Ok(line) => Ok(Stat::parse(&line)),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// `ESRCH`: it ended after its file was opened.
fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Thread group and real user id.
fn owner(pid: u32) -> Option<(u32, u32)> {
    let status = read_limited(Path::new(&format!("/proc/{pid}/status"))).ok()?;
    let text = String::from_utf8_lossy(&status);
    let number = |key: &str| {
        let values = text.lines().find_map(|line| line.strip_prefix(key))?;
        values.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((number("Tgid:")?, number("Uid:")?))
}

/// Path of the executable without ` (deleted)`, and whether that stood there. `None` for kernel threads.
fn exe(pid: u32) -> (Option<String>, bool) {
    let link = format!("/proc/{pid}/exe");
    let Ok(target) = fs::read_link(&link) else {
        return (None, false);
    };
    let text = target.to_string_lossy().into_owned();
    match text.strip_suffix(" (deleted)") {
        // A file may really be called so; then its name leads to what is being run.
        Some(_) if path::file_id(&target).is_ok_and(|id| path::exe_id(pid).is_ok_and(|exe| exe == id)) => {
            (Some(text), false)
        }
        Some(name) => (Some(name.to_owned()), true),
        None => (Some(text), false),
    }
}

fn argv(pid: u32) -> Vec<String> {
    let mut bytes = Vec::with_capacity(ARGV_BYTES + 1);
    let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) else {
        return Vec::new();
    };
    // One byte more tells whether it was cut.
    if file.take(ARGV_BYTES as u64 + 1).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    split_argv(&bytes)
}

/// Arguments separated by NUL. The last one of a vector that did not fit is left out: half an argument is no argument,
/// and an exact match against it would lie. A daemon that rewrote its title leaves one long argument: that stays, cut.
pub(crate) fn split_argv(bytes: &[u8]) -> Vec<String> {
    let cut = bytes.len() > ARGV_BYTES;
    let bytes = &bytes[..bytes.len().min(ARGV_BYTES)];
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    // A single NUL at the end terminates; more of them are empty arguments or a rewritten title, which nothing rests on.
    if used == 0 {
        return Vec::new();
    }
    let whole = used < bytes.len();
    let mut argv: Vec<String> = bytes[..used]
        .split(|b| *b == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect();
    if cut && !whole && argv.len() > 1 {
        argv.pop();
    }
    argv
}

fn unit(pid: u32) -> Option<String> {
    let text = read_limited(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
    unit_of_cgroup(cgroup_path(&String::from_utf8_lossy(&text))?)
}

/// The path in the unified hierarchy; where systemd does not use that (it shows `/` then), in systemd's own.
pub(crate) fn cgroup_path(text: &str) -> Option<&str> {
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let systemd = text
        .lines()
        .find_map(|line| line.split_once(':')?.1.strip_prefix("name=systemd:"));
    match (unified, systemd) {
        (Some("/"), Some(systemd)) => Some(systemd),
        (Some(unified), _) => Some(unified),
        (None, systemd) => systemd,
    }
}

/// The systemd unit that a cgroup belongs to: the last component that is named like one, since a unit may have
/// sub-cgroups. `/system.slice/redis.service/worker` gives `redis.service`. `None` outside of any unit.
pub fn unit_of_cgroup(path: &str) -> Option<String> {
    // Slices hold units and no processes of their own.
    const TYPES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
    path.rsplit('/')
        .find(|name| {
            TYPES
                .iter()
                .any(|t| name.strip_suffix(t).is_some_and(|stem| !stem.is_empty()))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sources::testing::{KillOnDrop, TempDir, alone, until};

    #[test]
    fn a_command_name_may_hold_anything() {
        let line =
            b"42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 12345 99 9 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                comm: "a) b (c".into(),
                state: b'S',
                ppid: 7,
                threads: 3,
                start_ticks: 12345
            }
        );
    }

    #[test]
    fn garbage_is_no_stat_line() {
        for line in [
            &b""[..],
            b"(",
            b")",
            b")(",
            b"1 (x",
            b"1 (x)",
            b"1 (x) S",
            b"1 (x) S y",
            b"1 (x) S 1 2 3",
            b"\xff(\xff)\xff",
        ] {
            assert_eq!(Stat::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn half_an_argument_is_none() {
        assert_eq!(split_argv(b""), Vec::<String>::new());
        assert_eq!(split_argv(b"\0"), Vec::<String>::new());
        assert_eq!(split_argv(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(split_argv(b"title without an end"), ["title without an end"]);
        let mut long = b"a\0".to_vec();
        long.resize(ARGV_BYTES + 1, b'x');
        assert_eq!(split_argv(&long), ["a"]);
        // An argument that ends exactly at the limit is whole.
        let mut exact = b"a\0".to_vec();
        exact.resize(ARGV_BYTES - 1, b'x');
        exact.extend(b"\0y");
        assert_eq!(split_argv(&exact).len(), 2);
    }

    #[test]
    fn units_are_named_after_their_cgroup() {
        for (path, unit) in [
            ("/system.slice/redis.service", Some("redis.service")),
            ("/system.slice/redis.service/x", Some("redis.service")),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
                Some("a.service"),
            ),
            ("/", None),
            ("/system.slice", None),
            ("/.service", None),
            ("", None),
        ] {
            assert_eq!(unit_of_cgroup(path).as_deref(), unit, "{path}");
        }
        assert_eq!(cgroup_path("9:name=systemd:/a\n0::/b\n"), Some("/b"));
        assert_eq!(cgroup_path("9:name=systemd:/a\n0::/\n"), Some("/a"));
        assert_eq!(cgroup_path("9:name=systemd:/a\n"), Some("/a"));
        assert_eq!(cgroup_path("9:pids:/a\n"), None);
    }

    #[test]
    fn this_process_is_read_whole() {
        let me = read(std::process::id()).unwrap().unwrap();
        assert_eq!(me.id.pid, std::process::id());
        assert_eq!(identity(me.id.pid), Some(me.id));
        assert_eq!(me.parent, parent(me.id));
        assert_eq!(me.parent.unwrap().pid, std::os::unix::process::parent_id());
        assert_eq!(me.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(me.exe_id, path::file_id(&std::env::current_exe().unwrap()).ok());
        assert_eq!(me.argv[0], std::env::args().next().unwrap());
        assert_eq!(me.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(all_pids().unwrap().contains(&me.id.pid));
        assert!(crate::clock::now() > me.start);
    }

    #[test]
    fn a_thread_is_no_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = stopped.recv();
        });
        let tid = told.recv().unwrap() as u32;
        assert!(Path::new(&format!("/proc/{tid}/stat")).exists());
        assert_eq!(read(tid).unwrap(), None);
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn a_replaced_executable_keeps_its_path() {
        let _alone = alone();
        let dir = TempDir::new("exe");
        let exe = dir.path().join("a) (b");
        fs::copy("/bin/sleep", &exe).unwrap();
        let mut command = Command::new(&exe);
        command
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = KillOnDrop(command.spawn().unwrap());
        let pid = child.0.id();
        until("its arguments are there", || {
            read(pid).unwrap().is_some_and(|p| p.argv.len() == 2)
        });
        let before = read(pid).unwrap().unwrap();
        fs::remove_file(&exe).unwrap();
        let after = read(pid).unwrap().unwrap();
        assert_eq!((before.exe_deleted, after.exe_deleted), (false, true));
        assert_eq!(before.comm, "a) (b");
        assert_eq!(after.exe.as_deref(), exe.to_str());
        assert_eq!(after.exe_id, before.exe_id);
        assert_eq!(after.argv[1], "1000");
        assert!(children(read(std::process::id()).unwrap().unwrap().id).contains(&after.id));
        let mut child = child;
        child.0.kill().unwrap();
        // A zombie until it is waited for.
        until("the child is a zombie", || identity(pid).is_none());
        assert_eq!(read(pid).unwrap(), None);
        child.0.wait().unwrap();
        assert_eq!(read(pid).unwrap(), None);
    }
}
