//! What the measures need to run beside them: processes with open files, daemons, work for the processors. All of it is this
//! program again, in another role, and ends with whoever started it.

pub(crate) mod burn;
pub(crate) mod bystanders;
pub(crate) mod child;
pub(crate) mod daemons;
pub(crate) mod herd;
pub(crate) mod listener;
pub(crate) mod storm;

use std::path::PathBuf;

use clap::Subcommand;

/// Another role of this program.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Processes that hold open files and do nothing.
    Bystanders { processes: usize, descriptors: usize },
    /// Daemons with a socket and a PID file each, and nothing to do.
    Daemons { directory: PathBuf, count: usize },
    /// One process that listens.
    Listener { path: PathBuf },
    /// One process that never rests.
    Burn,
    /// Forks children that end at once; signals arrive, and are caught.
    Storm { path: PathBuf, seconds: u64 },
}

impl Role {
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        match self {
            Self::Bystanders {
                processes,
                descriptors,
            } => bystanders::play(*processes, *descriptors),
            Self::Daemons { directory, count } => daemons::play(directory, *count),
            Self::Listener { path } => listener::play(path),
            Self::Burn => burn::play(),
            Self::Storm { path, seconds } => storm::play(path, *seconds),
        }
    }
}
