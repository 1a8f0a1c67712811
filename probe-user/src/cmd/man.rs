//! `probe man`.

use std::{
    fs,
    io::{self, Write},
};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Man};

pub(crate) fn run(args: &Man) -> anyhow::Result<()> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        // Its pages would only say how to read the others.
        clap_mangen::Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page)?;
        let mut out = io::stdout().lock();
        out.write_all(&page)?;
        return Ok(out.flush()?);
    };
    let context = || format!("the manual pages can't be written to {}", directory.display());
    fs::create_dir_all(directory).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(context)
}
