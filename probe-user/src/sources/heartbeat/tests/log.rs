//! Lines in log files as signs of life.

use std::{
    fs::{self, OpenOptions},
    io::Write,
};

use super::*;

const LOG: &str = "{ log = \"DIR/a.log\", contains = \"daemon alive\" }";

fn open(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

#[test]
fn only_lines_with_the_text_are_beats() {
    let mut scene = Scene::new(LOG, |dir| drop(open(&dir.join("a.log"))));
    assert_eq!(scene.initial(), None);
    let mut log = open(&scene.path("a.log"));
    log.write_all(b"something else\n").unwrap();
    assert_eq!(scene.drain(), None);
    let now = clock::now();
    log.write_all(b"10:00 daemon alive\n").unwrap();
    assert_fresh(scene.drain(), now);
    // In two pieces, read one by one.
    log.write_all(b"10:01 daemon ").unwrap();
    assert_eq!(scene.drain(), None);
    let now = clock::now();
    log.write_all(b"alive").unwrap();
    assert_fresh(scene.drain(), now);
    assert!(!scene.is_ready());
}

#[test]
fn the_end_of_a_log_is_looked_at_first() {
    let mut old = Scene::new(LOG, |dir| {
        fs::write(dir.join("a.log"), "daemon alive\nother\n").unwrap();
        set_age(&dir.join("a.log"), 100);
    });
    let ago = clock::now().since(old.initial().unwrap()).as_secs();
    assert!((99..110).contains(&ago), "{ago}");
    let mut long_ago = Scene::new(LOG, |dir| {
        let mut text = b"daemon alive\n".to_vec();
        text.resize(70 * 1024, b'x');
        fs::write(dir.join("a.log"), text).unwrap();
    });
    assert_eq!(long_ago.initial(), None);
}

#[test]
fn a_rotation_by_rename_loses_nothing() {
    let mut scene = Scene::new(LOG, |_| {});
    assert_eq!(scene.initial(), None);
    let alive = |scene: &mut Scene, log: &mut File| {
        let now = clock::now();
        log.write_all(b"daemon alive\n").unwrap();
        assert_fresh(scene.drain(), now);
        tick();
    };
    let mut log = open(&scene.path("a.log"));
    for turn in 0..3 {
        alive(&mut scene, &mut log);
        let rotated = scene.path(&format!("a.log.{turn}"));
        fs::rename(scene.path("a.log"), &rotated).unwrap();
        alive(&mut scene, &mut log);
        let mut new = open(&scene.path("a.log"));
        // Until it is told to open the new one, the daemon writes to the old one.
        alive(&mut scene, &mut log);
        // Both at once, then only the new one is read.
        log.write_all(b"bye\n").unwrap();
        alive(&mut scene, &mut new);
        log.write_all(b"daemon alive\n").unwrap();
        assert_eq!(scene.drain(), None);
        log = new;
    }
}

#[test]
fn a_rotation_by_truncation_starts_anew() {
    let mut scene = Scene::new(LOG, |_| {});
    scene.initial();
    let mut log = open(&scene.path("a.log"));
    log.write_all(&[b'x'; 100_000]).unwrap();
    assert_eq!(scene.drain(), None);
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    log.set_len(0).unwrap();
    let now = clock::now();
    log.write_all(b"daemon alive\n").unwrap();
    assert_fresh(scene.drain(), now);
}

#[test]
fn a_flood_is_read_in_pieces() {
    let mut scene = Scene::new(LOG, |dir| drop(open(&dir.join("a.log"))));
    scene.initial();
    let now = clock::now();
    let mut log = open(&scene.path("a.log"));
    log.write_all(&[b'x'; 3 << 20]).unwrap();
    log.write_all(b"daemon alive\n").unwrap();
    let mut told = 0;
    scene.heartbeats.drain(clock::now(), |_| told += 1);
    assert_eq!((told, scene.heartbeats.deadline()), (0, Some(Nanos::ZERO)));
    assert_fresh(scene.drain(), now);
    assert_eq!(scene.heartbeats.deadline(), None);
}

#[test]
fn a_deleted_log_is_not_held() {
    let mut scene = Scene::new(LOG, |dir| fs::write(dir.join("a.log"), "x").unwrap());
    scene.initial();
    let path = scene.path("a.log");
    let held = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|e| fs::read_link(e.unwrap().path()).ok())
            .any(|l| l.starts_with(&path))
    };
    let gone = path.with_file_name("a.log (deleted)");
    let held_deleted = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|e| fs::read_link(e.unwrap().path()).ok())
            .any(|l| l == gone)
    };
    assert!(held());
    fs::remove_file(&path).unwrap();
    assert!(held_deleted());
    scene.drain();
    assert!(!held_deleted());
    let now = clock::now();
    fs::write(&path, "daemon alive").unwrap();
    assert_fresh(scene.drain(), now);
}
