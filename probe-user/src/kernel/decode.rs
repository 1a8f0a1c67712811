//! Records of the kernel, as events. Total: whatever the bytes are, there is an event or an error.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
};

use probe_abi::{
    ExePath, ExecRecord, ExitRecord, ForkRecord, Header, InetRecord, OomRecord, RecordKind, SignalRecord,
    Task, UnixRecord,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{
    address::{Address, Inet},
    clock::Nanos,
    event::{
        Disposition, Event, ExitStatus, FileId, ProcId, Process, SignalResult, SignalSent, SocketId,
        TimeSource, What,
    },
    signal::Signal,
    sources::sock_diag::abstract_name,
};

/// `SOCK_DGRAM`: a bound one serves, there is nothing to listen for.
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
/// `_NSIG`
const SIGNALS: i32 = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record has {found} bytes, expected {expected} for {what}")]
    Size {
        what: &'static str,
        expected: usize,
        found: usize,
    },
    #[error("a record is of kind {0}, which is not known")]
    Kind(u32),
    #[error(
        "a record of a socket has family {family} and protocol {protocol}, expected TCP or UDP over IPv4 or IPv6"
    )]
    Socket { family: u16, protocol: u16 },
    #[error("a record of a UNIX socket has no name")]
    NoName,
    #[error("a record of a signal has number {0}, expected 1 to {SIGNALS}")]
    Signal(u32),
}

/// # Errors
/// If the bytes are no record of the interface that this was built with.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
        return Err(DecodeError::Size {
            what: "header",
            expected: size_of::<Header>(),
            found: bytes.len(),
        });
    };
    let kind = RecordKind::from_raw(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    let what = match kind {
        RecordKind::Exec => exec(record(kind, bytes)?),
        RecordKind::Fork => What::Fork {
            child: process(&record::<ForkRecord>(kind, bytes)?.task, None),
        },
        RecordKind::Exit => exit(record(kind, bytes)?)?,
        RecordKind::Signal => What::Signal(signal(record(kind, bytes)?)?),
        RecordKind::Oom => oom(record(kind, bytes)?),
        RecordKind::InetListen | RecordKind::InetBind => {
            let record: &InetRecord = record(kind, bytes)?;
            let (address, socket, inode) = socket(record)?;
            let netns = (record.netns != 0).then_some(record.netns);
            What::Listen {
                address,
                process: process(&record.task, None),
                socket,
                inode,
                netns,
            }
        }
        RecordKind::InetUnlisten | RecordKind::InetRelease => {
            let record: &InetRecord = record(kind, bytes)?;
            let (address, socket, inode) = socket(record)?;
            let netns = (record.netns != 0).then_some(record.netns);
            What::Unlisten {
                address,
                socket,
                inode,
                netns,
            }
        }
        RecordKind::InetBound => {
            let record: &InetRecord = record(kind, bytes)?;
            let (address, socket, inode) = socket(record)?;
            What::Bind {
                address,
                process: process(&record.task, None),
                socket,
                inode,
                error: errno(record.error),
                netns: (record.netns != 0).then_some(record.netns),
            }
        }
        RecordKind::UnixBind
        | RecordKind::UnixListen
        | RecordKind::UnixRelease
        | RecordKind::UnixShutdown => unix(kind, record(kind, bytes)?)?,
    };
    Ok(Event {
        at: Nanos(header.at),
        time_source: TimeSource::Kernel,
        what,
    })
}

fn record<T: FromBytes + KnownLayout + Immutable>(kind: RecordKind, bytes: &[u8]) -> Result<&T, DecodeError> {
    T::ref_from_bytes(bytes).map_err(|_| DecodeError::Size {
        what: kind.name(),
        expected: size_of::<T>(),
        found: bytes.len(),
    })
}

fn exec(record: &ExecRecord) -> What {
    let mut process = process(&record.task, Some(&record.exe));
    let used = (record.argv_len as usize).min(record.argv.len());
    let argv = &record.argv[..used];
    // The last argument ends with a NUL of its own, unless the vector was cut.
    let argv = argv.strip_suffix(b"\0").unwrap_or(argv);
    if !argv.is_empty() {
        process.argv = argv.split(|b| *b == 0).map(lossy).collect();
    }
    What::Exec { process }
}

fn exit(record: &ExitRecord) -> Result<What, DecodeError> {
    let status = ExitStatus::from_wait(record.status);
    if let ExitStatus::Signal { signal, .. } = status
        && signal.0 > SIGNALS
    {
        return Err(DecodeError::Signal(record.status & 0x7f));
    }
    let held = record.listener_inodes.get(..record.listeners as usize);
    let complete = record.listeners_cut == 0 && record.listeners == record.listeners_seen;
    Ok(What::Exit {
        process: process(&record.task, None),
        status,
        listeners: held.filter(|_| complete).map(<[u64]>::to_vec),
    })
}

fn signal(record: &SignalRecord) -> Result<SignalSent, DecodeError> {
    let signal = i32::try_from(record.signal).ok();
    let signal = signal.filter(|n| (1..=SIGNALS).contains(n)).map(Signal);
    let signal = signal.ok_or(DecodeError::Signal(record.signal))?;
    Ok(SignalSent {
        target: process(&record.target, None),
        signal,
        code: record.code,
        result: match record.result {
            0 => SignalResult::Queued,
            1 => SignalResult::Ignored,
            2 => SignalResult::AlreadyPending,
            3 => SignalResult::Overflow,
            _ => SignalResult::InfoLost,
        },
        disposition: disposition(signal, record.handler, record.blocked),
        fault_addr: (record.fault_addr != 0).then_some(record.fault_addr),
        actor: (record.has_sender != 0).then(|| Arc::new(process(&record.sender, Some(&record.sender_exe)))),
    })
}

/// A blocked signal waits, whatever would become of it. KILL and STOP can't be blocked.
fn disposition(signal: Signal, handler: u64, blocked: u64) -> Disposition {
    let bit = u32::try_from(signal.0 - 1)
        .ok()
        .and_then(|n| 1_u64.checked_shl(n))
        .unwrap_or(0);
    match handler {
        _ if signal == Signal::KILL || signal == Signal::STOP => Disposition::Default,
        _ if blocked & bit != 0 => Disposition::Blocked,
        0 => Disposition::Default,
        1 => Disposition::Ignored,
        _ => Disposition::Caught,
    }
}

fn oom(record: &OomRecord) -> What {
    // A per-CPU counter can be a little below zero.
    let pages = [record.anon_rss, record.file_rss, record.shmem_rss]
        .into_iter()
        .map(|n| u64::try_from(n as i64).unwrap_or(0))
        .fold(0_u64, u64::saturating_add);
    let rss = pages.saturating_mul(rustix::param::page_size() as u64);
    What::Oom {
        victim: process(&record.task, None),
        rss: (rss != 0).then_some(rss),
    }
}

fn socket(record: &InetRecord) -> Result<(Address, Option<SocketId>, Option<u64>), DecodeError> {
    let unknown = DecodeError::Socket {
        family: record.family,
        protocol: record.protocol,
    };
    let [a, b, c, d, ..] = record.addr;
    let ip = match i32::from(record.family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(record.addr)).to_canonical(),
        _ => return Err(unknown),
    };
    let inet = Inet {
        ip: Some(ip),
        port: record.port,
    };
    let address = match record.protocol {
        IPPROTO_TCP => Address::Tcp(inet),
        IPPROTO_UDP => Address::Udp(inet),
        _ => return Err(unknown),
    };
    let known = |n: u64| (n != 0).then_some(n);
    Ok((address, known(record.cookie).map(SocketId), known(record.inode)))
}

fn errno(error: i32) -> Option<i32> {
    (error != 0).then_some(error.saturating_neg())
}

/// A path as it was given to bind: it can be relative.
fn unix(kind: RecordKind, record: &UnixRecord) -> Result<What, DecodeError> {
    let name = record
        .name
        .get(..record.name_len as usize)
        .unwrap_or(&record.name);
    let address = match name {
        [] => return Err(DecodeError::NoName),
        [0, name @ ..] => Address::Abstract(abstract_name(name)),
        path => {
            let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
            Address::Unix(Path::new(OsStr::from_bytes(&path[..end])).components().collect())
        }
    };
    let known = |n: u64| (n != 0).then_some(n);
    let (socket, inode) = (known(record.cookie).map(SocketId), known(record.inode));
    let process = process(&record.task, None);
    Ok(match kind {
        RecordKind::UnixListen => What::Listen {
            address,
            process,
            socket,
            inode,
            netns: None,
        },
        RecordKind::UnixBind if record.error == 0 && record.sock_type == SOCK_DGRAM => What::Listen {
            address,
            process,
            socket,
            inode,
            netns: None,
        },
        RecordKind::UnixBind => What::Bind {
            address,
            process,
            socket,
            inode,
            error: errno(record.error),
            netns: None,
        },
        _ => What::Unlisten {
            address,
            socket,
            inode,
            // A path is one for all namespaces; of an abstract name the look that follows tells.
            netns: None,
        },
    })
}

/// The file that the socket of a record is bound to, with its whole inode number.
pub fn socket_file(bytes: &[u8]) -> Option<FileId> {
    let (header, _) = Header::ref_from_prefix(bytes).ok()?;
    let of_unix = matches!(
        RecordKind::from_raw(header.kind)?,
        RecordKind::UnixBind | RecordKind::UnixListen | RecordKind::UnixRelease | RecordKind::UnixShutdown
    );
    let record = UnixRecord::ref_from_bytes(bytes).ok().filter(|_| of_unix)?;
    (record.file_ino != 0).then_some(FileId {
        dev: record.file_dev,
        ino: record.file_ino,
    })
}

/// A process as a record describes it, with the path of its executable where there is one.
pub fn process(task: &Task, exe: Option<&ExePath>) -> Process {
    Process {
        id: ProcId::new(task.pid, Nanos(task.start)),
        start: Nanos(task.start),
        parent: (task.ppid != 0).then(|| ProcId::new(task.ppid, Nanos(task.parent_start))),
        comm: text(&task.comm),
        // A record that knows only the pid has no start time either.
        uid: (task.start != 0).then_some(task.uid),
        exe: exe.and_then(path),
        exe_deleted: false,
        exe_id: (task.exe_ino != 0).then_some(FileId {
            dev: task.exe_dev,
            ino: task.exe_ino,
        }),
        argv: Vec::new(),
        unit: unit(&task.cgroup_name).or_else(|| unit(&task.cgroup_parent_name)),
    }
}

/// `None` where the path is deeper than a record holds, or where a component was cut: half a path is another path.
fn path(exe: &ExePath) -> Option<String> {
    let components = exe.components.get(..exe.depth as usize)?;
    if exe.complete == 0 || components.is_empty() || components.iter().any(|c| !c.contains(&0)) {
        return None;
    }
    Some(
        components
            .iter()
            .rev()
            .fold(String::new(), |path, c| path + "/" + &text(c)),
    )
}

/// A cgroup's name, if systemd runs processes directly in units of its type.
fn unit(name: &[u8]) -> Option<String> {
    let name = text(name);
    let (stem, kind) = name.rsplit_once('.')?;
    (!stem.is_empty() && matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")).then_some(name)
}

/// Up to the first NUL; what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    lossy(bytes.split(|b| *b == 0).next().unwrap_or_default())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn zeroed<T: FromBytes>() -> T {
        T::read_from_bytes(&vec![0; size_of::<T>()]).unwrap()
    }

    fn padded<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    fn header(kind: RecordKind) -> Header {
        Header {
            kind: kind as u32,
            cpu: 0,
            at: 77,
        }
    }

    fn task() -> Task {
        Task {
            pid: 42,
            ppid: 1,
            start: 123_456_789_000,
            comm: padded("redis-server"),
            cgroup_name: padded("redis.service"),
            exe_ino: 9,
            exe_dev: 8 << 20 | 1,
            ..zeroed()
        }
    }

    #[test]
    fn an_exec_tells_path_and_arguments() {
        let mut exe: ExePath = zeroed();
        (exe.depth, exe.complete) = (3, 1);
        exe.components[0] = padded("redis-server");
        exe.components[1] = padded("bin");
        exe.components[2] = padded("usr");
        let mut record = ExecRecord {
            header: header(RecordKind::Exec),
            task: task(),
            exe,
            ..zeroed()
        };
        record.argv[..9].copy_from_slice(b"redis\0-x\0");
        (record.argv_len, record.argv_total) = (9, 9);
        let event = decode(record.as_bytes()).unwrap();
        assert_eq!(event.at, Nanos(77));
        let What::Exec { process } = event.what else {
            panic!("{event:?}")
        };
        assert_eq!(process.exe.as_deref(), Some("/usr/bin/redis-server"));
        assert_eq!(process.argv, ["redis", "-x"]);
        assert_eq!(process.unit.as_deref(), Some("redis.service"));
        assert_eq!(
            process.id,
            ProcId {
                pid: 42,
                start_ticks: 12_345
            }
        );

        record.exe.components[1] = [b'x'; 32];
        let What::Exec { process } = decode(record.as_bytes()).unwrap().what else {
            panic!()
        };
        assert_eq!(process.exe, None, "a cut component is no path");
    }

    #[test]
    fn an_exit_knows_its_listeners_or_says_that_it_does_not() {
        let mut record = ExitRecord {
            header: header(RecordKind::Exit),
            task: task(),
            status: 9,
            ..zeroed()
        };
        let listeners = |record: &ExitRecord| match decode(record.as_bytes()).unwrap().what {
            What::Exit { listeners, .. } => listeners,
            what => panic!("{what:?}"),
        };
        assert_eq!(listeners(&record), Some(vec![]));
        record.listener_inodes[0] = 5;
        (record.listeners, record.listeners_seen) = (1, 1);
        assert_eq!(listeners(&record), Some(vec![5]));
        record.listeners_seen = 2;
        assert_eq!(listeners(&record), None);
        (record.listeners, record.listeners_seen) = (99, 99);
        assert_eq!(listeners(&record), None);
        (record.listeners, record.listeners_seen, record.listeners_cut) = (1, 1, 1);
        assert_eq!(listeners(&record), None);
    }

    #[test]
    fn a_signal_of_the_kernel_has_no_actor() {
        let mut record = SignalRecord {
            header: header(RecordKind::Signal),
            target: task(),
            signal: 15,
            ..zeroed()
        };
        let sent = |record: &SignalRecord| match decode(record.as_bytes()).unwrap().what {
            What::Signal(sent) => sent,
            what => panic!("{what:?}"),
        };
        assert_eq!(sent(&record).actor, None);
        assert_eq!(sent(&record).disposition, Disposition::Default);
        record.has_sender = 1;
        record.sender = task();
        record.handler = 0xffff;
        assert_eq!(sent(&record).actor.unwrap().id.pid, 42);
        assert_eq!(sent(&record).disposition, Disposition::Caught);
        record.blocked = 1 << 14;
        assert_eq!(sent(&record).disposition, Disposition::Blocked);
        (record.signal, record.blocked) = (9, u64::MAX);
        assert_eq!(sent(&record).disposition, Disposition::Default);
    }

    #[test]
    fn ports_become_addresses() {
        let mut record = InetRecord {
            header: header(RecordKind::InetListen),
            family: libc::AF_INET as u16,
            protocol: IPPROTO_TCP,
            port: 80,
            cookie: 7,
            netns: 4_026_531_840,
            ..zeroed()
        };
        record.addr[..4].copy_from_slice(&[127, 0, 0, 1]);
        let What::Listen {
            address,
            socket,
            inode,
            netns,
            ..
        } = decode(record.as_bytes()).unwrap().what
        else {
            panic!()
        };
        assert_eq!(
            (address.to_string().as_str(), socket, inode),
            ("tcp:127.0.0.1:80", Some(SocketId(7)), None)
        );
        assert_eq!(netns, Some(4_026_531_840));
        record.protocol = 132;
        assert_eq!(
            decode(record.as_bytes()),
            Err(DecodeError::Socket {
                family: 2,
                protocol: 132
            })
        );
    }

    #[test]
    fn a_failed_bind_has_its_error_and_a_name_its_end() {
        let mut record = UnixRecord {
            header: header(RecordKind::UnixBind),
            task: task(),
            error: -98,
            name_len: 12,
            name: padded("/run//a.sock\0rest"),
            ..zeroed()
        };
        let bind = |record: &UnixRecord| match decode(record.as_bytes()).unwrap().what {
            What::Bind { address, error, .. } => (address.to_string(), error),
            what => panic!("{what:?}"),
        };
        assert_eq!(bind(&record), ("unix:/run/a.sock".to_owned(), Some(98)));
        (record.error, record.name_len) = (0, 14);
        assert_eq!(bind(&record), ("unix:/run/a.sock".to_owned(), None));
        (record.name, record.name_len) = (padded("\0name"), 5);
        assert_eq!(bind(&record), ("unix:@name".to_owned(), None));
        record.name_len = u32::MAX;
        assert!(decode(record.as_bytes()).is_ok());
        record.name_len = 0;
        assert_eq!(decode(record.as_bytes()), Err(DecodeError::NoName));
        (record.file_ino, record.file_dev) = (7, 1);
        assert_eq!(socket_file(record.as_bytes()), Some(FileId { dev: 1, ino: 7 }));
    }

    #[test]
    fn any_bytes_end_in_an_event_or_an_error() {
        // Deterministic noise: every kind, every length near the right ones.
        let mut state = 1_u64;
        let mut noise = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for kind in 0..17_u32 {
            for len in (0..32).chain([
                224,
                272,
                288,
                368,
                744,
                1008,
                1009,
                size_of::<UnixRecord>(),
                size_of::<InetRecord>(),
                4096,
            ]) {
                let mut bytes: Vec<u8> = (0..len).map(|_| noise()).collect();
                if let Some(start) = bytes.get_mut(..4) {
                    start.copy_from_slice(&kind.to_ne_bytes());
                }
                let _ = decode(&bytes);
                let _ = socket_file(&bytes);
            }
        }
        assert_eq!(
            decode(&[]),
            Err(DecodeError::Size {
                what: "header",
                expected: 16,
                found: 0
            })
        );
        assert_eq!(decode(&[0; 16]), Err(DecodeError::Kind(0)));
        let short = header(RecordKind::Fork);
        assert!(matches!(
            decode(short.as_bytes()),
            Err(DecodeError::Size {
                what: "fork",
                found: 16,
                ..
            })
        ));
    }
}
