//! `cargo xtask package`: the Debian package and the static program, and a test that the package leaves nothing behind.

mod chroot;
mod deb;
mod pages;
mod sbom;
mod static_build;

use std::{path::PathBuf, process::Command, time::Duration};

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
    /// What cargo builds it with; `dev` is enough to try the packaging
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

impl Args {
    /// Where cargo puts what it builds this way, below the target directory.
    fn directory(&self) -> &str {
        match self.profile.as_str() {
            "dev" => "debug",
            other => other,
        }
    }

    /// A build of the program.
    fn cargo(&self) -> Command {
        let mut cargo = workspace::cargo();
        cargo.args([
            "build",
            "--profile",
            &self.profile,
            "--package",
            "probe-user",
            "--bin",
            "probe",
        ]);
        cargo
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.static_build {
        let program = static_build::build(args)?;
        println!("{}", program.display());
        println!("{}", sbom::write()?.display());
        return Ok(());
    }
    let [package, later] = pair(args)?;
    println!("{}", package.display());
    println!("{}", sbom::write()?.display());
    if args.test {
        chroot::test(&package, &later)?;
    }
    Ok(())
}

/// Whether the static program compiles.
pub(crate) fn check_static() -> anyhow::Result<()> {
    static_build::check()
}

/// The package of the program as it is built for tests, and the same program under a later number.
pub(crate) fn for_tests() -> anyhow::Result<[PathBuf; 2]> {
    pair(&Args {
        static_build: false,
        test: false,
        profile: "dev".to_owned(),
    })
}

fn pair(args: &Args) -> anyhow::Result<[PathBuf; 2]> {
    child::show(&mut args.cargo(), LIMIT)?;
    pages::write(&workspace::target_dir()?.join(args.directory()).join("probe"))?;
    Ok([deb::build("1", &args.profile)?, deb::build("2", &args.profile)?])
}
