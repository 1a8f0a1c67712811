use jiff::tz::TimeZone;

use super::*;
use crate::event::ProcId;
use crate::{
    engine::finding::{EventKind, Finding, FindingState, Kind, Severity, Shown},
    event::{Process, TimeSource},
};

fn process(pid: u32, comm: &str) -> Process {
    Process {
        id: ProcId { pid, start_ticks: 1 },
        start: Nanos(10_000_000),
        parent: Some(ProcId {
            pid: 1,
            start_ticks: 0,
        }),
        comm: comm.into(),
        uid: Some(0),
        exe: Some(format!("/bin/{comm}")),
        exe_deleted: false,
        exe_id: None,
        argv: Vec::new(),
        unit: Some("cron.service".into()),
    }
}

fn shown() -> Effect {
    let mut facts = serde_json::Map::new();
    facts.insert("signal".into(), "USR1".into());
    facts.insert("disposition".into(), "default".into());
    facts.insert("kind".into(), "must not take the kind's place".into());
    Effect::Show(Box::new(Shown {
        seq: 41,
        at: Nanos(1_002_003_004),
        time_source: TimeSource::Kernel,
        service: "annad".into(),
        kind: EventKind::Signal,
        subject: None,
        process: Some(
            Process {
                exe: None,
                uid: None,
                unit: None,
                parent: None,
                ..process(812, "annad")
            }
            .into(),
        ),
        actor: Some(process(990, "kill").into()),
        facts: serde_json::Value::Object(facts).into(),
        summary: "USR1 to annad (812)".into(),
    }))
}

fn found(state: FindingState) -> Finding {
    Finding {
        id: "0123abcd".into(),
        state,
        kind: Kind::StaleSocket,
        service: "annad".into(),
        severity: Severity::Critical,
        subject: "unix:/run/anna/annad.sock".into(),
        cause: "c1".into(),
        at: Nanos(2_000_000_000),
        detected_after_ns: 180_000,
        actor: None,
        summary: "no process holds /run/anna/annad.sock".into(),
        resolution: None,
        evidence: vec![41, 44],
        facts: serde_json::Map::new(),
    }
}

fn options(json: bool) -> Options {
    Options {
        json,
        color: false,
        wall_offset_ns: 1_700_000_000_000_000_000,
        epoch: "e1".into(),
        filter: Filter::default(),
        time_zone: TimeZone::UTC,
    }
}

fn line(options: Options, effect: &Effect) -> String {
    let mut out = Vec::new();
    Reporter::new(options).effect(&mut out, effect).unwrap();
    String::from_utf8(out).unwrap()
}

fn watching() -> Watching {
    Watching {
        service: "annad".into(),
        listen: vec![
            "unix:/run/anna/annad.sock".parse().unwrap(),
            "tcp:80".parse().unwrap(),
        ],
        pid_file: Some("/run/anna/annad.pid".into()),
        main: Some(812),
        tier: [("unix_socket".to_owned(), "tracepoint".to_owned())].into(),
        cannot_see: vec!["failed binds".into()],
    }
}

#[test]
fn facts_of_a_finding_stand_among_its_fields() {
    let mut f = found(FindingState::Opened);
    f.kind = Kind::CrashLoop;
    f.facts.insert("gave_up".into(), true.into());
    let text = line(options(true), &Effect::Find(Box::new(f)));
    assert!(
        text.trim_end().ends_with(r#","resolution":null,"gave_up":true}"#),
        "{text}"
    );
}

#[test]
fn json_lines_follow_the_contract() {
    assert_eq!(
        line(options(true), &shown()),
        concat!(
            r#"{"v":1,"type":"event","seq":41,"epoch":"e1","at":"2023-11-14T22:13:21.002003004Z","boot_ns":1002003004,"#,
            r#""time_source":"kernel","service":"annad","kind":"signal","#,
            r#""process":{"pid":812,"start_ns":10000000,"exe":null,"comm":"annad","uid":null,"unit":null,"parent":null},"#,
            r#""subject":null,"disposition":"default","signal":"USR1","#,
            r#""actor":{"pid":990,"start_ns":10000000,"exe":"/bin/kill","comm":"kill","uid":0,"unit":"cron.service","#,
            r#""parent":{"pid":1}}}"#,
            "\n"
        )
    );
    assert_eq!(
        line(
            options(true),
            &Effect::Find(Box::new(found(FindingState::Opened)))
        ),
        concat!(
            r#"{"v":1,"type":"finding","id":"0123abcd","state":"opened","kind":"stale-socket","service":"annad","#,
            r#""severity":"critical","subject":"unix:/run/anna/annad.sock","cause":"c1","#,
            r#""at":"2023-11-14T22:13:22.000000000Z","boot_ns":2000000000,"detected_after_ns":180000,"actor":null,"#,
            r#""summary":"no process holds /run/anna/annad.sock","evidence":[41,44],"resolution":null}"#,
            "\n"
        )
    );
    assert_eq!(
        line(
            options(true),
            &Effect::Lost {
                source: "ring".into(),
                count: 12
            }
        ),
        "{\"v\":1,\"type\":\"lost\",\"source\":\"ring\",\"count\":12}\n"
    );
    let mut out = Vec::new();
    Reporter::new(options(true))
        .watching(&mut out, &watching())
        .unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"v":1,"type":"watching","service":"annad","listen":["unix:/run/anna/annad.sock","tcp:80"],"#,
            r#""pid_file":"/run/anna/annad.pid","main":{"pid":812},"tier":{"unix_socket":"tracepoint"},"#,
            r#""cannot_see":["failed binds"]}"#,
            "\n"
        )
    );
}

#[test]
fn lines_for_people_say_when_where_what_and_by_whom() {
    assert_eq!(
        line(options(false), &shown()),
        "22:13:21.002 annad        signal    USR1 to annad (812), by kill (990, /bin/kill, uid 0, cron.service)\n"
    );
    assert_eq!(
        line(
            options(false),
            &Effect::Find(Box::new(found(FindingState::Opened)))
        ),
        "22:13:22.000 annad        CRITICAL  stale-socket: no process holds /run/anna/annad.sock\n"
    );
    let resolved = Finding {
        resolution: Some("a new socket is bound".into()),
        ..found(FindingState::Resolved)
    };
    assert_eq!(
        line(options(false), &Effect::Find(Box::new(resolved))),
        "22:13:22.000 annad        RESOLVED  stale-socket: a new socket is bound\n"
    );
    assert_eq!(
        line(
            options(false),
            &Effect::Lost {
                source: "ring".into(),
                count: 1
            }
        ),
        "LOST 1 event of ring: verdicts are unknown until everything was read anew\n"
    );
    let mut out = Vec::new();
    let mut reporter = Reporter::new(options(false));
    reporter.watching(&mut out, &watching()).unwrap();
    let nothing = Watching {
        listen: vec![],
        pid_file: None,
        main: None,
        cannot_see: vec![],
        ..watching()
    };
    reporter
        .watching(
            &mut out,
            &Watching {
                cannot_see: watching().cannot_see,
                ..nothing
            },
        )
        .unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "watching annad: unix:/run/anna/annad.sock, tcp:80, PID file /run/anna/annad.pid, main process 812 \
         (cannot see failed binds)\nwatching annad: not running\n"
    );
}

#[test]
fn an_actor_in_the_sentence_is_not_named_again() {
    let finding = Finding {
        summary: "annad (812) was killed by SIGKILL from kill (990)".into(),
        actor: Some(process(990, "kill").into()),
        ..found(FindingState::Opened)
    };
    let text = line(options(false), &Effect::Find(Box::new(finding.clone())));
    assert!(text.ends_with("from kill (990)\n"), "{text}");
    // 99 is not 990.
    let other = Finding {
        actor: Some(process(99, "kill").into()),
        ..finding
    };
    assert!(line(options(false), &Effect::Find(Box::new(other))).contains(", by kill (99, "));
}

#[test]
fn hostile_names_stay_on_their_line_and_off_the_terminal() {
    let evil = "a\x1b]0;x\x07\n22:13 fake CRITICAL\u{202e}\u{9b}2J\u{7f}";
    let finding = Finding {
        service: evil.into(),
        summary: evil.into(),
        subject: evil.into(),
        actor: Some(
            Process {
                comm: evil.into(),
                exe: Some(evil.into()),
                unit: Some(evil.into()),
                ..process(9, "")
            }
            .into(),
        ),
        ..found(FindingState::Opened)
    };
    let w = Watching {
        service: evil.into(),
        pid_file: Some(evil.into()),
        ..watching()
    };
    for json in [true, false] {
        let mut out = Vec::new();
        let mut reporter = Reporter::new(options(json));
        reporter
            .effect(&mut out, &Effect::Find(Box::new(finding.clone())))
            .unwrap();
        reporter
            .effect(
                &mut out,
                &Effect::Lost {
                    source: evil.into(),
                    count: 2,
                },
            )
            .unwrap();
        reporter.watching(&mut out, &w).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 3, "{text:?}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        if json {
            let back: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            assert_eq!(back["summary"], evil);
        }
    }
}

#[test]
fn colours_only_when_asked_for() {
    let finding = Effect::Find(Box::new(found(FindingState::Opened)));
    let text = line(
        Options {
            color: true,
            ..options(false)
        },
        &finding,
    );
    assert!(
        text.contains("\x1b[1;31mCRITICAL  stale-socket\x1b[0m: "),
        "{text:?}"
    );
    assert!(
        !line(
            Options {
                color: true,
                ..options(true)
            },
            &finding
        )
        .contains('\x1b')
    );
}

#[test]
fn filters_let_pass_what_they_name() {
    let finding = Effect::Find(Box::new(found(FindingState::Opened)));
    let lost = Effect::Lost {
        source: "ring".into(),
        count: 1,
    };
    let passes = |only: &[&str], kinds: &[&str]| {
        let filter = Filter {
            only: only.iter().map(|t| t.parse().unwrap()).collect(),
            kinds: kinds.iter().map(|t| t.parse().unwrap()).collect(),
        };
        [&shown(), &finding, &lost].map(|e| {
            !line(
                Options {
                    filter: filter.clone(),
                    ..options(true)
                },
                e,
            )
            .is_empty()
        })
    };
    assert_eq!(passes(&[], &[]), [true, true, true]);
    assert_eq!(passes(&["finding"], &[]), [false, true, false]);
    assert_eq!(passes(&["event", "finding"], &["signal"]), [true, false, false]);
    assert_eq!(passes(&[], &["stale-socket"]), [false, true, true]);
    assert_eq!(passes(&[], &["crashed", "exit"]), [false, false, true]);
}

#[test]
fn effects_that_nobody_sees_write_nothing() {
    assert_eq!(
        line(options(true), &Effect::Resync(crate::event::SnapshotReason::Loss)),
        ""
    );
}
