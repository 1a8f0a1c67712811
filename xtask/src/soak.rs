//! `cargo xtask soak`: hours of daemons that fail and are mended, beside churn, reloads and ends of probe itself; what was done is
//! compared with what was found, and probe must stay as large as it is. The lane of this name is the short one.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{child, test::needs, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long it goes on
    #[arg(long = "for", value_name = "DURATION", default_value = "30m", value_parser = crate::fuzz::duration)]
    lasts: Duration,
    /// Write docs/soak.md
    #[arg(long)]
    page: bool,
    /// Take the rows that an earlier run left in this file instead of running: for the page alone
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Mostly for the compiler.
const BUILD: Duration = Duration::from_secs(1800);
/// The test ends by itself.
const SLACK: Duration = Duration::from_secs(1200);
/// Seconds that it waits for a finding: in so long a time the machine may have other things to do for a while.
const PATIENCE: &str = "60";
pub(crate) const TEST: &str = "soak";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(rows) = &args.from {
        return show(&table(rows)?, args);
    }
    needs::packages()?;
    child::show(
        workspace::cargo().args(["build", "--release", "--package", "probe-user"]),
        BUILD,
    )?;
    let target = workspace::target_dir()?;
    let rows = target.join("soak-rows");
    if rows.exists() {
        fs::remove_file(&rows).with_context(|| format!("remove {}", rows.display()))?;
    }
    let outcome = child::show(
        workspace::cargo()
            .args(["test", "--package", "probe-tests", "--test", TEST])
            .env("PROBE_BIN", target.join("release/probe"))
            .env("PROBE_SOAK_SECONDS", args.lasts.as_secs().to_string())
            .env("PROBE_TEST_PATIENCE", PATIENCE)
            .env("PROBE_TEST_TABLES", &rows),
        args.lasts + SLACK,
    );
    if let Err(error) = outcome {
        println!("\n{}", table(&rows)?);
        return Err(error);
    }
    show(&table(&rows)?, args)
}

fn show(text: &str, args: &Args) -> anyhow::Result<()> {
    println!("\n{text}");
    if args.page {
        let page = workspace::root().join("docs/soak.md");
        fs::write(&page, format!("{HEAD}{text}")).with_context(|| format!("write {}", page.display()))?;
    }
    Ok(())
}

fn table(rows: &Path) -> anyhow::Result<String> {
    let rows = fs::read_to_string(rows).unwrap_or_default();
    let mut text = String::from("| what | how much |\n| --- | --- |\n");
    let mut any = false;
    for row in rows.lines().filter_map(|l| l.strip_prefix("| soak ")) {
        any = true;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{row}");
    }
    ensure!(any, "the test has printed no row");
    Ok(text)
}

const HEAD: &str = "\
# Soak

Made by `cargo xtask soak --page`: four services fail in turn, each in seven ways, and are mended; a fifth forks, is signalled, connected to and beats;
the configuration is read anew; and probe's daemon is killed (SIGKILL) for the first two fifths of the time, each time with a service that crashes before
the next one has begun. After that one life of it must stay as large as it was when it had as many lines as it keeps.

A finding that had to come came while the test waited for it, with the actor that the test knew; at the end the history held it as often as it had to,
and nothing else.

";
