//! What is shown of a run: on the terminal, and as a page of the documentation.

use std::{
    fmt::{self, Write},
    fs,
    path::Path,
};

use anyhow::Context;

use crate::{
    limits, plot,
    row::{Better, Row, Run, times},
};

const METHOD: &str = include_str!("method.md");
/// Where plots lie, beside the page.
const PLOTS: &str = "benchmarks";

pub(crate) fn print(run: &Run) {
    for row in &run.rows {
        println!("\n{} ({})", row.title, row.name);
        for figure in &row.figures {
            println!(
                "  {:<52} median {:>10}  p99 {:>10}  ({})",
                figure.what,
                figure.unit.show(figure.median),
                figure.unit.show(figure.p99),
                figure.samples
            );
        }
        for target in &row.targets {
            let sign = target.sign();
            println!(
                "  {sign:<6} {}: {} (aim {})",
                target.what, target.got, target.wanted
            );
        }
        for line in row.floors.iter().chain(&row.skipped) {
            println!("  {line}");
        }
        if let Some(e) = &row.error {
            println!("  FAILED: {e}");
        }
    }
}

/// Writes `benchmarks.md` and its plots into a directory.
pub(crate) fn write(run: &Run, directory: &Path) -> anyhow::Result<()> {
    let plots = directory.join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("make {}", plots.display()))?;
    for plot in run.rows.iter().flat_map(|r| &r.plots) {
        plot::write(plot, &plots.join(format!("{}.svg", plot.name)))?;
    }
    let mut text = String::new();
    page(run, &mut text).context("write to memory")?;
    let file = directory.join("benchmarks.md");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

fn page(run: &Run, out: &mut String) -> fmt::Result {
    let machine = &run.machine;
    writeln!(out, "{}", METHOD.trim_end())?;
    writeln!(out, "\n## Machine\n")?;
    writeln!(
        out,
        "probe {} on Linux {}, {} × {}, {} MiB. Load average before the run: {}.",
        machine.probe,
        machine.kernel,
        machine.cores,
        machine.processor,
        machine.memory_mib,
        machine.load_before
    )?;
    writeln!(out, "\n## Aims\n")?;
    writeln!(
        out,
        "| measure | what | aim | measured | |\n| --- | --- | --- | --- | --- |"
    )?;
    for row in &run.rows {
        for t in &row.targets {
            let sign = match t.met {
                Some(true) => t.sign().to_owned(),
                _ => format!("**{}**", t.sign()),
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {sign} |",
                row.name, t.what, t.wanted, t.got
            )?;
        }
        if let Some(e) = &row.error {
            let e = e.lines().next().unwrap_or_default().replace('|', "\\|");
            writeln!(
                out,
                "| {} | it could not be measured | | {e} | **missed** |",
                row.name
            )?;
        }
    }
    for row in &run.rows {
        section(row, out)?;
    }
    Ok(())
}

fn section(row: &Row, out: &mut String) -> fmt::Result {
    writeln!(out, "\n## {}\n\n`{}`. {}", row.title, row.name, row.method)?;
    if !row.figures.is_empty() {
        writeln!(
            out,
            "\n| | median | p99 | least | most | samples |\n| --- | --- | --- | --- | --- | --- |"
        )?;
    }
    for f in &row.figures {
        let [median, p99, least, most] = [f.median, f.p99, f.least, f.most].map(|v| f.unit.show(v));
        match f.samples {
            1 => writeln!(out, "| {} | {median} | | | | 1 |", f.what)?,
            n => writeln!(out, "| {} | {median} | {p99} | {least} | {most} | {n} |", f.what)?,
        }
    }
    if !row.ratios.is_empty() {
        writeln!(out, "\n| ratio | | noise | better |\n| --- | --- | --- | --- |")?;
    }
    for r in &row.ratios {
        let [low, value, high] = [r.span.low, r.span.value, r.span.high].map(times);
        let better = match r.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
        };
        writeln!(out, "| {} | {value} | {low} – {high} | {better} |", r.what)?;
    }
    for plot in &row.plots {
        writeln!(out, "\n![{}]({PLOTS}/{}.svg)", plot.title, plot.name)?;
    }
    if !row.floors.is_empty() {
        writeln!(out, "\nThe floor:\n")?;
    }
    for line in &row.floors {
        writeln!(out, "- {line}")?;
    }
    if let Some(limits) = limits::of(&row.name) {
        writeln!(out, "\nWhat limits it: {limits}")?;
    }
    for line in &row.skipped {
        writeln!(out, "\nSkipped: {line}.")?;
    }
    Ok(())
}
