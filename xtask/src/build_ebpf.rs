//! `cargo xtask build-ebpf`: builds the object that `probe` embeds, reproducibly, or checks the committed one.
//!
//! The object is committed, so that a plain `cargo build` needs neither LLVM nor the standard library's sources.

mod compile;
mod digest;
mod object_file;
mod record;
mod setup;
mod toolchain;
mod tools;

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};

use self::{record::Record, tools::Tools};
use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install what is missing: packages through apt (as root), bpf-linker into $PROBE_CACHE or ~/.cache/probe
    #[arg(long)]
    pub(crate) setup: bool,
    /// Compare with the committed object instead of replacing it
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = workspace::root();
    if args.check {
        check(&root, args.setup)
    } else {
        build(&root, args.setup)
    }
}

fn build(root: &Path, setup: bool) -> anyhow::Result<()> {
    let tools = find_tools(root, setup)?;
    println!("{}", tools.versions);
    let object = compile::compile(root, &tools)?;
    let record = Record::new(&object, digest::of_sources(root)?, tools.versions.clone());
    let directory = root.join(record::DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    replace(&directory.join(record::OBJECT), &object)?;
    replace(&directory.join(record::RECORD), record.to_text()?.as_bytes())?;
    println!("{}/{}: {} bytes", record::DIRECTORY, record::OBJECT, object.len());
    println!("object  sha256 {}", record.object.sha256);
    println!("sources sha256 {}", record.sources.sha256);
    Ok(())
}

fn check(root: &Path, setup: bool) -> anyhow::Result<()> {
    let record = record::verify_committed(root)?;
    println!(
        "the committed object belongs to the sources (sha256 {})",
        record.sources.sha256
    );

    let tools = match find_tools(root, setup) {
        Ok(tools) => tools,
        Err(error) if setup => return Err(error),
        Err(error) => {
            println!("WARNING: the object was NOT rebuilt, only the digests were compared.");
            println!("{error:#}");
            return Ok(());
        }
    };
    // With other tools the bytes differ, but it must still build and look right.
    let object = compile::compile(root, &tools)?;
    if tools.versions != record.tools {
        println!(
            "The object builds, but with other tools than the committed one, so only the digests were compared."
        );
        println!("here:\n{}\ncommitted:\n{}", tools.versions, record.tools);
        return Ok(());
    }
    let sha256 = digest::hex(&object);
    ensure!(
        sha256 == record.object.sha256,
        "the same sources and tools gave another object: built sha256 {sha256}, committed {}; \
         the built one is target/bpf/{}",
        record.object.sha256,
        record::OBJECT,
    );
    println!("rebuilt byte for byte: sha256 {sha256}");
    Ok(())
}

/// Finds the tools; installs what is missing if asked to.
fn find_tools(root: &Path, setup: bool) -> anyhow::Result<Tools> {
    let committed = Record::read(root)?;
    let wanted = committed.as_ref().map(|record| &record.tools);
    if setup {
        setup::install(root, wanted)?;
    }
    match Tools::find(root, wanted)? {
        Ok(tools) => Ok(tools),
        Err(missing) => bail!("{missing}"),
    }
}

/// Writes the file under a temporary name first, so that nobody embeds half an object.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).with_context(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("replace {}", path.display()))
}
