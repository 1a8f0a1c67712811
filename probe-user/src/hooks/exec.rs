//! Runs a program: no shell, a small environment, its own process group, a time limit.
//!
//! The program and what it starts in its process group end together: when the time is over all get SIGTERM, and SIGKILL
//! after [`GRACE`]; when the program ends by itself, what it left behind in its group is killed ([`Rest::End`]). The
//! group is only ever signalled while its leader is not reaped, so its number can't be another group's. What moves to a
//! session of its own leaves the group, and is nobody's any more: that is how daemons are started.

mod group;
mod output;
mod spawn;
#[cfg(test)]
mod tests;
mod user;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe,
    pin, select,
    time::{sleep, timeout},
};

pub(crate) use self::group::Group;
use self::output::Kept;
use crate::{signal::Signal, spawner};

/// From SIGTERM to SIGKILL.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// How long output is waited for that somebody outside of the group still holds open.
const OUTPUT_WITHIN: Duration = Duration::from_millis(200);

/// What a program that ran out of time is said to have exited with, as `timeout` of the coreutils does.
pub const TIMED_OUT: i32 = 124;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program, looked for in a fixed `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Besides `PATH`, `LANG`, `HOME`, and with a `user` also `USER` and `LOGNAME`.
    pub environment: Vec<(String, String)>,
    /// Whom it runs as, with all of the user's groups. `None`: as probe does.
    pub user: Option<String>,
    /// What it can read from its input.
    pub input: Vec<u8>,
    pub limit: Duration,
    pub rest: Rest,
}

/// What becomes of processes in the group that outlive the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rest {
    /// They are killed. What the program writes is kept.
    End,
    /// They are left alone: the program starts a daemon. What it writes is not read, because nobody would read it later.
    Leave,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    pub end: End,
    /// The last of what it wrote, to either output, with what steers a terminal escaped.
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Exited(i32),
    Killed(Signal),
    TimedOut {
        limit: Duration,
        /// Not even SIGKILL has ended it by now.
        unkillable: bool,
    },
    /// Why it was not started.
    NotStarted(String),
}

impl End {
    /// As a shell would tell it; 124 for what ran out of time, 125 for what was not started.
    pub fn code(&self) -> i32 {
        match self {
            Self::Exited(code) => *code,
            Self::Killed(signal) => 128 + signal.0,
            Self::TimedOut { .. } => TIMED_OUT,
            Self::NotStarted(_) => 125,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by {signal}"),
            Self::TimedOut { limit, unkillable } => {
                write!(f, "time-out after {limit:?}, exit code {TIMED_OUT}")?;
                if *unkillable {
                    f.write_str("; SIGKILL has not ended it yet")?;
                }
                Ok(())
            }
            Self::NotStarted(why) => f.write_str(why),
        }
    }
}

/// Runs one program at a time.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Its name among those that the spawner knows.
    id: u64,
    /// A killed process is still there.
    stuck: Arc<AtomicBool>,
}

impl Default for Runner {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            stuck: Arc::default(),
        }
    }
}

impl Runner {
    /// Runs it to its end, or the end of its time: in the spawner where there is one, because a daemon in its sandbox runs
    /// nothing. When this is dropped before that, the group is killed.
    pub async fn run(&self, run: Run) -> Ran {
        if spawner::is_there() {
            return spawner::run(self.id, run).await;
        }
        self.run_here(run).await
    }

    /// Whether a killed program is still there.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// As a child of this process.
    pub(crate) async fn run_here(&self, run: Run) -> Ran {
        if self.is_stuck() {
            return not_started("the program that was killed before is still there".to_owned());
        }
        let (limit, rest, input) = (run.limit, run.rest, run.input.clone());
        let over = sleep(limit);
        pin!(over);
        // Looking up a user and starting a program can wait for a network. What starts after all is killed at once.
        let mut starting = tokio::task::spawn_blocking(move || spawn::spawn(&run));
        let started = select! {
            started = &mut starting => started,
            () = &mut over => return not_started(format!("it could not be started within {limit:?}")),
        };
        let (mut group, pipes) = match started {
            Ok(Ok(started)) => started,
            Ok(Err(why)) => return not_started(why),
            Err(panic) => return not_started(panic.to_string()),
        };
        if let Err(e) = group.watch() {
            return not_started(format!("cannot wait for it: {e}"));
        }
        let kept = Kept::default();
        let io = async {
            let Some(pipes) = pipes else { return };
            let (to, from) = (
                pipe::Sender::from_owned_fd(pipes.input),
                pipe::Receiver::from_owned_fd(pipes.output),
            );
            let feed = async {
                if let Ok(mut to) = to {
                    // A program need not read its input.
                    _ = to.write_all(&input).await;
                }
            };
            let read = async {
                if let Ok(from) = from {
                    kept.fill(from).await;
                }
            };
            tokio::join!(feed, read);
        };
        pin!(io);
        let mut io_done = false;
        let in_time = loop {
            select! {
                biased;
                () = group.ended() => break true,
                () = &mut over => break false,
                () = &mut io, if !io_done => io_done = true,
            }
        };
        if !in_time {
            group.terminate();
            let grace = sleep(GRACE);
            pin!(grace);
            let mut leader_gone = false;
            // What the leader started may need the grace too: it has ended when nobody holds the output any more.
            while !(leader_gone && io_done) {
                select! {
                    biased;
                    () = group.ended(), if !leader_gone => leader_gone = true,
                    () = &mut io, if !io_done => io_done = true,
                    () = &mut grace => break,
                }
            }
        }
        if rest == Rest::End || !in_time {
            group.kill();
        }
        let gone = timeout(GONE_WITHIN, group.ended()).await.is_ok();
        if !io_done {
            _ = timeout(OUTPUT_WITHIN, &mut io).await;
        }
        let status = if gone {
            group.reap()
        } else {
            group.leave_to_a_thread(&self.stuck);
            None
        };
        let end = match status {
            Some(end) if in_time => end,
            _ => End::TimedOut {
                limit,
                unkillable: !gone,
            },
        };
        Ran {
            end,
            output: kept.text(),
        }
    }
}

fn not_started(why: String) -> Ran {
    Ran {
        end: End::NotStarted(why),
        output: String::new(),
    }
}
