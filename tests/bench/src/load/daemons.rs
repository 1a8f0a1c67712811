//! Daemons with a socket and a PID file each, and nothing to do.

use std::{fs, os::unix::net::UnixListener, path::Path};

use super::herd;

pub(super) fn play(directory: &Path, count: usize) -> anyhow::Result<()> {
    herd::keep(count, |n| {
        let listener = UnixListener::bind(directory.join(format!("s{n}.sock")))?;
        let pid_file = directory.join(format!("s{n}.pid"));
        fs::write(pid_file, format!("{}\n", std::process::id()))?;
        Ok(listener)
    })
}
