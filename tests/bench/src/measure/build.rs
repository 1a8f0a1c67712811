//! What it takes to build probe, and what comes out.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use anyhow::{Context, bail, ensure};
use probe_tests::probe_binary;
use probe_user::clock;

use super::Measure;
use crate::{
    peer::nanos,
    row::{Row, Unit},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[(
        "build",
        "Build and binary, default features",
        "A clean release build of `probe` on two cores, in a directory of its own, from sources that are there already; the size of the \
         program without symbols; packages that are compiled into it or for it.",
    )],
    run,
};

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row] = rows else { bail!("one row") };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("the workspace")?;
    let cargo = || {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root);
        command
    };
    let tree = cargo()
        .args([
            "tree",
            "--locked",
            "--package",
            "probe-user",
            "--edges",
            "normal,build",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()?;
    ensure!(tree.status.success(), "cargo tree: {}", tree.status);
    let packages: BTreeSet<String> = String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect();
    row.value("packages", Unit::Count, packages.len() as f64);
    row.aim_at_most("packages", Unit::Count, packages.len() as f64, 200.0);

    let stripped = env::temp_dir().join(format!("probe-stripped-{}", std::process::id()));
    let status = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(probe_binary())
        .status();
    let size = match status {
        Ok(status) if status.success() => fs::metadata(&stripped)?.len(),
        _ => bail!("strip (binutils) cannot be run"),
    };
    fs::remove_file(&stripped)?;
    row.value("program", Unit::Bytes, size as f64);
    row.aim_at_most("program", Unit::Bytes, size as f64, 10.0 * 1_048_576.0);

    let target = env::temp_dir().join(format!("probe-build-{}", std::process::id()));
    let mut build = cargo();
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "probe-user",
            "--jobs",
            "2",
            "--quiet",
            "--target-dir",
        ])
        .arg(&target);
    let began = clock::now();
    let status = build.status();
    let took = nanos(clock::now().since(began));
    _ = fs::remove_dir_all(&target);
    ensure!(status?.success(), "the build failed");
    row.value("clean build", Unit::Nanos, took);
    row.aim_at_most("clean build", Unit::Nanos, took, 240e9);
    Ok(())
}
