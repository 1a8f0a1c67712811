//! `cargo xtask docs`: writes the pages that are made from the program, and the book, where mdbook is installed.

use std::{fs, process::Command, time::Duration};

use anyhow::Context;

use crate::{bless, child, workspace};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also make the book, in target/book
    #[arg(long)]
    book: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    bless::build_probe()?;
    let probe = workspace::target_dir()?.join("debug/probe");
    let page = child::capture(
        Command::new(probe).args(["config", "schema", "--format", "markdown"]),
        LIMIT,
    )?;
    let docs = workspace::root().join("docs");
    let path = docs.join("configuration.md");
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    if args.book {
        child::show(Command::new("mdbook").arg("build").arg(&docs), LIMIT)
            .context("the book needs mdbook: cargo install mdbook")?;
    }
    Ok(())
}
