//! Nothing that somebody else put there is followed or opened.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use super::*;

fn refused(scene: &Scene) -> String {
    let (store, loaded) = scene.open();
    let [Notice::NotWriting { why }] = loaded.notices.as_slice() else {
        panic!("{:?}", loaded.notices)
    };
    store.write([row(1, "annad", "exit")]);
    assert!(!store.flush(Duration::from_millis(10)));
    store.close(LONG);
    why.clone()
}

#[test]
fn a_link_in_the_directory_s_place() {
    let scene = Scene::new();
    let elsewhere = scene.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, scene.state_dir()).unwrap();
    let why = refused(&scene);
    assert!(why.contains("is no directory; expected"), "{why}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_directory_that_others_can_write_to_or_own() {
    let scene = Scene::new();
    fs::create_dir(scene.state_dir()).unwrap();
    fs::set_permissions(scene.state_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let why = refused(&scene);
    assert!(why.contains("a directory that others may write to"), "{why}");
    fs::set_permissions(scene.state_dir(), fs::Permissions::from_mode(0o750)).unwrap();
    chown(scene.state_dir(), Some(65534), None).unwrap();
    let why = refused(&scene);
    assert!(why.contains("somebody else's"), "{why}");
    assert_eq!(fs::read_dir(scene.state_dir()).unwrap().count(), 0);
}

#[test]
fn links_and_devices_in_the_place_of_a_file() {
    for name in ["probe.db", "probe.db-wal", "probe.db-shm"] {
        for kind in ["link", "hard link", "FIFO", "stranger"] {
            let scene = Scene::new();
            let victim = scene.dir.path().join("victim");
            fs::write(&victim, "precious").unwrap();
            fs::create_dir(scene.state_dir()).unwrap();
            fs::set_permissions(scene.state_dir(), fs::Permissions::from_mode(0o750)).unwrap();
            let path = scene.state_dir().join(name);
            let expected = match kind {
                "link" => {
                    symlink(&victim, &path).unwrap();
                    "a symbolic link"
                }
                "hard link" => {
                    fs::hard_link(&victim, &path).unwrap();
                    "a file with several names"
                }
                "FIFO" => {
                    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
                    "no regular file"
                }
                _ => {
                    fs::write(&path, "").unwrap();
                    chown(&path, Some(65534), None).unwrap();
                    "somebody else's"
                }
            };
            let why = refused(&scene);
            assert!(
                why.contains(expected) && why.contains(name),
                "{name} {kind}: {why}"
            );
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        }
    }
}

#[test]
fn others_cannot_read_it() {
    let scene = Scene::new();
    let store = scene.open_well();
    store.write([row(1, "annad", "exit")]);
    assert!(store.flush(LONG));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(scene.state_dir()), 0o750);
    for entry in fs::read_dir(scene.state_dir()).unwrap().flatten() {
        assert_eq!(mode(entry.path()) & 0o137, 0, "{:?}", entry.path());
    }
    assert!(scene.state_dir().join("probe.db-wal").exists());
    close(&store);
    fs::set_permissions(scene.database(), fs::Permissions::from_mode(0o666)).unwrap();
    let _store = scene.open_well();
    assert_eq!(mode(scene.database()), 0o640);
}
