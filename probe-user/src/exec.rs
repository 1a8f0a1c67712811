//! A time limit for a command: when it is over, the command and everything that it started is gone.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::Path,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{prctl, signal::Signal as NixSignal},
};

use crate::{
    clock,
    config::{Span, span},
    event::ExitStatus,
    run::{
        child::{self, Plan, SpawnError},
        signals::{Signals, reap},
    },
    signal::Signal,
    tree::{End, Handle, Limits, Note, OpenError, Tree},
};

/// The variable that sets a limit for all commands.
pub const LIMIT_VARIABLE: &str = "PROBE_LIMIT";

/// How a command is run.
#[derive(Debug)]
pub struct Options {
    pub argv: Vec<OsString>,
    /// `None`: for ever.
    pub limit: Option<Duration>,
    /// From TERM to KILL.
    pub grace: Duration,
    /// From KILL until what lives on is given up.
    pub kill_within: Duration,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    Itself(ExitStatus),
    /// The limit was over.
    Limit(End),
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Tree(#[from] OpenError),
    #[error("{what}: {source}")]
    Own { what: &'static str, source: io::Error },
}

/// The limit of a command: what was asked for, else the variable's, else the configuration's for the command's name.
///
/// # Errors
/// When the variable holds no duration.
pub fn limit(
    asked: Option<Duration>,
    variable: Option<&OsStr>,
    limits: &BTreeMap<String, Span>,
    program: &OsStr,
) -> Result<Option<Duration>, String> {
    if asked.is_some() {
        return Ok(asked);
    }
    if let Some(text) = variable.filter(|v| !v.is_empty()) {
        let limit = span::parse(&text.to_string_lossy()).map_err(|e| format!("{LIMIT_VARIABLE}: {e}"))?;
        return Ok(Some(limit));
    }
    let name = Path::new(program)
        .file_name()
        .unwrap_or(program)
        .to_string_lossy();
    Ok(limits.get(name.as_ref()).map(|span| span.0))
}

/// Runs a command to its end or to the limit's. The process must have one thread only.
///
/// # Errors
/// When it can't be run, or what it started can't be ended.
pub fn exec(options: &Options, note: &mut dyn FnMut(Note<'_>)) -> Result<Ended, ExecError> {
    let own = |what| move |source: io::Error| ExecError::Own { what, source };
    // Whatever loses its parent below us becomes our child, instead of getting lost.
    prctl::set_child_subreaper(true).map_err(|e| own("cannot become the subreaper")(e.into()))?;
    let signals = Signals::take().map_err(own("cannot take signals"))?;
    let plan = Plan {
        argv: &options.argv,
        directory: None,
        output: None,
        environment: Vec::new(),
        mask: signals.before(),
        // Nobody would be left to keep the limit.
        on_our_end: Some(NixSignal::SIGTERM),
    };
    let handle = child::spawn(&plan, &mut |_| Ok(())).inspect_err(|_| {
        reap(0);
    })?;
    let until = options.limit.map(|limit| clock::now() + limit);
    loop {
        if let Some(status) = reap(handle.pid()) {
            return Ok(Ended::Itself(status));
        }
        let left = until.map(|until| until.since(clock::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        for came in signals.drain().into_iter().filter(|c| !c.by_terminal) {
            // It may just have ended; that is seen above.
            let _ = handle.send(came.signal);
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(signals.fd(), PollFlags::POLLIN),
            PollFd::new(handle.fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(own("cannot wait")(e.into())),
        }
    }
    let limits = Limits {
        signal: Signal::TERM,
        stop_within: options.grace,
        kill_within: options.kill_within,
    };
    let end = end_all(handle, &limits, note)?;
    reap(0);
    Ok(Ended::Limit(end))
}

/// Ends a child, what descends from it, and every orphan that came to us as the subreaper.
pub(crate) fn end_all(
    child: Handle,
    limits: &Limits,
    note: &mut dyn FnMut(Note<'_>),
) -> Result<End, OpenError> {
    let mut tree = Tree::new(vec![child]);
    tree.under = Handle::open(std::process::id())?;
    tree.end(limits, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_counts() {
        let limits = BTreeMap::from([("git".to_owned(), Span(Duration::from_secs(120)))]);
        let of = |asked, variable: Option<&str>, program: &str| {
            limit(asked, variable.map(OsStr::new), &limits, program.as_ref())
        };
        let s = |n| Some(Duration::from_secs(n));
        assert_eq!(of(s(1), Some("2s"), "git"), Ok(s(1)));
        assert_eq!(of(None, Some("2s"), "git"), Ok(s(2)));
        assert_eq!(of(None, Some(""), "git"), Ok(s(120)));
        assert_eq!(of(None, None, "/usr/bin/git"), Ok(s(120)));
        assert_eq!(of(None, None, "gits"), Ok(None));
        assert!(of(None, Some("soon"), "git").unwrap_err().contains("PROBE_LIMIT"));
    }
}
