//! Disks that take nothing, for a while.

use nix::mount::{MsFlags, mount, umount2};
use rusqlite::TransactionBehavior;

use super::*;
use crate::sources::testing::until;

/// A file system of its own, which only this thread and those that it starts see.
struct Disk {
    path: PathBuf,
    _dir: TempDir,
}

impl Disk {
    fn new(size: &str) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = TempDir::new("disk");
        let path = dir.path().to_owned();
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={size}").as_str()),
        )
        .unwrap();
        Self { path, _dir: dir }
    }

    fn remount(&self, flags: MsFlags) {
        let none: Option<&str> = None;
        mount(none, &self.path, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    }

    fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn failing(store: &Store) -> bool {
    matches!(store.status().health, Health::Failing { .. })
}

#[test]
fn a_full_disk_is_said_and_ends_by_itself() {
    let disk = Disk::new("3m");
    let (store, loaded) = Store::open(&disk.state_dir(), forever()).unwrap();
    assert_eq!(loaded.notices, []);
    store.write([row(0, "annad", "exit")]);
    assert!(store.flush(LONG));
    // What is left, somebody else takes.
    let filler = disk.path.join("filler");
    let mut size = 3 << 20;
    while size > 0 {
        let _ = fs::write(&filler, vec![1; size]);
        size = if fs::metadata(&filler).is_ok_and(|m| m.len() as usize == size) {
            0
        } else {
            size - 4096
        };
    }
    let mut n = 0;
    until("the disk is full", || {
        store.write((n + 1..=n + 1000).map(|n| row(n, "annad", "exit")));
        n += 1000;
        store.flush(LONG);
        failing(&store)
    });
    let Health::Failing { why, .. } = store.status().health else {
        unreachable!("seen as failing, and nobody made room")
    };
    assert!(why.contains("full") || why.contains("No space"), "{why}");
    assert!(
        !store.flush(Duration::from_millis(1)),
        "what failed is not written"
    );
    // What is asked meanwhile is answered, or honestly refused.
    let _ = store.query(&Query::default());
    fs::remove_file(&filler).unwrap();
    until("it is written again", || !failing(&store));
    assert!(store.flush(LONG));
    let status = store.status();
    assert_eq!(
        (status.health, status.lost, status.waiting),
        (Health::Writing, 0, 0)
    );
    let query = Query {
        limit: Some(PAGE),
        ..Query::default()
    };
    let expected: Vec<u64> = (0..=n).collect();
    assert_eq!(numbers(&store.query(&query).unwrap()), expected);
}

#[test]
fn a_read_only_disk_is_read_said_and_written_once_that_is_over() {
    let disk = Disk::new("8m");
    let silence = Silence {
        id: 7,
        service: "annad".into(),
        since: at(0),
        until: at(60),
        reason: "a new disk".into(),
        uid: None,
    };
    {
        let (store, _) = Store::open(&disk.state_dir(), forever()).unwrap();
        store.put_silence(silence.clone()).unwrap();
        store.write([row(1, "annad", "exit")]);
        close(&store);
    }
    disk.remount(MsFlags::MS_RDONLY);
    let (store, loaded) = Store::open(&disk.state_dir(), forever()).unwrap();
    assert!(
        matches!(loaded.notices.as_slice(), [Notice::NotWriting { .. }]),
        "{:?}",
        loaded.notices
    );
    assert_eq!(loaded.silences, [silence]);
    assert!(failing(&store));
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [1]);
    store.write([row(2, "annad", "exit")]);
    assert!(!store.flush(Duration::from_millis(1)));
    disk.remount(MsFlags::empty());
    until("it is written again", || !failing(&store));
    assert!(store.flush(LONG));
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [1, 2]);
}

#[test]
fn a_directory_that_comes_later() {
    let dir = TempDir::new("history");
    let parent = dir.path().join("not/yet");
    let (store, loaded) = Store::open(&parent.join("state"), forever()).unwrap();
    let [Notice::NotWriting { why }] = loaded.notices.as_slice() else {
        panic!("{:?}", loaded.notices)
    };
    assert!(why.contains("not/yet/state"), "{why}");
    store.write([row(1, "annad", "exit")]);
    fs::create_dir_all(&parent).unwrap();
    until("it is written", || store.flush(LONG));
    assert_eq!(numbers(&store.query(&Query::default()).unwrap()), [1]);
}

/// Somebody holds the database: nobody who hands lines over waits for that, memory stays bounded, and every line is
/// either written or counted.
#[test]
fn handing_over_never_waits_and_never_grows() {
    let scene = Scene::new();
    let store = scene.open_well();
    assert!(store.flush(LONG));
    let mut other = Connection::open(scene.database()).unwrap();
    let lock = other
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let mut n = 0;
    until(
        "a line was handed over while the thread waits for the lock",
        || {
            store.write([row(n, "annad", "exit")]);
            n += 1;
            until("the thread has taken the line", || {
                store.status().waiting == 0 || failing(&store)
            });
            let before = store.status();
            store.write([row(n, "annad", "exit")]);
            n += 1;
            let after = store.status();
            before.waiting == 0 && after.waiting == 1 && before.failures == after.failures
        },
    );
    let count: u64 = 100_000;
    let padding = "x".repeat(1000);
    let began = clock::now();
    for n in n..count {
        let mut row = row(n, "annad", "exit");
        row.json = format!(r#"{{"n":{n},"padding":"{padding}"}}"#);
        store.write([row]);
        let waiting = store.status().waiting;
        assert!(waiting <= 16 * 1024, "{waiting} lines wait");
    }
    let took = clock::now().since(began);
    assert!(store.status().lost > count / 2, "{:?}", store.status());
    lock.rollback().unwrap();
    drop(other);
    until("it is written again", || store.flush(LONG));
    let status = store.status();
    assert_eq!(status.written + status.lost, count);
    assert_eq!(lost(&store), status.lost, "the history tells what it lacks");
    println!(
        "{count} lines in {took:?}: {} lost, {} written",
        status.lost, status.written
    );
}
