//! The engine by itself, fed from memory.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::ensure;
use probe_user::{
    clock::{self, Nanos},
    config::{Config, Service},
    engine::{Effect, Engine},
    event::{
        Disposition, Event, ProcId, Process, SignalResult, SignalSent, Snapshot, SnapshotReason, TimeSource,
        What,
    },
    signal::Signal,
};

const SIGNALS: u64 = 1_000_000;

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

/// How many signals to a supervised process it judges in a second, as the kernel tells of them.
pub(super) fn signals_per_second() -> anyhow::Result<f64> {
    let mut service = Service::named("d");
    service.exe = Some("/usr/bin/d".into());
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let mut engine = Engine::new(config, &BTreeMap::new());
    let daemon = process(100, "/usr/bin/d");
    let sender = Arc::new(process(200, "/usr/bin/kill"));
    let mut now = Nanos(10_000_000_000);
    let event = |at, what| Event {
        at,
        time_source: TimeSource::Kernel,
        what,
    };
    let first = Snapshot {
        began: now,
        reason: SnapshotReason::Start,
        processes: vec![daemon.clone()],
        addresses: Vec::new(),
        pid_files: Vec::new(),
    };
    engine.apply(event(now, What::Snapshot(first)), now);
    let mut told = 0;
    let began = clock::now();
    for _ in 0..SIGNALS {
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
        told += effects.iter().filter(|e| matches!(e, Effect::Show(_))).count();
    }
    let took = clock::now().since(began);
    ensure!(told as u64 == SIGNALS, "{told} of {SIGNALS} signals were shown");
    Ok(SIGNALS as f64 / took.as_secs_f64())
}
