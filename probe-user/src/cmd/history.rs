//! `probe history`: what the daemon has kept.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::bail;
use probe_user::{
    clock,
    config::Probe,
    history::{Query, Reader, StoreError},
    report::{self, LineType, Look},
};

use crate::cli::{History, UsageError};

pub(crate) fn run(args: &History) -> anyhow::Result<()> {
    if args.only.contains(&LineType::Watching) {
        let text = "the history has no lines of type watching, only event, finding and lost";
        return Err(UsageError(text.to_owned()).into());
    }
    let dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => PathBuf::from(probe(args)?.state_dir),
    };
    let reader = Reader::new(&dir);
    let now = clock::wall();
    let mut query = Query {
        since: args.since.map(|d| now - d),
        until: args.until.map(|d| now - d),
        services: args.service.clone(),
        kinds: args.kind.iter().map(|k| k.name().to_owned()).collect(),
        types: args.only.iter().map(|t| t.name().to_owned()).collect(),
        after: None,
        limit: None,
    };
    let look = Look {
        dates: true,
        ..super::look()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    loop {
        let page = match reader.query(&query) {
            Ok(page) => page,
            Err(e) if is_absent(&e) => bail!(
                "there is no history in {}: `probe daemon` keeps one in its `state_dir`",
                dir.display()
            ),
            Err(e) => return Err(e.into()),
        };
        for record in &page.records {
            line.clear();
            show(&mut line, args.json, &look, &record.json)?;
            out.write_all(&line)?;
        }
        let last = page.records.last().map(|r| r.number);
        if !page.more || last.is_none() {
            return Ok(out.flush()?);
        }
        query.after = last;
    }
}

fn probe(args: &History) -> anyhow::Result<Probe> {
    super::probe_table(args.config.as_deref())
}

fn is_absent(e: &StoreError) -> bool {
    let StoreError::Files { source, .. } = e else {
        return false;
    };
    source.kind() == io::ErrorKind::NotFound
}

fn show(out: &mut Vec<u8>, json: bool, look: &Look, record: &str) -> io::Result<()> {
    match serde_json::from_str(record) {
        Ok(line) if !json => report::told(out, look, &line),
        // Another version of probe may have written it.
        Err(_) if !json => {
            out.extend_from_slice(report::plain(record).as_bytes());
            out.push(b'\n');
            Ok(())
        }
        _ => {
            out.extend_from_slice(record.as_bytes());
            out.push(b'\n');
            Ok(())
        }
    }
}
