//! `probe hook test`.

use std::{
    io::{self, Write},
    path::Path,
};

use probe_user::{
    api::types::HookTested,
    config::{Config, load},
    hooks,
    report::plain,
};

use crate::cli::{
    Exit,
    hook::{Hook, HookCommand, HookTest},
};

const FAILED: u8 = 1;

pub(crate) fn run(args: &Hook) -> anyhow::Result<()> {
    match &args.command {
        HookCommand::Test(args) => test(args),
    }
}

fn test(args: &HookTest) -> anyhow::Result<()> {
    let config = load::load(args.config.as_deref(), Path::new(load::DIRECTORY))?
        .map(|l| l.config)
        .unwrap_or_default();
    let tested = directly(&config, &args.name)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &tested)?;
        writeln!(out)?;
    } else {
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
    }
    if tested.outcome == "ok" {
        return Ok(());
    }
    Err(Exit::silent(FAILED))
}

fn directly(config: &Config, name: &str) -> anyhow::Result<HookTested> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let attempt = runtime.block_on(hooks::test_directly(config, name));
    // Nothing that still looks up a name may keep us.
    runtime.shutdown_background();
    Ok(attempt?.tested(name))
}
