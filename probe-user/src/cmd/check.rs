//! `probe check`: one look, one verdict, one line for a monitoring system.

use std::{
    io::{self, Write},
    path::Path,
};

use probe_user::{
    check::{self, Report, Status},
    config::{Config, load},
    discover, report,
    sources::observer::Observer,
    who,
};

use crate::cli::{Check, Exit};

pub(crate) fn run(args: &Check) -> anyhow::Result<()> {
    let found = match verdict(args) {
        Ok(found) => found,
        Err(e) => {
            // A monitoring system shows what stands on stdout. Of several lines the first says what is wrong.
            let text = report::plain(&format!("{e:#}").replace('\n', "; ")).replace('|', "/");
            writeln!(io::stdout(), "PROBE UNKNOWN - {text}")?;
            return Err(Exit::silent(Status::Unknown.code()));
        }
    };
    let mut line = Vec::new();
    if args.json {
        report::json_line(&mut line, &found)?;
    } else {
        line.extend_from_slice(check::plugin(&found).as_bytes());
    }
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    match found.status {
        Status::Ok => Ok(()),
        status => Err(Exit::silent(status.code())),
    }
}

fn verdict(args: &Check) -> anyhow::Result<Report> {
    let loaded = load::load(args.config.as_deref(), Path::new(load::DIRECTORY))?;
    let mut observer = Observer::new(Some(who::tables()))?;
    let mut config: Config = loaded.map(|l| l.config).unwrap_or_default();
    if config.services.is_empty() {
        discover::declare(&mut config, &mut observer)?;
    }
    super::watch::select(&mut config, &args.services)?;
    anyhow::ensure!(
        !config.services.is_empty(),
        "nothing is declared, and nothing that listens or has a PID file under /run was found"
    );
    Ok(check::check(config, &mut observer))
}
