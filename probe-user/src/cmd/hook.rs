//! `probe hook test`.

use std::{io::Write, path::Path, time::Duration};

use probe_user::{
    api::types::HookTested,
    client::{ClientError, escape},
    config::{Config, load},
    hooks,
    report::plain,
};
use serde::Serialize;

use crate::cli::{
    Exit,
    hook::{Hook, HookCommand, HookTest},
};

const FAILED: u8 = 1;
/// Longer than the daemon lets a hook run before it answers that it could not wait any longer.
const LONGEST: Duration = Duration::from_secs(15);

pub(crate) fn run(args: &Hook) -> anyhow::Result<()> {
    match &args.command {
        HookCommand::Test(args) => test(args),
    }
}

fn test(args: &HookTest) -> anyhow::Result<()> {
    let by_daemon = match args.direct {
        true => None,
        false => by_daemon(args)?,
    };
    let tested = match by_daemon {
        Some(tested) => tested,
        None => {
            let config = load::load(args.reach.config.as_deref(), Path::new(load::DIRECTORY))?
                .map(|l| l.config)
                .unwrap_or_default();
            directly(&config, &args.name)?
        }
    };
    super::print(args.json, &tested, |out, _| {
        writeln!(
            out,
            "hook {}: {}, {}",
            plain(&tested.hook),
            tested.outcome,
            plain(&tested.detail)
        )?;
        if !tested.output.is_empty() {
            writeln!(out, "it wrote: {}", plain(&tested.output))?;
        }
        Ok(())
    })?;
    if tested.outcome == "ok" {
        return Ok(());
    }
    Err(Exit::silent(FAILED))
}

/// `None`: no daemon runs.
fn by_daemon(args: &HookTest) -> anyhow::Result<Option<HookTested>> {
    let client = super::client(&args.reach)?.patient(LONGEST);
    let path = format!("/v1/hooks/{}/test", escape(&args.name));
    let tested = super::block_on(async { Ok(client.post(&path, &Empty {}).await?) });
    match tested {
        Ok(tested) => Ok(Some(tested)),
        Err(e) if matches!(e.downcast_ref(), Some(ClientError::NotRunning { .. })) => Ok(None),
        Err(e) => Err(e),
    }
}

/// There is nothing to be said.
#[derive(Serialize)]
struct Empty {}

fn directly(config: &Config, name: &str) -> anyhow::Result<HookTested> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let attempt = runtime.block_on(hooks::test_directly(config, name));
    // Nothing that still looks up a name may keep us.
    runtime.shutdown_background();
    Ok(attempt?.tested(name))
}
