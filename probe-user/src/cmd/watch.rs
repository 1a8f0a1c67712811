//! `probe watch`: live events and findings, of the daemon or of this process itself.

mod attached;
mod own;

use anyhow::bail;
use probe_user::config::{Config, load};

use crate::cli::{Reach, TierChoice, UsageError, Watch};

pub(crate) fn run(args: &Watch) -> anyhow::Result<()> {
    let asks = args.since.is_some() || args.socket.is_some();
    if let Some(option) = own_option(args) {
        if asks {
            let text = format!("--since and --socket ask the daemon, and {option} has probe watch by itself");
            return Err(UsageError(text).into());
        }
        return own::run(args);
    }
    let reach = Reach {
        socket: args.socket.clone(),
        config: None,
    };
    match attached::run(args, &super::client(&reach)?) {
        Err(e) if !asks && attached::is_alone(&e) => {
            tracing::info!("{e}; this process watches by itself");
            own::run(args)
        }
        result => result,
    }
}

/// An option that only a process can follow that watches by itself.
fn own_option(args: &Watch) -> Option<&'static str> {
    let d = &args.declared;
    [
        (args.discover, "--discover"),
        (args.config.is_some(), "--config"),
        (args.record.is_some(), "--record"),
        (args.bpf_log.is_some(), "--bpf-log"),
        (args.tier != TierChoice::Auto, "--tier"),
        (!d.unix.is_empty(), "--unix"),
        (!d.tcp.is_empty(), "--tcp"),
        (!d.udp.is_empty(), "--udp"),
        (d.pid.is_some(), "--pid"),
        (d.pid_file.is_some(), "--pid-file"),
        (d.exe.is_some(), "--exe"),
    ]
    .into_iter()
    .find_map(|(given, option)| given.then_some(option))
}

/// Keeps the services of these names.
pub(super) fn select(config: &mut Config, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    expect_known(names, &known)?;
    config.services.retain(|s| names.contains(&s.name));
    Ok(())
}

/// Each name is that of a service.
pub(super) fn expect_known(names: &[String], known: &[&str]) -> anyhow::Result<()> {
    match names.iter().find(|n| !known.contains(&n.as_str())) {
        None => Ok(()),
        Some(name) => {
            let hint = load::nearest(name, known).map_or(String::new(), |n| format!("; did you mean {n:?}?"));
            bail!("no service is named {name:?}{hint}")
        }
    }
}
