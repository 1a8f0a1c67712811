//! The corpora, as plain tests: what fuzzing has found stays found.

use std::{fs, path::PathBuf};

use probe_abi::RecordKind;

use super::{TARGETS, run, trace::records};
use crate::kernel::decode;

fn corpora() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "corpus"]
        .iter()
        .collect()
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = corpora().join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut found: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    found.sort();
    found
}

/// Every seed, its beginnings, and the seed with single bytes changed.
fn read_corpus(name: &str) {
    let seeds = corpus(name);
    assert!(
        seeds.len() >= 3,
        "the corpus of {name} has only {} seeds",
        seeds.len()
    );
    for (path, bytes) in seeds {
        println!("{}", path.display());
        run(name, &bytes);
        // Some hundred variants of each, spread over its length.
        let step = (bytes.len() / 100).max(1);
        for at in (0..bytes.len()).step_by(step) {
            run(name, &bytes[..at]);
            for value in [0x00, 0x0a, 0x1b, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                run(name, &changed);
            }
        }
    }
}

macro_rules! corpora {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            read_corpus(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

corpora! { api_request btf configuration journal netlink notify pid_file proc ring trace }

#[test]
fn every_target_has_its_corpus_its_program_and_its_test() {
    let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
    assert_eq!(names, TESTED);
    let mut found: Vec<_> = fs::read_dir(corpora())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, names);
    for name in names {
        let program = corpora().join(format!("../fuzz_targets/{name}.rs"));
        assert!(program.is_file(), "{} is missing", program.display());
    }
}

#[test]
fn the_corpus_of_the_ring_has_a_record_of_every_kind_that_is_understood() {
    let mut kinds: Vec<u32> = Vec::new();
    for (_, bytes) in corpus("ring") {
        for record in records(&bytes) {
            let mut room = vec![0_u64; record.len().div_ceil(8)];
            let room: &mut [u8] = zerocopy::IntoBytes::as_mut_bytes(room.as_mut_slice());
            room[..record.len()].copy_from_slice(record);
            if decode::decode(&room[..record.len()]).is_ok() {
                kinds.push(u32::from_ne_bytes(record[..4].try_into().unwrap()));
            }
        }
    }
    for kind in RecordKind::ALL {
        assert!(
            kinds.contains(&(kind as u32)),
            "no {} record in fuzz/corpus/ring: `cargo test -p probe-user seeds_of_the_ring -- --ignored` writes them anew",
            kind.name()
        );
    }
}

/// Writes one seed for each kind of record, after the interface with the kernel has changed.
#[test]
#[ignore = "writes into the corpus"]
fn seeds_of_the_ring() {
    use probe_abi::{ExecRecord, ExitRecord, ForkRecord, InetRecord, OomRecord, SignalRecord, UnixRecord};

    let hostile = b"\x1b[2J\n\xff'\"`";
    let padded = |size: usize, at: &[(usize, &[u8])]| {
        let mut bytes = vec![0_u8; size];
        for (at, piece) in at {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        bytes
    };
    for kind in RecordKind::ALL {
        let number = (kind as u32).to_ne_bytes();
        let time = 77_000_000_000_u64.to_ne_bytes();
        let head: [(usize, &[u8]); 2] = [(0, &number), (8, &time)];
        let task = size_of::<probe_abi::Header>();
        let pid = 42_u32.to_ne_bytes();
        let comm = task + std::mem::offset_of!(probe_abi::Task, comm);
        let common = [
            head[0],
            head[1],
            (task + std::mem::offset_of!(probe_abi::Task, pid), &pid),
            (comm, hostile),
        ];
        let record = match kind {
            RecordKind::Exec => padded(size_of::<ExecRecord>(), &common),
            RecordKind::Fork => padded(size_of::<ForkRecord>(), &common),
            RecordKind::Exit => padded(size_of::<ExitRecord>(), &common),
            RecordKind::Signal => {
                let usr1 = 10_u32.to_ne_bytes();
                let mut at = common.to_vec();
                at.push((std::mem::offset_of!(SignalRecord, signal), &usr1));
                padded(size_of::<SignalRecord>(), &at)
            }
            RecordKind::Oom => padded(size_of::<OomRecord>(), &common),
            RecordKind::InetListen
            | RecordKind::InetUnlisten
            | RecordKind::InetBind
            | RecordKind::InetRelease
            | RecordKind::InetBound => {
                let (family, protocol, port) =
                    (2_u16.to_ne_bytes(), 6_u16.to_ne_bytes(), 6379_u16.to_ne_bytes());
                let mut at = common.to_vec();
                at.push((std::mem::offset_of!(InetRecord, family), &family));
                at.push((std::mem::offset_of!(InetRecord, protocol), &protocol));
                at.push((std::mem::offset_of!(InetRecord, port), &port));
                padded(size_of::<InetRecord>(), &at)
            }
            _ => {
                let name = b"/run/redis.sock";
                let length = (name.len() as u32).to_ne_bytes();
                let mut at = common.to_vec();
                at.push((std::mem::offset_of!(UnixRecord, name), name));
                at.push((std::mem::offset_of!(UnixRecord, name_len), &length));
                padded(size_of::<UnixRecord>(), &at)
            }
        };
        let length = u16::try_from(record.len()).unwrap().to_le_bytes();
        let bytes = [&length[..], &record].concat();
        fs::write(corpora().join("ring").join(kind.name()), bytes).unwrap();
    }
}
