//! What a run says on its way.

use std::{fmt, path::Path, time::Duration};

use humantime::format_duration;

use super::{RunError, store::Row};
use crate::{
    event::{ExitStatus, Process},
    reclaim::Step,
    tree::{Left, Note},
};

/// One line each.
#[derive(Debug)]
pub enum Said<'a> {
    Step(&'a Step),
    Started {
        process: &'a Process,
        row: &'a Row,
        log: Option<&'a Path>,
    },
    /// A child that an earlier `probe run` had started.
    Adopted {
        process: &'a Process,
        row: &'a Row,
    },
    Ready(Duration),
    NotReady(Duration),
    Ended {
        process: &'a Process,
        status: ExitStatus,
    },
    NotStarted(&'a RunError),
    Pause(Duration),
    /// While a tree is ended.
    Note(Note<'a>),
    LivesOn(&'a Left),
}

/// `code 0`, `signal KILL`, `unknown`.
pub(super) fn status(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("code {code}"),
        ExitStatus::Signal { signal, .. } => format!("signal {signal}"),
        ExitStatus::Unknown => "unknown".into(),
    }
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Started { process, row, log } => {
                write!(
                    f,
                    "started process {}, run {}, restart {}",
                    process.id.pid, row.identity, row.restart_count
                )?;
                match log {
                    Some(log) => write!(f, "; it writes to {}", log.display()),
                    None => Ok(()),
                }
            }
            Self::Adopted { process, row } => write!(
                f,
                "took over process {}, run {}, restart {}",
                process.id.pid, row.identity, row.restart_count
            ),
            Self::Ready(after) => write!(f, "ready after {} ms", after.as_millis()),
            Self::NotReady(within) => write!(f, "not ready within {}", format_duration(*within)),
            Self::Ended { process, status: how } => {
                write!(f, "process {} ended: {}", process.id.pid, status(*how))
            }
            Self::NotStarted(error) => write!(f, "not started: {error}"),
            Self::Pause(pause) => write!(f, "starting again in {} ms", pause.as_millis()),
            Self::Note(Note::Sent { process, signal }) => {
                write!(
                    f,
                    "sent {signal} to process {} ({})",
                    process.id.pid, process.comm
                )
            }
            Self::Note(Note::Cgroup(cgroup)) => write!(f, "killed all of {}", cgroup.path()),
            Self::Note(Note::Ended(process)) => {
                write!(f, "process {} ({}) has ended", process.id.pid, process.comm)
            }
            Self::Note(Note::Failed { process, error }) => match process {
                Some(p) => write!(f, "process {} ({}): {error}", p.id.pid, p.comm),
                None => error.fmt(f),
            },
            Self::LivesOn(left) => write!(
                f,
                "process {} ({}) lives on after SIGKILL: {}",
                left.process.id.pid, left.process.comm, left.why
            ),
        }
    }
}
