//! Events: as the kernel's records tell them, and as recordings do.

use std::sync::LazyLock;

use super::lines::Lines;
use crate::{
    clock::Nanos,
    config::{Config, Service},
    engine::Engine,
    event::{Event, TimeSource, What},
    kernel::decode,
    trace::Reader,
};

/// Events of one input.
const EVENTS: usize = 512;
/// Bytes of one.
const RECORDING: usize = 1 << 20;

/// The first event that an engine is told: there is nothing else yet.
pub(super) fn begin() -> Event {
    Event {
        at: Nanos(1),
        time_source: TimeSource::Observed,
        what: What::Lost {
            source: "ring".into(),
            count: 1,
        },
    }
}

static DECLARED: LazyLock<Config> = LazyLock::new(|| Config {
    services: vec![Service {
        exe: Some("/usr/bin/redis-server".into()),
        listen: ["unix:/run/redis.sock", "tcp:6379", "unix:@redis"]
            .iter()
            .filter_map(|a| a.parse().ok())
            .collect(),
        pid_file: Some("/run/redis.pid".into()),
        unit: Some("redis.service".into()),
        ..Service::named("redis")
    }],
    ..Config::default()
});

/// Records, each behind its length (16 bits, little-endian).
pub(super) fn ring(bytes: &[u8]) {
    let mut engine = Engine::new(DECLARED.clone(), &Default::default());
    let mut lines = Lines::new();
    for record in records(bytes).take(EVENTS) {
        // As in the ring buffer: on a boundary of eight bytes.
        let mut room = vec![0_u64; record.len().div_ceil(8) + 1];
        let room: &mut [u8] = zerocopy::IntoBytes::as_mut_bytes(room.as_mut_slice());
        let aligned = &mut room[..record.len()];
        aligned.copy_from_slice(record);
        _ = decode::socket_file(aligned);
        let Ok(event) = decode::decode(aligned) else {
            continue;
        };
        if !is_declared(&event.what) {
            continue;
        }
        let json = serde_json::to_string(&event).unwrap_or_default();
        let again = serde_json::from_str::<Event>(&json);
        assert!(
            again.as_ref().is_ok_and(|again| *again == event),
            "a recording would tell another event: {json}, {again:?}"
        );
        let now = event.at;
        for effect in engine.apply(event, now) {
            lines.check(&effect);
        }
        _ = engine.deadline();
    }
}

/// The kernel tells of declared addresses only, and of names of socket files that the runtime finds to mean a declared path.
fn is_declared(what: &What) -> bool {
    let (What::Bind { address, .. } | What::Listen { address, .. } | What::Unlisten { address, .. }) = what
    else {
        return true;
    };
    DECLARED.services.iter().any(|s| s.listen.contains(address))
}

pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let ([low, high], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (record, rest) = rest.split_at(length);
        bytes = rest;
        Some(record)
    })
}

pub(super) fn trace(bytes: &[u8]) {
    if bytes.len() > RECORDING {
        return;
    }
    let Ok(mut reader) = Reader::new(bytes) else {
        return;
    };
    let header = reader.header();
    let mut engine = Engine::new(header.config.clone(), &header.exes);
    let mut lines = Lines::new();
    for _ in 0..EVENTS {
        let Ok(Some(entry)) = reader.next_entry() else {
            break;
        };
        for effect in engine.apply(entry.event, entry.now) {
            lines.check(&effect);
        }
        _ = engine.deadline();
    }
}
