//! `cargo xtask package`: the Debian package and the static program, and a test that the package leaves nothing behind.

mod chroot;
mod deb;
mod pages;
mod static_build;

use std::time::Duration;

use crate::{child, workspace};

/// For a release build.
const LIMIT: Duration = Duration::from_secs(60 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the program that needs no library, for any distribution and for images, in place of the package
    #[arg(long = "static", conflicts_with = "test")]
    static_build: bool,
    /// Also install, upgrade, remove and purge it in a fresh Debian, and list what is left (needs root)
    #[arg(long)]
    test: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.static_build {
        let program = static_build::build()?;
        println!("{}", program.display());
        return Ok(());
    }
    child::show(
        workspace::cargo().args(["build", "--release", "--package", "probe-user", "--bin", "probe"]),
        LIMIT,
    )?;
    pages::write()?;
    let package = deb::build("1")?;
    println!("{}", package.display());
    if args.test {
        // The same program under a later number.
        let later = deb::build("2")?;
        chroot::test(&package, &later)?;
    }
    Ok(())
}
