//! `probe daemon`.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use probe_user::{
    config::load,
    daemon::{self, Options, Source},
    kernel::pins,
    spawner,
};

use crate::cli::daemon::Daemon;

/// Threads that blocking work leaves behind end after this time.
const KEEP_THREADS: Duration = Duration::from_secs(1);
/// Blocking work that is not done when everything else has ended is left to the kernel.
const LEAVE_AFTER: Duration = Duration::from_millis(50);

fn uninstall(source: &Source) -> anyhow::Result<()> {
    let config = source.load()?;
    let probe = config.map(|c| c.probe).unwrap_or_default();
    let Some(directory) = probe.pins() else {
        anyhow::bail!(
            "`pin_dir` is not set, so a daemon at {} pins nothing",
            probe.socket
        );
    };
    let removed = pins::remove_all(&directory)?;
    let at = directory.display();
    let text = match removed {
        0 => format!("nothing is pinned in {at}"),
        n => format!("removed {n} pins of {at}: probe's programs are detached"),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

pub(crate) fn run(args: &Daemon) -> anyhow::Result<()> {
    let source = match (&args.config, &args.config_dir) {
        (Some(file), _) => Source::File(file.clone()),
        (None, Some(directory)) => Source::Directory(directory.clone()),
        (None, None) => Source::Directory(Path::new(load::DIRECTORY).to_owned()),
    };
    if args.uninstall {
        return uninstall(&source);
    }
    // Before anything else is opened.
    let spawner = spawner::start()?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("probe-blocking")
        .thread_keep_alive(KEEP_THREADS)
        // These read, write and look up; none sets anything up.
        .on_thread_start(daemon::sandbox::reduce_this_thread)
        .build()?;
    let result = tokio.block_on(daemon::run(Options {
        source,
        tier: args.tier.wanted(),
        spawner: Some(spawner),
    }));
    tokio.shutdown_timeout(LEAVE_AFTER);
    Ok(result?)
}
