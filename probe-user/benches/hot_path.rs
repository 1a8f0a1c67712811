//! What happens to every event: decoded, judged, and read back from a recording. `cargo bench -p probe-user` measures;
//! `cargo test -p probe-user --bench hot_path` runs each once, without a limit on time.

use std::{collections::BTreeMap, fs, io::BufReader, path::Path, sync::Arc};

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use probe_abi::{Header, RecordKind, SignalRecord, Task};
use probe_user::{
    clock::Nanos,
    config::{Config, Service},
    engine::{Effect, Engine},
    event::{
        Disposition, Event, ProcId, Process, SignalResult, SignalSent, Snapshot, SnapshotReason, TimeSource,
        What,
    },
    kernel::decode::decode,
    signal::Signal,
    trace::Reader,
};
use zerocopy::{FromBytes, IntoBytes};

fn main() {
    divan::main();
}

fn zeroed<T: FromBytes>() -> T {
    T::read_from_bytes(&vec![0; size_of::<T>()]).expect("as many bytes as it has")
}

fn task(pid: u32, comm: &str) -> Task {
    let mut task = Task {
        pid,
        ppid: 1,
        start: 123_456_789_000,
        exe_ino: 9,
        ..zeroed()
    };
    task.comm[..comm.len()].copy_from_slice(comm.as_bytes());
    task
}

#[divan::bench]
fn decode_a_signal(bencher: Bencher<'_, '_>) {
    let record = SignalRecord {
        header: Header {
            kind: RecordKind::Signal as u32,
            cpu: 0,
            at: 77,
        },
        target: task(42, "annad"),
        signal: 1,
        has_sender: 1,
        sender: task(43, "kill"),
        handler: 0xffff,
        ..zeroed()
    };
    let bytes = record.as_bytes();
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench(|| decode(divan::black_box(bytes)).expect("a signal"));
}

fn process(pid: u32, exe: &str) -> Process {
    let start = Nanos(1_000_000_000);
    Process {
        id: ProcId::new(pid, start),
        start,
        parent: Some(ProcId {
            pid: 1,
            start_ticks: 1,
        }),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        uid: Some(0),
        exe: Some(exe.to_owned()),
        exe_deleted: false,
        exe_id: None,
        argv: vec![exe.to_owned()],
        unit: None,
    }
}

/// One of so many declared services runs, and is sent signals.
#[divan::bench(args = [1, 100, 10_000])]
fn judge_a_signal(bencher: Bencher<'_, '_>, services: usize) {
    let declared = (0..services).map(|n| {
        let mut service = Service::named(format!("s{n}"));
        service.exe = Some(format!("/usr/bin/s{n}"));
        service
    });
    let config = Config {
        services: declared.collect(),
        ..Config::default()
    };
    let mut engine = Engine::new(config, &BTreeMap::new());
    let daemon = process(100, &format!("/usr/bin/s{}", services - 1));
    let sender = Arc::new(process(200, "/usr/bin/kill"));
    let mut now = Nanos(10_000_000_000);
    let first = What::Snapshot(Snapshot {
        began: now,
        reason: SnapshotReason::Start,
        processes: vec![daemon.clone()],
        addresses: Vec::new(),
        pid_files: Vec::new(),
    });
    let event = |at, what| Event {
        at,
        time_source: TimeSource::Kernel,
        what,
    };
    engine.apply(event(now, first), now);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        now = Nanos(now.0 + 1_000);
        let sent = SignalSent {
            target: daemon.clone(),
            signal: Signal::HUP,
            code: 0,
            result: SignalResult::Queued,
            disposition: Disposition::Caught,
            fault_addr: None,
            actor: Some(Arc::clone(&sender)),
        };
        let effects = engine.apply(event(now, What::Signal(sent)), now);
        assert!(effects.iter().any(|e| matches!(e, Effect::Show(_))));
        effects
    });
}

#[divan::bench]
fn read_a_recording(bencher: Bencher<'_, '_>) {
    let name =
        "../tests/traces/redis.kill_9_leaves_a_stale_socket_and_a_stale_pid_file_known_within_50_ms.jsonl";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let bytes = fs::read(&file).expect("the recording");
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut reader = Reader::new(BufReader::new(&bytes[..])).expect("a header");
        let mut events = 0;
        while reader.next_entry().expect("an event").is_some() {
            events += 1;
        }
        assert!(events > 0);
        events
    });
}
