//! One process that listens, to be killed.

use std::{fs, os::unix::net::UnixListener, path::Path};

use super::child::{READY, until_told_to_end};

pub(super) fn play(path: &Path) -> anyhow::Result<()> {
    // As daemons do that find the socket file of their predecessor.
    _ = fs::remove_file(path);
    let _listener = UnixListener::bind(path)?;
    fs::write(path.with_extension("pid"), format!("{}\n", std::process::id()))?;
    println!("{READY}");
    until_told_to_end();
    Ok(())
}
