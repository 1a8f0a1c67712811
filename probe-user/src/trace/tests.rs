use std::time::Duration;

use super::*;
use crate::{
    config::Service,
    event::{TimeSource, UnitJob, UnitState, What},
};

fn header() -> Header {
    Header {
        v: VERSION,
        r#type: HeaderType::Trace,
        probe: "0.1.0".into(),
        epoch: "e1".into(),
        wall_offset_ns: 1_700_000_000_000_000_000,
        kernel: "6.18.0".into(),
        tier: [("signal".to_owned(), "tracepoint".to_owned())].into(),
        config: Config {
            services: vec![Service {
                listen: vec!["unix:/run/a.sock".parse().unwrap()],
                ..Service::named("a")
            }],
            ..Config::default()
        },
        exes: [(
            "/usr/bin/a".to_owned(),
            FileId {
                dev: 8 << 20 | 1,
                ino: 42,
            },
        )]
        .into(),
    }
}

fn event(at: u64, what: What) -> Event {
    Event {
        at: Nanos(at),
        time_source: TimeSource::Kernel,
        what,
    }
}

fn events() -> Vec<Event> {
    vec![
        event(5, What::SocketClosed { inode: 7 }),
        event(
            6,
            What::Lost {
                source: "ring".into(),
                count: 3,
            },
        ),
        event(7, What::Timer),
    ]
}

fn recorded() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, &header()).unwrap();
    for e in events() {
        writer.write(Nanos(e.at.0 + 1), &e).unwrap();
    }
    writer.finish().unwrap();
    out
}

fn read(trace: &[u8]) -> Result<Vec<(Event, Nanos)>, TraceError> {
    let mut reader = Reader::new(trace)?;
    std::iter::from_fn(|| reader.next_entry().transpose())
        .map(|e| e.map(|e| (e.event, e.now)))
        .collect()
}

/// What the engine says, and how the replay ended.
fn run(trace: &[u8]) -> Result<(Vec<Effect>, Replayed), TraceError> {
    let mut reader = Reader::new(trace)?;
    let mut engine = Engine::new(reader.header().config.clone(), &reader.header().exes);
    let mut seen = Vec::new();
    let replayed = replay(&mut reader, &mut engine, &mut |effect| {
        seen.push(effect.clone());
        Ok::<_, TraceError>(())
    })?;
    Ok((seen, replayed))
}

#[test]
fn what_was_recorded_is_replayed() {
    let trace = recorded();
    assert_eq!(Reader::new(&trace[..]).unwrap().header(), &header());
    let told: Vec<_> = events()
        .into_iter()
        .map(|e| (Nanos(e.at.0 + 1), e))
        .map(|(n, e)| (e, n))
        .collect();
    assert_eq!(read(&trace).unwrap(), told);
    let (seen, replayed) = run(&trace).unwrap();
    let lost = Effect::Lost {
        source: "ring".into(),
        count: 3,
    };
    assert!(seen.contains(&lost), "{seen:?}");
    assert_eq!(
        replayed,
        Replayed {
            events: 3,
            cut_off: false
        }
    );
}

#[test]
fn what_systemd_said_survives_a_round_trip() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, &header()).unwrap();
    let said = event(
        7,
        What::Unit(UnitState {
            unit: "a.service".into(),
            user: Some("alice".into()),
            main_pid: Some(50),
            active_state: "deactivating".into(),
            n_restarts: 2,
            job: Some(UnitJob {
                id: 812,
                kind: "stop".into(),
            }),
            error: Some("why".into()),
            ..UnitState::default()
        }),
    );
    writer.write(Nanos(8), &said).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&out).unwrap(), [(said, Nanos(8))]);
}

#[test]
fn two_recordings_of_the_same_are_the_same_bytes() {
    assert_eq!(recorded(), recorded());
}

#[test]
fn a_last_line_cut_off_anywhere_is_left_out() {
    let trace = recorded();
    let last = trace[..trace.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    for end in last + 1..trace.len() - 1 {
        let (_, replayed) = run(&trace[..end]).unwrap();
        assert_eq!(
            replayed,
            Replayed {
                events: 2,
                cut_off: true
            },
            "cut at byte {end}"
        );
    }
    // Only the line's end is missing: nothing of the event is.
    let (_, replayed) = run(&trace[..trace.len() - 1]).unwrap();
    assert_eq!(
        replayed,
        Replayed {
            events: 3,
            cut_off: false
        }
    );
}

#[test]
fn a_broken_line_is_named() {
    let mut trace = recorded();
    let first = trace.iter().position(|b| *b == b'\n').unwrap() + 1;
    trace[first] = b'?';
    let error = run(&trace).err().unwrap().to_string();
    assert!(
        error.starts_with("line 2 of the trace is no event: expected value"),
        "{error}"
    );
}

#[test]
fn another_version_is_refused() {
    let trace = String::from_utf8(recorded())
        .unwrap()
        .replacen("{\"v\":1,", "{\"v\":2,\"new\":true,", 1);
    let error = run(trace.as_bytes()).err().unwrap().to_string();
    assert_eq!(
        error,
        "the trace has format version 2, this probe reads version 1: replay it with the probe that recorded it"
    );
}

#[test]
fn what_is_no_trace_is_called_that() {
    for (text, expected) in [
        ("", "the trace is empty"),
        ("hello\n", "line 1 is not the header of a trace"),
        (
            "{\"v\":1,\"type\":\"event\"}\n",
            "line 1 is not the header of a trace: unknown variant `event`",
        ),
    ] {
        let error = run(text.as_bytes()).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let mut trace = recorded();
    trace.resize(trace.len() + MAX_LINE_BYTES + 1, b'x');
    assert!(matches!(run(&trace), Err(TraceError::LineTooLong { line: 5 })));
}

#[test]
fn a_configuration_that_no_file_could_declare_is_refused() {
    let mut header = header();
    header.config.probe.settle_every = Duration::ZERO;
    let mut trace = serde_json::to_vec(&header).unwrap();
    trace.push(b'\n');
    assert!(
        matches!(run(&trace), Err(TraceError::Config { line: 1, .. })),
        "the engine would take snapshots for ever"
    );
    // Nor may one take the place of another.
    let reload = event(
        5,
        What::Reload {
            config: Box::new(header.config),
            exes: Default::default(),
        },
    );
    let mut trace = recorded();
    let entry = Entry {
        now: Nanos(5),
        event: reload,
    };
    trace.extend(serde_json::to_vec(&entry).unwrap());
    trace.push(b'\n');
    assert!(matches!(run(&trace), Err(TraceError::Config { line: 5, .. })));
}

#[test]
fn a_file_is_emptied_private_and_no_link() {
    let dir = std::env::temp_dir().join(format!("probe-trace-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("t.jsonl");
    std::fs::write(&path, "old".repeat(10_000)).unwrap();
    Writer::create(&path, &header())
        .unwrap()
        .write(Nanos(9), &events()[0])
        .unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().event, events()[0]);
    assert_eq!(reader.next_entry().unwrap(), None);

    let fresh = dir.join("fresh.jsonl");
    Writer::create(&fresh, &header()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&fresh).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let link = dir.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(
        Writer::create(&link, &header()),
        Err(TraceError::Open { .. })
    ));
    assert!(matches!(Reader::open(&dir), Err(TraceError::NotAFile { .. })));
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(Reader::open(&fifo), Err(TraceError::NotAFile { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_example_of_the_manual_is_an_event() {
    let manual = include_str!("../../../docs/trace-format.md");
    let line = manual.lines().find(|l| l.starts_with("{\"now\"")).unwrap();
    let entry: Entry = serde_json::from_str(line).unwrap();
    assert_eq!(entry.event.what, What::SocketClosed { inode: 4711 });
    assert_eq!(serde_json::to_string(&entry).unwrap(), line);
}
