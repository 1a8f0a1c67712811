use std::{pin::pin, sync::atomic::AtomicUsize, task::Context};

use super::*;
use crate::{
    engine::finding::{EventKind, FindingState, Kind, Severity},
    event::TimeSource,
    report::{self, KindName, LineType},
};

fn event(service: &str, kind: EventKind) -> Said {
    Said::Event(Box::new(Shown {
        seq: 7,
        at: Nanos(1_000),
        time_source: TimeSource::Kernel,
        service: service.to_owned(),
        kind,
        subject: None,
        process: None,
        actor: None,
        facts: Default::default(),
        summary: format!("{service} did something"),
    }))
}

fn finding(service: &str, kind: Kind) -> Said {
    Said::Finding(Box::new(Finding {
        id: "f".into(),
        state: FindingState::Opened,
        kind,
        service: service.to_owned(),
        severity: Severity::Critical,
        subject: "unix:/a".into(),
        cause: "c".into(),
        at: Nanos(1_000),
        detected_after_ns: 5,
        actor: None,
        summary: "it is so".into(),
        resolution: None,
        evidence: vec![7],
        facts: Default::default(),
    }))
}

fn stream(lines: usize) -> Stream {
    Stream::new(
        "e-1",
        Limits {
            lines,
            bytes: 1 << 30,
        },
    )
}

fn of(services: &[&str]) -> Filter {
    Filter {
        services: services.iter().map(|s| (*s).to_owned()).collect(),
        ..Filter::default()
    }
}

/// What is there now: numbers of lines, and `-n` for a loss of n.
fn read(reader: &mut Subscription) -> Vec<i64> {
    let mut out = Vec::new();
    while let Some(next) = reader.try_next() {
        match next {
            Next::Line(line) => out.push(line.cursor as i64),
            Next::Missed(n) => out.push(-(n as i64)),
            Next::End => {
                out.push(0);
                break;
            }
        }
    }
    out
}

#[test]
fn each_reader_gets_its_own_services_in_order() {
    let stream = stream(100);
    let (mut a, mut b) = (
        stream.subscribe(Start::Now, of(&["a"])),
        stream.subscribe(Start::Now, of(&["b", "a"])),
    );
    let mut all = stream.subscribe(Start::Now, Filter::default());
    for service in ["a", "b", "c", "a"] {
        stream.push(event(service, EventKind::Fork));
    }
    assert_eq!(read(&mut a), [1, 4]);
    assert_eq!(read(&mut b), [1, 2, 4]);
    assert_eq!(read(&mut all), [1, 2, 3, 4]);
    assert!(read(&mut a).is_empty());
    stream.push(event("a", EventKind::Exit));
    assert_eq!(read(&mut a), [5]);
}

#[test]
fn what_concerns_everybody_passes_every_filter_of_services() {
    let stream = stream(100);
    let mut a = stream.subscribe(Start::Now, of(&["a"]));
    stream.push(Said::Lost {
        source: "ring".into(),
        count: 3,
    });
    stream.push(finding("probe", Kind::Blind));
    stream.push(finding("b", Kind::Crashed));
    assert_eq!(read(&mut a), [1, 2]);
}

#[test]
fn types_and_kinds_are_filtered() {
    let stream = stream(100);
    let lines = report::Filter {
        only: vec![LineType::Finding, LineType::Lost],
        kinds: vec![KindName::Finding(Kind::Crashed)],
    };
    let filter = Filter {
        lines,
        ..Filter::default()
    };
    let mut reader = stream.subscribe(Start::Now, filter);
    stream.push(event("a", EventKind::Exit));
    stream.push(finding("a", Kind::Crashed));
    stream.push(finding("a", Kind::StaleSocket));
    stream.push(Said::Lost {
        source: "ring".into(),
        count: 3,
    });
    assert_eq!(read(&mut reader), [2, 4]);
}

#[test]
fn a_slow_reader_is_told_exactly_what_it_wanted_and_missed() {
    let stream = stream(10);
    let mut a = stream.subscribe(Start::Now, of(&["a"]));
    let mut all = stream.subscribe(Start::Now, Filter::default());
    let forks = Filter {
        lines: report::Filter {
            only: Vec::new(),
            kinds: vec![KindName::Event(EventKind::Fork)],
        },
        ..of(&["a"])
    };
    let mut forks = stream.subscribe(Start::Now, forks);
    // Of a: every third, and of these every second is a fork.
    for n in 1..=60 {
        let kind = if n % 2 == 0 {
            EventKind::Fork
        } else {
            EventKind::Exit
        };
        stream.push(event(if n % 3 == 0 { "a" } else { "b" }, kind));
    }
    // 51 to 60 are kept. Of a, 3 to 48 are gone, sixteen of them; of its forks, 6 to 48, eight.
    assert_eq!(read(&mut a), [-16, 51, 54, 57, 60]);
    assert_eq!(read(&mut all)[..2], [-50, 51]);
    assert_eq!(read(&mut forks), [-8, 54, 60]);
    // And once more, from where it is now.
    for _ in 0..25 {
        stream.push(event("a", EventKind::Exit));
    }
    assert_eq!(read(&mut a)[..2], [-15, 76]);
    assert!(read(&mut forks).is_empty());
}

#[test]
fn lines_that_a_reader_has_taken_are_not_lost_to_it() {
    let stream = stream(10);
    let mut a = stream.subscribe(Start::Now, of(&["a"]));
    for _ in 0..5 {
        stream.push(event("a", EventKind::Exit));
    }
    assert!(matches!(a.try_next(), Some(Next::Line(line)) if line.cursor == 1));
    for _ in 0..20 {
        stream.push(event("a", EventKind::Exit));
    }
    assert_eq!(read(&mut a)[..6], [2, 3, 4, 5, -10, 16]);
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let stream = stream(100);
    let mut first = stream.subscribe(Start::Now, of(&["a"]));
    for n in 0..20 {
        stream.push(event(if n % 2 == 0 { "a" } else { "b" }, EventKind::Exit));
    }
    for _ in 0..3 {
        first.try_next();
    }
    assert_eq!(first.cursor(), 5);
    let after = |cursor| Start::After {
        epoch: "e-1".into(),
        cursor,
    };
    let mut second = stream.subscribe(after(first.cursor()), of(&["a"]));
    drop(first);
    assert_eq!(read(&mut second), [7, 9, 11, 13, 15, 17, 19]);
    // It is known what it passes from here on, too.
    for _ in 0..200 {
        stream.push(event("a", EventKind::Exit));
    }
    assert_eq!(read(&mut second)[..2], [-100, 121]);
    // From a line that is long gone: all lines since then.
    let mut third = stream.subscribe(after(20), of(&["a"]));
    assert_eq!(read(&mut third)[..2], [-100, 121]);
    // From the future: from now on.
    assert!(read(&mut stream.subscribe(after(9_999), of(&["a"]))).is_empty());
}

#[test]
fn another_epoch_begins_with_the_oldest_line() {
    let stream = stream(100);
    stream.push(event("a", EventKind::Exit));
    let start = Start::After {
        epoch: "e-0".into(),
        cursor: 50,
    };
    let mut reader = stream.subscribe(start, Filter::default());
    assert!(reader.is_of_another_epoch());
    assert_eq!(read(&mut reader), [1]);
}

#[test]
fn what_is_kept_is_bounded_in_bytes() {
    let stream = Stream::new(
        "e",
        Limits {
            lines: usize::MAX,
            bytes: 100_000,
        },
    );
    for _ in 0..1_000 {
        stream.push(event("a", EventKind::Exit));
    }
    let figures = stream.figures();
    assert!(figures.bytes <= 100_000, "{figures:?}");
    assert!(figures.lines > 10, "{figures:?}");
    assert_eq!(
        (figures.newest, figures.oldest),
        (1_000, 1_001 - figures.lines as u64)
    );
    // The estimate is not below what a line takes.
    let mut reader = stream.subscribe(Start::Oldest, Filter::default());
    let Some(Next::Line(line)) = reader.try_next() else {
        panic!("a line is kept")
    };
    assert!(line.cost >= size_of::<Line>() + size_of::<Shown>() + line.json().len());
}

#[test]
fn lines_carry_their_number_and_their_epoch() {
    let stream = stream(100);
    stream.push(event("a", EventKind::Exit));
    stream.push(finding("a", Kind::Crashed));
    stream.push(Said::Lost {
        source: "ring".into(),
        count: 3,
    });
    stream.push(Said::Action(Box::new(Action {
        at: Nanos(5),
        service: None,
        what: ActionKind::Reload,
        subject: None,
        cause: None,
        outcome: Outcome::Refused,
        summary: "the configuration stays as it was".into(),
        facts: Default::default(),
    })));
    let mut reader = stream.subscribe(Start::Oldest, Filter::default());
    let mut types = Vec::new();
    for cursor in 1..=4_u64 {
        let Some(Next::Line(line)) = reader.try_next() else {
            panic!("line {cursor} is kept")
        };
        let json = line.json();
        assert_eq!(json.last(), Some(&b'\n'));
        let text = std::str::from_utf8(json).unwrap();
        assert_eq!(text.matches("\"epoch\"").count(), 1, "{text}");
        let value: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(value["cursor"], cursor);
        assert_eq!(value["epoch"], "e-1");
        assert_eq!(value["v"], 1);
        types.push(value["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(types, ["event", "finding", "lost", "event"]);
}

#[test]
fn the_end_comes_after_everything_else() {
    let stream = stream(100);
    let mut reader = stream.subscribe(Start::Now, Filter::default());
    stream.push(event("a", EventKind::Exit));
    stream.close();
    assert_eq!(read(&mut reader), [1, 0]);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn who_waits_is_woken_by_what_it_wants_only() {
    let stream = stream(100);
    let forks = Filter {
        lines: report::Filter {
            only: Vec::new(),
            kinds: vec![KindName::Event(EventKind::Fork)],
        },
        ..of(&["a"])
    };
    let mut reader = stream.subscribe(Start::Now, forks);
    let woken = Arc::new(Woken::default());
    let waker = woken.clone().into();
    let mut context = Context::from_waker(&waker);
    {
        let mut next = pin!(reader.next());
        assert!(next.as_mut().poll(&mut context).is_pending());
        stream.push(event("b", EventKind::Fork));
        stream.push(event("a", EventKind::Exit));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        stream.push(event("a", EventKind::Fork));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        // The wait is given up here, and nothing is lost by that.
    }
    assert_eq!(read(&mut reader), [3]);
    // Whoever has gone is not waited for.
    drop(reader);
    assert_eq!(stream.figures().readers, 0);
    stream.push(event("a", EventKind::Fork));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn readers_in_another_thread_lose_nothing() {
    let stream = stream(1 << 20);
    let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let readers = names.iter().map(|name| {
        let mut reader = stream.subscribe(Start::Now, of(&[name]));
        let name = name.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while let Next::Line(line) = reader.next().await {
                assert_eq!(line.service(), Some(&*name));
                count += 1;
            }
            count
        })
    });
    let readers: Vec<_> = readers.collect();
    let speaker = stream.clone();
    let thread = std::thread::spawn(move || {
        for n in 0..40_000 {
            speaker.push(event(&names[n % 8], EventKind::Exit));
        }
        speaker.close();
    });
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 5_000);
    }
    thread.join().unwrap();
}
