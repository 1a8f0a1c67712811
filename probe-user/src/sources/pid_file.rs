//! PID files, read as strangers' files: never followed, never waited for, never trusted.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::OFlags;

use super::{
    path::is_absent,
    pid_namespace, process,
    root::{Root, Rooted},
    view::View,
};
use crate::{
    clock::{self, Nanos},
    event::{PidFileContent, PidFileState},
};

/// Most bytes that are read.
const BYTES: u64 = 4096;
/// Most characters of an unexpected content that are kept.
const SHOWN: usize = 40;
/// `PID_MAX_LIMIT` of the kernel.
const PID_MAX: u32 = 1 << 22;

/// How a PID file is now, as a service with this view means it. Errors are part of the state.
///
/// `of`: the service, where another one may mean another file.
pub fn read(path: &Path, of: Option<&str>, view: &View) -> PidFileState {
    let mut found = (Root::Host, Err(PidFileContent::Absent));
    for place in view.places(path) {
        let file = open(&place);
        let is_there = !matches!(file, Err(PidFileContent::Absent));
        found = (place.root, file);
        if is_there {
            break;
        }
    }
    let (root, file) = found;
    let (content, modified) = match file {
        Ok((file, modified)) => (content(file), modified),
        Err(state) => (state, Nanos::ZERO),
    };
    let mut state = PidFileState {
        path: path.to_string_lossy().into_owned(),
        of: of.map(str::to_owned),
        content,
        local: None,
        modified,
        process: None,
    };
    if let PidFileContent::Pid(written) = state.content {
        let translated = match view.process {
            Some(main) => pid_namespace::translate(written, main, &root),
            // What it means ended with the last main process.
            None => view.foreign_pids.then_some(None),
        };
        match translated {
            None => state.process = process::read(written).ok().flatten(),
            Some(process) => {
                state.local = Some(written);
                if let Some(process) = &process {
                    state.content = PidFileContent::Pid(process.id.pid);
                }
                state.process = process;
            }
        }
    }
    state
}

/// The regular file and when it was last written.
fn open(place: &Rooted) -> Result<(File, Nanos), PidFileContent> {
    // Without O_NONBLOCK the opening of a planted fifo would wait for ever.
    let file = place
        .open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map_err(|e| match e.raw_os_error() {
            _ if is_absent(&e) => PidFileContent::Absent,
            Some(libc::ELOOP) => PidFileContent::Unreadable("symbolic link".into()),
            // A socket; a device file without a device.
            Some(libc::ENXIO | libc::ENODEV) => PidFileContent::Unreadable("not a regular file".into()),
            _ => PidFileContent::Unreadable(e.to_string()),
        })?;
    let file = File::from(file);
    let metadata = file
        .metadata()
        .map_err(|e: io::Error| PidFileContent::Unreadable(e.to_string()))?;
    if !metadata.is_file() {
        return Err(PidFileContent::Unreadable("not a regular file".into()));
    }
    let wall = metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec());
    Ok((file, clock::since_boot(wall)))
}

fn content(file: File) -> PidFileContent {
    let mut bytes = Vec::with_capacity(64);
    match file.take(BYTES).read_to_end(&mut bytes) {
        Ok(_) => parse(&bytes),
        Err(e) => PidFileContent::Unreadable(e.to_string()),
    }
}

/// The first word, which must be a number: some write a line end, blanks or NULs around it, others (PostgreSQL) more
/// lines below.
pub fn parse(bytes: &[u8]) -> PidFileContent {
    let is_blank = |b: &u8| b.is_ascii_whitespace() || *b == 0;
    let Some(start) = bytes.iter().position(|b| !is_blank(b)) else {
        return PidFileContent::Empty;
    };
    let rest = &bytes[start..];
    let word = &rest[..rest.iter().position(is_blank).unwrap_or(rest.len())];
    let pid = std::str::from_utf8(word)
        .ok()
        .filter(|w| w.bytes().all(|b| b.is_ascii_digit()));
    match pid
        .and_then(|w| w.parse().ok())
        .filter(|pid| (1..=PID_MAX).contains(pid))
    {
        Some(pid) => PidFileContent::Pid(pid),
        None => PidFileContent::Garbage(String::from_utf8_lossy(rest).chars().take(SHOWN).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, time::Duration};

    use super::*;
    use crate::sources::testing::TempDir;

    fn read(path: &Path) -> PidFileState {
        super::read(path, None, &View::default())
    }

    #[test]
    fn what_daemons_write_is_understood() {
        for text in [
            "812",
            "812\n",
            "  812 \n",
            "812\0\0",
            "812\n/var/lib/postgresql\n1700000000\n5432\n",
            "0812",
        ] {
            assert_eq!(parse(text.as_bytes()), PidFileContent::Pid(812), "{text:?}");
        }
        for text in ["", "\n", " \0\t"] {
            assert_eq!(parse(text.as_bytes()), PidFileContent::Empty, "{text:?}");
        }
        for text in [
            "0",
            "-1",
            "+1",
            "pid=1",
            "812x",
            "4194305",
            "99999999999999999999",
            "\u{fffd}",
        ] {
            assert!(
                matches!(parse(text.as_bytes()), PidFileContent::Garbage(_)),
                "{text:?}"
            );
        }
        assert_eq!(
            parse(b"\xff\xff"),
            PidFileContent::Garbage("\u{fffd}\u{fffd}".into())
        );
        assert_eq!(parse(&[b'x'; 5000]), PidFileContent::Garbage("x".repeat(SHOWN)));
    }

    #[test]
    fn a_live_process_is_named() {
        let dir = TempDir::new("pid");
        let path = dir.path().join("p");
        assert_eq!(read(&path).content, PidFileContent::Absent);
        let before = clock::now();
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        let state = read(&path);
        assert_eq!(state.content, PidFileContent::Pid(std::process::id()));
        assert_eq!(state.process.unwrap().id.pid, std::process::id());
        // The kernel stamps files with a coarse clock.
        assert!(state.modified + Duration::from_millis(50) > before && state.modified <= clock::now());
        fs::write(&path, "").unwrap();
        assert_eq!(read(&path).content, PidFileContent::Empty);
    }

    #[test]
    fn planted_files_are_neither_followed_nor_waited_for() {
        let dir = TempDir::new("planted");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("target"), "1").unwrap();
        std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for name in ["link", "fifo", "socket"] {
            let state = read(&at(name));
            assert!(
                matches!(state.content, PidFileContent::Unreadable(_)),
                "{name}: {state:?}"
            );
            assert_eq!(state.process, None);
        }
        assert!(matches!(read(dir.path()).content, PidFileContent::Unreadable(_)));
    }
}
