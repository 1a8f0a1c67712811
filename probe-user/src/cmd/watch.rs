//! `probe watch`.

use crate::cli::Watch;

pub(crate) fn run(args: &Watch) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("watch is not built yet")
}
