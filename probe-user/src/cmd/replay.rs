//! `probe replay`: what a recording says now.

use std::io::{self, BufWriter, Write};

use anyhow::Context;
use probe_user::{
    engine::Engine,
    report::{Filter, LineType},
    trace::{self, Reader},
};

use crate::cli::{Lines, Replay};

pub(crate) fn run(args: &Replay) -> anyhow::Result<()> {
    let context = || format!("cannot replay {}", args.file.display());
    let mut reader = Reader::open(&args.file).with_context(context)?;
    let header = reader.header();
    let mut reporter = super::reporter(
        args.lines.json,
        filter(&args.lines),
        header.wall_offset_ns,
        header.epoch.clone(),
    );
    let mut engine = Engine::new(header.config.clone(), &header.exes);
    let mut out = BufWriter::new(io::stdout().lock());
    let replayed = trace::replay(&mut reader, &mut engine, &mut |effect| {
        reporter.effect(&mut out, effect)?;
        anyhow::Ok(())
    })
    .with_context(context)?;
    out.flush()?;
    if replayed.cut_off {
        tracing::warn!(
            "the last line of {} is cut off and was left out",
            args.file.display()
        );
    }
    tracing::info!("{} events from probe {}", replayed.events, reader.header().probe);
    Ok(())
}

/// Findings, unless something else was asked for.
fn filter(lines: &Lines) -> Filter {
    let mut filter = lines.filter();
    if filter.only.is_empty() {
        filter.only = match filter.kinds.is_empty() {
            true => vec![LineType::Finding],
            false => vec![LineType::Event, LineType::Finding],
        };
    }
    filter
}
