//! Files as signs of life.

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, symlink},
};

use super::*;

const FILE: &str = "{ file = \"DIR/run/beat\" }";

fn run(dir: &Path) {
    fs::create_dir(dir.join("run")).unwrap();
}

#[test]
fn a_touch_is_a_beat_and_nothing_else_wakes() {
    let mut scene = Scene::new(FILE, |dir| {
        run(dir);
        fs::write(dir.join("run/beat"), "").unwrap();
        fs::write(dir.join("run/busy.log"), "").unwrap();
        set_age(&dir.join("run/beat"), 100);
    });
    let first = scene.initial().unwrap();
    assert!(clock::now().since(first) >= Duration::from_secs(99));
    assert!(!scene.is_ready());
    fs::write(scene.path("run/busy.log"), "much").unwrap();
    let _ = fs::read(scene.path("run/beat")).unwrap();
    assert!(!scene.is_ready(), "what is written to another file wakes nobody");
    let now = clock::now();
    set_age(&scene.path("run/beat"), 0);
    assert!(scene.is_ready());
    assert_fresh(scene.drain(), now);
    assert!(!scene.is_ready());
    // A time that goes back takes no beat away.
    set_age(&scene.path("run/beat"), 50);
    assert_eq!(scene.drain(), None);
    assert_fresh(scene.initial(), now);
}

#[test]
fn the_epoch_second_in_a_file_counts_where_it_is_newer() {
    let mut scene = Scene::new(FILE, run);
    assert_eq!(scene.initial(), None);
    let beat = scene.path("run/beat");
    let staged = scene.path("staged");
    for (told, age, expected) in [(5, 100, 5), (100, 50, 50), (-3600, 40, 40)] {
        let now = wall_now();
        let content = now.checked_add_signed(-told * 1_000_000_000).unwrap();
        fs::write(
            &staged,
            format!("{}.{:09}\n", content / 1_000_000_000, content % 1_000_000_000),
        )
        .unwrap();
        set_age(&staged, age);
        let mut fresh = Scene::new(FILE, |dir| {
            run(dir);
            fs::rename(&staged, dir.join("run/beat")).unwrap();
        });
        let ago = clock::now().since(fresh.initial().unwrap()).as_secs();
        assert!(
            (expected..expected + 5).contains(&ago),
            "{ago} s ago, not {expected}"
        );
    }
    // A file from the future is no beat: it would keep a dead service alive.
    fs::write(&beat, "99999999999").unwrap();
    assert!(scene.drain().is_some());
    let mut future = Scene::new(FILE, |dir| {
        run(dir);
        fs::write(dir.join("run/beat"), "99999999999").unwrap();
        set_age(&dir.join("run/beat"), -3600);
    });
    assert_eq!(future.initial(), None);
}

#[test]
fn a_replaced_file_is_followed() {
    let mut scene = Scene::new(FILE, run);
    scene.initial();
    for _ in 0..3 {
        let now = clock::now();
        fs::write(scene.path("run/new"), "x").unwrap();
        fs::rename(scene.path("run/new"), scene.path("run/beat")).unwrap();
        assert_fresh(scene.drain(), now);
        let now = tick();
        fs::write(scene.path("run/beat"), "y").unwrap();
        assert_fresh(scene.drain(), now);
        tick();
    }
    fs::remove_file(scene.path("run/beat")).unwrap();
    assert_eq!(scene.drain(), None);
    assert!(!scene.is_ready());
}

#[test]
fn directories_that_come_later_are_noticed() {
    let mut scene = Scene::new("{ file = \"DIR/x/y/../y/beat\" }", |_| {});
    assert_eq!(scene.initial(), None);
    for _ in 0..2 {
        fs::create_dir(scene.path("x")).unwrap();
        assert_eq!(scene.drain(), None);
        let now = clock::now();
        // All at once: the watch on a directory comes after what is in it.
        fs::create_dir(scene.path("x/y")).unwrap();
        fs::write(scene.path("x/y/beat"), "").unwrap();
        assert_fresh(scene.drain(), now);
        // Another directory takes the place.
        fs::rename(scene.path("x"), scene.path("old")).unwrap();
        fs::remove_dir_all(scene.path("old")).unwrap();
        assert_eq!(scene.drain(), None);
        tick();
    }
    assert_eq!(scene.heartbeats.blind().count(), 0);
}

#[test]
fn links_are_followed_wherever_they_lead() {
    let mut scene = Scene::new("{ file = \"DIR/current/beat\" }", |dir| {
        fs::create_dir(dir.join("v1")).unwrap();
        fs::create_dir(dir.join("v2")).unwrap();
        symlink("v1", dir.join("current")).unwrap();
        symlink(dir.join("v2/real"), dir.join("v2/beat")).unwrap();
    });
    assert_eq!(scene.initial(), None);
    let now = clock::now();
    fs::write(scene.path("v1/beat"), "").unwrap();
    assert_fresh(scene.drain(), now);
    symlink("v2", scene.path("next")).unwrap();
    fs::rename(scene.path("next"), scene.path("current")).unwrap();
    assert_eq!(scene.drain(), None);
    let now = tick();
    fs::write(scene.path("v2/real"), "").unwrap();
    assert_fresh(scene.drain(), now);
    // What the link led to before is not watched any more.
    fs::write(scene.path("v1/beat"), "again").unwrap();
    assert!(!scene.is_ready());
    // A loop ends.
    fs::remove_file(scene.path("v2/real")).unwrap();
    symlink("beat", scene.path("v2/real")).unwrap();
    assert_eq!(scene.drain(), None);
    assert_eq!(scene.heartbeats.blind().count(), 1);
}

#[test]
fn a_fifo_is_never_opened() {
    let fifo =
        |dir: &Path| nix::unistd::mkfifo(&dir.join("run/beat"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let mut scene = Scene::new(FILE, |dir| {
        run(dir);
        fifo(dir);
    });
    assert_eq!(scene.initial(), None);
    let blind: Vec<_> = scene.heartbeats.blind().collect();
    assert!(blind.len() == 1 && blind[0].contains("FIFO"), "{blind:?}");
    let write = fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(scene.path("run/beat"));
    assert_eq!(
        write.unwrap_err().raw_os_error(),
        Some(libc::ENXIO),
        "nobody reads"
    );
    fs::remove_file(scene.path("run/beat")).unwrap();
    let now = clock::now();
    fs::write(scene.path("run/beat"), "").unwrap();
    assert_fresh(scene.drain(), now);
    assert_eq!(scene.heartbeats.blind().count(), 0);
}

#[test]
fn rubbish_is_a_touch() {
    let mut scene = Scene::new(FILE, run);
    scene.initial();
    let now = clock::now();
    fs::write(scene.path("run/beat"), vec![b'9'; 10 << 20]).unwrap();
    assert_fresh(scene.drain(), now);
}

#[test]
fn an_overflow_of_the_queue_loses_no_beat() {
    let mut scene = Scene::new(FILE, run);
    scene.initial();
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (a, b) = (scene.path("run/a"), scene.path("run/b"));
    fs::write(&a, "").unwrap();
    // Two events each.
    for _ in 0..limit / 4 + 1 {
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    let now = clock::now();
    fs::write(scene.path("run/beat"), "").unwrap();
    assert_fresh(scene.drain(), now);
    // And it is watched again.
    let later = tick();
    fs::write(scene.path("run/beat"), "").unwrap();
    set_age(&scene.path("run/beat"), 0);
    assert_fresh(scene.drain(), later);
}

/// In a user namespace of its own, where the limit can be lowered.
#[test]
#[ignore = "runs as the child of the one below"]
fn child_without_watches() {
    // Never the limit of the whole machine.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap();
    if ids.contains("4294967295") {
        return;
    }
    fs::write("/proc/sys/user/max_inotify_watches", "1").unwrap();
    let mut scene = Scene::new(FILE, |dir| {
        run(dir);
        fs::write(dir.join("run/beat"), "").unwrap();
    });
    // What is there is read all the same.
    assert!(scene.initial().is_some());
    let blind: Vec<_> = scene.heartbeats.blind().collect();
    assert!(
        blind.len() == 1 && blind[0].contains("fs.inotify.max_user_watches"),
        "{blind:?}"
    );
    fs::write("/proc/sys/user/max_inotify_watches", "100").unwrap();
    scene.initial();
    assert_eq!(scene.heartbeats.blind().count(), 0);
    println!("blind for a while");
}

#[test]
fn a_lack_of_watches_is_told() {
    let child = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sources::heartbeat::tests::file::child_without_watches",
        ])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("blind for a while"),
        "{child:?}"
    );
}
