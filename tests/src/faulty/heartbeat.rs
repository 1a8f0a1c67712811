//! Signs of life.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

/// How often the daemon shows one.
pub(super) const EVERY: Duration = Duration::from_millis(100);

const ALIVE: &str = "12:00:00 INFO daemon alive, all is well";

/// One way to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beat {
    /// Sets the file's modification time.
    Touch(PathBuf),
    /// Writes the second since 1970 into the file.
    Epoch(PathBuf),
    /// Appends a line to the file.
    Log(PathBuf),
    /// Writes a line to the standard error.
    Stderr,
    /// Tells the service manager.
    Notify,
}

impl FromStr for Beat {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (way, path) = text.split_once('=').context("expected WAY=FILE")?;
        Ok(match way {
            "touch" => Self::Touch(path.into()),
            "epoch" => Self::Epoch(path.into()),
            "log" => Self::Log(path.into()),
            "stderr" => Self::Stderr,
            "notify" => Self::Notify,
            _ => bail!("unknown heartbeat {way:?}"),
        })
    }
}

impl Beat {
    pub(super) fn beat(&self) -> Result<()> {
        match self {
            Self::Touch(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Ok(file.set_modified(now())?)
            }
            Self::Epoch(path) => {
                let second = now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
                Ok(fs::write(path, format!("{second}\n"))?)
            }
            Self::Log(path) => log(path.to_str().context("a path in UTF-8")?, ALIVE),
            Self::Stderr => Ok(writeln!(std::io::stderr(), "{ALIVE}")?),
            Self::Notify => notify("WATCHDOG=1"),
        }
    }
}

/// sd_notify(3): one datagram to the socket that the service manager names.
fn notify(state: &str) -> Result<()> {
    let name = std::env::var_os("NOTIFY_SOCKET").context("NOTIFY_SOCKET is not set")?;
    UnixDatagram::unbound()?.send_to(state.as_bytes(), &name)?;
    Ok(())
}

pub(super) fn touch(path: &str) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("open {path}"))?;
    Ok(file.set_modified(now())?)
}

pub(super) fn log(path: &str, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {path}"))?;
    Ok(writeln!(file, "{text}")?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a daemon of its own, not a part of probe"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
