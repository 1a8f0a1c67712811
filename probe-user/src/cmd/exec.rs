//! `probe exec`: a plain time limit.

use std::{env, ffi::OsStr, io, path::Path, time::Duration};

use anyhow::Context;
use probe_user::{
    config::load,
    exec::{self, Ended, ExecError, LIMIT_VARIABLE, Options},
    report::plain,
    run::{child::SpawnError, signals::exit_code},
    tree::Note,
};

use crate::cli::{Exec, Exit};

/// As timeout(1) has them.
pub(crate) const TIMED_OUT: u8 = 124;
pub(crate) const OWN_ERROR: u8 = 125;
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// From SIGKILL until a process is told as one that nothing ends.
const KILL_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Exec) -> anyhow::Result<()> {
    let own = |e| Exit::with(OWN_ERROR, e);
    let options = options(args).map_err(own)?;
    let mut note = |note: Note<'_>| tracing::debug!("{note:?}");
    match exec::exec(&options, &mut note) {
        Ok(Ended::Itself(status)) => match exit_code(status) {
            Some(0) => Ok(()),
            Some(code) => Err(Exit::silent(code)),
            None => Err(own(anyhow::anyhow!("how the command ended is unknown"))),
        },
        Ok(Ended::Limit(end)) => {
            let command = plain(&options.argv.first().map_or("".into(), |a| a.to_string_lossy()));
            let mut text = format!(
                "{command} did not end within {}",
                humantime::format_duration(options.limit.unwrap_or_default())
            );
            for left in &end.left {
                let what = plain(left.process.exe.as_deref().unwrap_or(&left.process.comm));
                text += &format!(
                    "; process {} ({what}) lives on: {}",
                    left.process.id.pid, left.why
                );
            }
            Err(Exit::with(TIMED_OUT, anyhow::anyhow!(text)))
        }
        Err(error) => Err(Exit::with(code_of(&error), error.into())),
    }
}

/// Which code tells this error.
fn code_of(error: &ExecError) -> u8 {
    match error {
        ExecError::Spawn(e) => spawn_code(e),
        ExecError::Tree(_) | ExecError::Own { .. } => OWN_ERROR,
    }
}

pub(crate) fn spawn_code(error: &SpawnError) -> u8 {
    match error {
        SpawnError::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
        SpawnError::Exec { .. } => NOT_RUN,
        _ => OWN_ERROR,
    }
}

fn options(args: &Exec) -> anyhow::Result<Options> {
    let variable = env::var_os(LIMIT_VARIABLE);
    // A limit that was given needs no configuration, which an ordinary user may not be able to read.
    let limits = if args.limit.is_some() || variable.as_deref().is_some_and(|v| v != OsStr::new("")) {
        Default::default()
    } else {
        load::load(args.config.as_deref(), Path::new(load::DIRECTORY))
            .context("the limits are unknown")?
            .map(|l| l.config.limits)
            .unwrap_or_default()
    };
    let program = args.argv.first().context("no command was given")?;
    let limit = exec::limit(args.limit, variable.as_deref(), &limits, program).map_err(anyhow::Error::msg)?;
    Ok(Options {
        limit,
        argv: args.argv.clone(),
        grace: args.grace,
        kill_within: KILL_WITHIN,
    })
}
