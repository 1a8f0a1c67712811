use std::{fs, os::unix::net::UnixListener};

use super::*;
use crate::sources::testing::{Child, TempDir, alone};

fn drained(watch: &mut DirectoryWatch) -> Vec<DirectoryEvent> {
    let mut seen = Vec::new();
    watch.drain(|e| seen.push(e));
    seen
}

fn name(path: &Path, change: PathChange, pid: Option<u32>) -> DirectoryEvent {
    DirectoryEvent::Name {
        path: path.into(),
        change,
        pid,
    }
}

/// With fanotify and, on the same kernel, without it. The flag says whether an actor is told.
fn both() -> [(DirectoryWatch, bool); 2] {
    [
        (DirectoryWatch::new().unwrap(), true),
        (DirectoryWatch::with(None).unwrap(), false),
    ]
}

/// Runs in a process that is gone and reaped when this returns.
fn gone(work: impl FnOnce()) -> u32 {
    Child::fork(work).wait()
}

#[test]
fn the_actor_is_named_although_it_is_gone() {
    let _alone = alone();
    for (mut watch, told) in both() {
        let dir = TempDir::new("actor");
        let at = |name: &str| dir.path().join(name);
        watch.add(&at("s"));
        assert_eq!(watch.mode(), if told { Mode::Fanotify } else { Mode::Inotify });
        let (s, other) = (at("s"), at("other"));
        let by = |pid: u32| Some(pid).filter(|_| told);

        let pid = gone(|| drop(UnixListener::bind(&s)));
        assert_eq!(drained(&mut watch), [name(&s, PathChange::Created, by(pid))]);
        // Refused, and so nothing happened.
        gone(|| drop(UnixListener::bind(&s)));
        let pid = gone(|| fs::remove_file(&s).unwrap());
        assert_eq!(drained(&mut watch), [name(&s, PathChange::Removed, by(pid))]);

        let _listener = UnixListener::bind(&other).unwrap();
        let pid = gone(|| fs::hard_link(&other, &s).unwrap());
        assert_eq!(drained(&mut watch), [name(&s, PathChange::Created, by(pid))]);
        let pid = gone(|| fs::rename(&s, at("moved")).unwrap());
        assert_eq!(drained(&mut watch), [name(&s, PathChange::RenamedAway, by(pid))]);
        // Over an existing one, and from a directory that is not watched.
        fs::write(&s, "").unwrap();
        drained(&mut watch);
        let elsewhere = TempDir::new("elsewhere");
        let _second = UnixListener::bind(elsewhere.path().join("x")).unwrap();
        let pid = gone(|| fs::rename(elsewhere.path().join("x"), &s).unwrap());
        assert_eq!(drained(&mut watch), [name(&s, PathChange::RenamedTo, by(pid))]);
        let pid = gone(|| fs::write(at("unrelated"), "").unwrap());
        assert!(pid > 0 && drained(&mut watch).is_empty());

        watch.remove_all([Rooted::from(&s)]);
        fs::remove_file(&s).unwrap();
        assert_eq!(drained(&mut watch), []);
        assert!(watch.marks.is_empty());
    }
}

#[test]
fn directories_come_and_go() {
    let _alone = alone();
    for (mut watch, _) in both() {
        let dir = TempDir::new("comes");
        let directory = dir.path().join("a/b");
        let s = directory.join("s");
        watch.add(&s);
        assert_eq!(drained(&mut watch), []);
        let appeared = DirectoryEvent::Appeared { path: (&s).into() };

        // Made and used before the mark stands: said as a whole.
        fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(&s).unwrap();
        assert!(drained(&mut watch).contains(&appeared));
        fs::remove_file(&s).unwrap();
        assert!(matches!(
            drained(&mut watch)[..],
            [DirectoryEvent::Name {
                change: PathChange::Removed,
                ..
            }]
        ));

        // Removed and made again between two looks.
        fs::remove_dir(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        assert!(drained(&mut watch).contains(&appeared));
        drop(listener);
        let _listener = UnixListener::bind(&s).unwrap();
        assert!(matches!(
            drained(&mut watch)[..],
            [DirectoryEvent::Name {
                change: PathChange::Created,
                ..
            }]
        ));

        // Renamed away with everything in it, and another put in its place.
        fs::rename(&directory, dir.path().join("a/old")).unwrap();
        assert!(drained(&mut watch).contains(&appeared));
        fs::create_dir(&directory).unwrap();
        assert!(drained(&mut watch).contains(&appeared));
        fs::write(&s, "").unwrap();
        assert!(matches!(
            drained(&mut watch)[..],
            [DirectoryEvent::Name {
                change: PathChange::Created,
                ..
            }]
        ));
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert!(drained(&mut watch).contains(&appeared));
        assert_eq!(drained(&mut watch), []);
    }
}

#[test]
fn a_directory_that_somebody_stands_in_is_still_noticed_to_go() {
    let _alone = alone();
    for (mut watch, _) in both() {
        let dir = TempDir::new("cwd");
        let directory = dir.path().join("a");
        let s = directory.join("s");
        fs::create_dir(&directory).unwrap();
        watch.add(&s);
        let _stands = File::open(&directory).unwrap();
        fs::remove_dir(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        assert!(drained(&mut watch).contains(&DirectoryEvent::Appeared { path: (&s).into() }));
        fs::write(&s, "").unwrap();
        assert_eq!(drained(&mut watch).len(), 1);
    }
}

#[test]
fn one_directory_by_two_names_and_two_paths_in_one() {
    let _alone = alone();
    for (mut watch, _) in both() {
        let dir = TempDir::new("twice");
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let (real, link) = (dir.path().join("real/s"), dir.path().join("link/s"));
        watch.add(&real);
        watch.add(&link);
        watch.add(&dir.path().join("real/t"));
        fs::write(&real, "").unwrap();
        let seen: Vec<_> = drained(&mut watch)
            .into_iter()
            .map(|e| match e {
                DirectoryEvent::Name { path, .. } => path,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, [Rooted::host(&link), Rooted::host(&real)]);
        watch.remove_all([Rooted::from(&link)]);
        fs::remove_file(&real).unwrap();
        assert_eq!(drained(&mut watch).len(), 1);
    }
}

#[test]
fn readiness_shows_on_one_descriptor() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let _alone = alone();
    for (mut watch, _) in both() {
        let dir = TempDir::new("ready");
        watch.add(&dir.path().join("s"));
        for _ in 0..2 {
            let ready = |watch: &DirectoryWatch, timeout: u16| {
                poll(
                    &mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::from(timeout),
                )
                .unwrap()
            };
            // The directory above is a busy one and may wake it, too.
            drained(&mut watch);
            fs::write(dir.path().join("s"), "").unwrap();
            fs::remove_file(dir.path().join("s")).unwrap();
            assert_eq!(ready(&watch, 2000), 1);
            assert!(!drained(&mut watch).is_empty());
        }
    }
}

#[test]
fn garbage_is_lost_and_never_panics() {
    let mut x = 1u64;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    for round in 0..20_000usize {
        let mut bytes: Vec<u8> = (0..round % 150).map(|_| byte()).collect();
        // Half of them with a plausible head, so that the records are reached.
        if round % 2 == 0 && bytes.len() >= 28 {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4] = libc::FANOTIFY_METADATA_VERSION;
            bytes[6..8].copy_from_slice(&24u16.to_ne_bytes());
            bytes[24] = [2, 10, 12, 1, 4][round % 5];
            let rest = bytes.len() as u16 - 24;
            bytes[26..28].copy_from_slice(&rest.to_ne_bytes());
        }
        let mut n = 0;
        let _ = fanotify::parse(&bytes, &mut |_| n += 1);
        assert!(n <= 4 * bytes.len());
    }
    // An event of length zero must not be read for ever.
    assert!(fanotify::parse(&[0; 48], &mut |_| ()).is_none());
}

/// In a user namespace of its own, where the limit can be lowered.
#[test]
fn a_lack_of_watches_is_told_and_over_when_there_are_some() {
    let _alone = alone();
    let dir = TempDir::new("watches");
    assert!(Child::succeeds(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
        let allow = |n: &str| fs::write("/proc/sys/user/max_inotify_watches", n).unwrap();
        allow("0");
        let mut watch = DirectoryWatch::with(None).unwrap();
        watch.add(&dir.path().join("s"));
        let failures: Vec<_> = watch.failures().values().collect();
        assert!(
            !failures.is_empty() && failures.iter().all(|why| why.contains("No space left")),
            "{failures:?}"
        );
        watch.retry();
        assert!(!watch.failures().is_empty(), "there are none yet");
        allow("100");
        watch.retry();
        assert!(watch.failures().is_empty(), "{:?}", watch.failures());
        fs::write(dir.path().join("s"), "").unwrap();
        assert!(!drained(&mut watch).is_empty(), "it is told again");
    }));
}
