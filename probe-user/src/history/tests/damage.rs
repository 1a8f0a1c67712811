//! A damaged database is set aside and named, and a new one begun.

use std::{
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use super::*;

/// Ends with a database of many pages.
fn fill(scene: &Scene) {
    let store = scene.open_well();
    store.write((0..2000).map(|n| row(n, "annad", "exit")));
    close(&store);
}

fn set_aside(loaded: &Loaded) -> PathBuf {
    let [Notice::SetAside { as_path, why }] = loaded.notices.as_slice() else {
        panic!("{:?}", loaded.notices)
    };
    assert!(!why.is_empty());
    as_path.clone()
}

#[test]
fn bytes_in_the_middle_that_are_none_of_ours() {
    let scene = Scene::new();
    fill(&scene);
    let mut file = fs::OpenOptions::new().write(true).open(scene.database()).unwrap();
    file.seek(SeekFrom::Start(2 * 4096)).unwrap();
    file.write_all(&[0xab; 20 * 4096]).unwrap();
    drop(file);
    let damaged = fs::read(scene.database()).unwrap();
    let (store, loaded) = scene.open();
    let aside = set_aside(&loaded);
    assert_eq!(fs::read(&aside).unwrap(), damaged, "it is kept as it was");
    assert!(loaded.notices[0].to_string().contains(aside.to_str().unwrap()));
    store.write([row(1, "annad", "exit")]);
    assert!(store.flush(LONG));
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [1]);
}

#[test]
fn a_file_that_is_no_database_and_one_that_was_cut_off() {
    for damage in ["garbage", "cut off"] {
        let scene = Scene::new();
        fill(&scene);
        if damage == "garbage" {
            fs::write(scene.database(), "x".repeat(100_000)).unwrap();
        } else {
            let file = fs::OpenOptions::new().write(true).open(scene.database()).unwrap();
            file.set_len(5 * 4096 + 100).unwrap();
        }
        let (store, loaded) = scene.open();
        set_aside(&loaded);
        store.write([row(1, "annad", "exit")]);
        assert!(store.flush(LONG), "{damage}");
    }
}

#[test]
fn only_the_newest_of_those_that_were_set_aside_are_kept() {
    let scene = Scene::new();
    let mut aside = vec![];
    for _ in 0..4 {
        fs::create_dir_all(scene.state_dir()).unwrap();
        fs::write(scene.database(), "x".repeat(100_000)).unwrap();
        let (store, loaded) = scene.open();
        aside.push(set_aside(&loaded));
        close(&store);
    }
    let there: Vec<bool> = aside.iter().map(|p| p.exists()).collect();
    assert_eq!(there, [false, false, true, true]);
}

/// Somebody writes into the file while probe has it open: what is written later is not lost with it.
#[test]
fn damage_at_work() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write((0..2000).map(|n| row(n, "annad", "exit")));
    assert!(store.flush(LONG));
    let checkpoint = Connection::open(scene.database()).unwrap();
    checkpoint
        .pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
        .unwrap();
    let file = fs::OpenOptions::new().write(true).open(scene.database()).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0xab; 4096], page * 4096).unwrap();
    }
    // Pages that it holds in memory are still good; sooner or later it reads one.
    let mut n = 10_000;
    crate::sources::testing::until("it is set aside", || {
        store.write((n..n + 500).map(|n| row(n, "annad", "exit")));
        n += 500;
        store.flush(Duration::from_millis(200));
        let entries = fs::read_dir(scene.state_dir()).unwrap().flatten();
        entries
            .into_iter()
            .any(|e| e.file_name().to_string_lossy().contains("corrupt"))
    });
    store.write([row(1, "later", "exit")]);
    crate::sources::testing::until("it is written again", || store.flush(LONG));
    assert_eq!(store.status().health, Health::Writing);
    let query = Query {
        services: vec!["later".into()],
        ..Query::default()
    };
    assert_eq!(numbers(&store.query(&query).unwrap()), [1]);
}
