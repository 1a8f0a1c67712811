//! What is written is read back, now and after a restart, until it is too old or too much.

use super::*;
use crate::stream::Said;

#[test]
fn lines_are_found_by_time_service_and_kind() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write((0..100).map(|n| {
        let service = if n % 2 == 0 { "annad" } else { "redis" };
        row(n, service, if n % 10 == 0 { "exit" } else { "signal" })
    }));
    assert!(store.flush(LONG));
    let ask = |query: Query| numbers(&store.query(&query).unwrap());
    assert_eq!(ask(Query::default()), (0..100).collect::<Vec<_>>());
    let query = Query {
        since: Some(at(20)),
        until: Some(at(50)),
        services: vec!["annad".into()],
        kinds: vec!["exit".into()],
        types: vec!["event".into()],
        ..Query::default()
    };
    assert_eq!(ask(query), [20, 30, 40]);
    let query = Query {
        services: vec!["annad' OR 1 --".into()],
        ..Query::default()
    };
    assert!(ask(query).is_empty());
}

#[test]
fn pages_follow_each_other_without_a_gap() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write((0..25).map(|n| row(n, "annad", "exit")));
    assert!(store.flush(LONG));
    let (mut all, mut after, mut pages) = (vec![], None, 0);
    loop {
        let query = Query {
            after,
            limit: Some(10),
            ..Query::default()
        };
        let page = store.query(&query).unwrap();
        all.extend(numbers(&page));
        after = page.records.last().map(|r| r.number);
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!((pages, all), (3, (0..25).collect()));
}

fn turn(n: u64, state: FindingState, summary: &str) -> Row {
    let said = Said::Finding(Box::new(finding(state, summary)));
    row::row(at(n), &said, b"{}\n", T0)
}

#[test]
fn a_finding_has_one_life() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write([
        turn(5, FindingState::Opened, "gone"),
        turn(6, FindingState::Updated, "gone, by rm"),
        turn(7, FindingState::Resolved, "gone, by rm"),
    ]);
    assert!(store.flush(LONG));
    let lives = store.lives(&Query::default()).unwrap();
    assert_eq!(lives.len(), 1);
    let life = &lives[0];
    assert_eq!(
        (life.state.as_str(), life.summary.as_str()),
        ("resolved", "gone, by rm")
    );
    assert_eq!((life.opened, life.resolved), (at(5), Some(at(7))));
    assert_eq!(life.resolution.as_deref(), Some("a new socket"));
    assert_eq!(store.query(&Query::default()).unwrap().records.len(), 3);
}

#[test]
fn nobody_knows_how_a_finding_went_on_that_was_open_when_probe_ended() {
    let scene = Scene::new();
    let opened = turn(5, FindingState::Opened, "gone");
    let store = scene.open_well();
    store.write([opened.clone()]);
    close(&store);
    let store = scene.open_well();
    assert!(store.flush(LONG));
    assert_eq!(store.lives(&Query::default()).unwrap()[0].state, "unknown");
    // It is still so.
    store.write([opened]);
    assert!(store.flush(LONG));
    let lives = store.lives(&Query::default()).unwrap();
    assert_eq!((lives[0].state.as_str(), lives.len()), ("opened", 1));
    assert_eq!(lives[0].resolution, None);
}

#[test]
fn generations_silences_and_notifications_survive_a_restart() {
    let scene = Scene::new();
    let (store, loaded) = scene.open();
    assert_eq!(loaded, Loaded::default());
    let main = Some(ProcId {
        pid: 812,
        start_ticks: 77,
    });
    let remembered = Remembered { generation: 4, main };
    store.remember("annad", remembered).unwrap();
    store
        .remember("annad", Remembered { generation: 3, main })
        .unwrap();
    store.remember("annad", remembered).unwrap();
    let silence = Silence {
        id: 7,
        service: "annad".into(),
        since: at(0),
        until: at(60),
        reason: "a new disk".into(),
        uid: Some(0),
    };
    store.put_silence(silence.clone()).unwrap();
    store
        .put_silence(Silence {
            id: 8,
            ..silence.clone()
        })
        .unwrap();
    store.remove_silence(8).unwrap();
    let pending = |key: &str, n| Pending {
        key: key.into(),
        due: at(n),
        payload: format!("[{n}]"),
    };
    for p in [pending("b", 1), pending("a", 9), pending("c", 5)] {
        store.put_pending(p).unwrap();
    }
    assert!(store.flush(LONG));
    store.put_pending(pending("a", 3)).unwrap();
    store.remove_pending("c").unwrap();
    close(&store);
    let (store, loaded) = scene.open();
    assert_eq!(loaded.services, [("annad".to_owned(), remembered)].into());
    assert_eq!(loaded.silences, [silence]);
    assert_eq!(loaded.pending, [pending("b", 1), pending("a", 3)]);
    // Whoever could not read the generation at the start begins with the first.
    store
        .remember("annad", Remembered { generation: 1, main })
        .unwrap();
    close(&store);
    assert_eq!(scene.open().1.services["annad"].generation, 4);
}

#[test]
fn a_main_process_of_another_boot_is_none() {
    let scene = Scene::new();
    let store = scene.open_well();
    let main = Some(ProcId {
        pid: 812,
        start_ticks: 77,
    });
    store
        .remember("annad", Remembered { generation: 4, main })
        .unwrap();
    close(&store);
    let db = Connection::open(scene.database()).unwrap();
    db.execute("UPDATE service SET boot = 'another'", []).unwrap();
    drop(db);
    let expected = Remembered {
        generation: 4,
        main: None,
    };
    assert_eq!(scene.open().1.services["annad"], expected);
}

#[test]
fn what_is_too_much_goes_the_oldest_first() {
    let scene = Scene::new();
    let size = 2 << 20;
    let small = Retention {
        size: Size(size),
        ..forever()
    };
    let (store, _) = Store::open(&scene.state_dir(), small).unwrap();
    let padding = "x".repeat(1000);
    for n in 0..8000 {
        let mut row = row(n, "annad", "exit");
        row.json = format!(r#"{{"n":{n},"padding":"{padding}"}}"#);
        store.write([row]);
        if n % 50 == 49 {
            assert!(store.flush(LONG));
            let file = fs::metadata(scene.database()).unwrap().len();
            assert!(file <= size, "{file} bytes after {n} lines");
        }
    }
    let bytes = store.status().bytes;
    assert!(bytes <= size && bytes > size / 2, "{bytes}");
    let kept = numbers(&store.query(&Query::default()).unwrap());
    assert_eq!(kept.last(), Some(&7999));
    assert!(kept.len() > 500, "{}", kept.len());
    assert_eq!(kept, (8000 - kept.len() as u64..8000).collect::<Vec<_>>());
    assert_eq!(store.status().lost, 0);
}

#[test]
fn what_is_too_old_goes() {
    let scene = Scene::new();
    let store = scene.open_well();
    let mut old = row(1, "annad", "exit");
    old.at = clock::wall() - Duration::from_secs(7200);
    let mut young = row(2, "annad", "exit");
    young.at = clock::wall() - Duration::from_secs(60);
    store.write([old, young]);
    close(&store);
    let hour = Retention {
        age: Duration::from_secs(3600),
        ..forever()
    };
    let (store, _) = Store::open(&scene.state_dir(), hour).unwrap();
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [2]);
}

#[test]
fn an_older_probe_works_with_what_a_newer_one_left() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write([row(1, "annad", "exit")]);
    close(&store);
    let db = Connection::open(scene.database()).unwrap();
    db.execute_batch(
        "ALTER TABLE line ADD COLUMN more TEXT; ALTER TABLE silence ADD COLUMN more TEXT;
         ALTER TABLE pending ADD COLUMN more TEXT; CREATE TABLE another (x); PRAGMA user_version = 99",
    )
    .unwrap();
    drop(db);
    let (store, loaded) = scene.open();
    assert_eq!(loaded.notices, [Notice::Newer { version: 99 }]);
    store.write([row(2, "annad", "exit")]);
    store
        .put_pending(Pending {
            key: "a".into(),
            due: at(1),
            payload: "{}".into(),
        })
        .unwrap();
    assert!(store.flush(LONG));
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [1, 2]);
}
