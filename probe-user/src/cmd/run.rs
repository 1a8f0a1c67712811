//! `probe run`: a single instance, restarted, adopted, resumed.

mod resume;

use std::{env, io::Write, path::Path};

use anyhow::Context;
use probe_user::{
    config::{Config, Service, load},
    reclaim,
    report::plain,
    run::{
        self, Ended, Options, RunError, Said,
        log::Keep,
        signals::exit_code,
        store::{Argument, Command, Restart},
    },
};

use super::{
    exec::{OWN_ERROR, TIMED_OUT, spawn_code},
    journal::Journal,
};
use crate::cli::{Exit, RestartChoice, Run};

pub(crate) fn run(args: &Run) -> anyhow::Result<()> {
    let own = |e| Exit::with(OWN_ERROR, e);
    let config = load::load(args.config.as_deref(), Path::new(load::DIRECTORY))
        .map_err(|e| own(e.into()))?
        .map(|l| l.config)
        .unwrap_or_default();
    match &args.service {
        Some(service) => one(args, &config, service),
        None => resume::all(args, &config),
    }
}

fn one(args: &Run, config: &Config, name: &str) -> anyhow::Result<()> {
    let own = |e| Exit::with(OWN_ERROR, e);
    let options = options(args, config, name).map_err(own)?;
    let journal = Journal::open();
    let mut say = |said: Said<'_>| {
        if let (Some(journal), Said::Step(step)) = (&journal, &said) {
            journal.step(step);
        }
        // What is run does not depend on who reads of it.
        _ = writeln!(
            std::io::stderr(),
            "probe: {}: {}",
            plain(name),
            plain(&said.to_string())
        );
    };
    match run::run(&options, &mut say) {
        Ok(Ended::Child(status)) => match exit_code(status) {
            Some(0) => Ok(()),
            Some(code) => Err(Exit::silent(code)),
            None => Err(own(anyhow::anyhow!("how {} ended is unknown", plain(name)))),
        },
        Ok(Ended::Limit(_)) => Err(Exit::with(
            TIMED_OUT,
            anyhow::anyhow!("{} did not end within its limit", plain(name)),
        )),
        Ok(Ended::GaveUp(status)) => Err(Exit::with(
            exit_code(status).filter(|c| *c != 0).unwrap_or(OWN_ERROR),
            anyhow::anyhow!("gave up on {}, as `give_up_after` says", plain(name)),
        )),
        Err(error) => {
            let code = match &error {
                RunError::Spawn(e) => spawn_code(e),
                _ => OWN_ERROR,
            };
            Err(Exit::with(code, error.into()))
        }
    }
}

fn options(args: &Run, config: &Config, name: &str) -> anyhow::Result<Options> {
    let service = match config.services.iter().find(|s| s.name == name) {
        Some(service) => service.clone(),
        None => Service::named(name),
    };
    let directory = env::current_dir().context("the working directory can't be read")?;
    let command = (!args.resume).then(|| Command {
        argv: args.argv.iter().map(|a| Argument::from(a.as_os_str())).collect(),
        directory: Some(Argument::from(directory.as_os_str())),
        restart: match args.restart {
            RestartChoice::Never => Restart::Never,
            RestartChoice::OnFailure => Restart::OnFailure,
            RestartChoice::Always => Restart::Always,
        },
        limit: args.limit,
        notify: args.notify,
        inherit_output: args.inherit_output,
    });
    Ok(Options {
        service,
        command,
        reclaim: reclaim::Options::new(&config.probe),
        lock_within: args.wait,
        keep: Keep {
            files: args.keep_logs,
            bytes: args.keep_log_size.0,
        },
    })
}
