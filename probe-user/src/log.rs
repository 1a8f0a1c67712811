//! Where probe's own log goes and how it looks.

use std::{
    fmt::{self, Write as _},
    io,
    os::{fd::AsFd, linux::fs::MetadataExt},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{cli::daemon::LogFormat, cmd};

/// Of a command: to stderr, because stdout belongs to what was asked for. `RUST_LOG` counts for more than `-v`.
pub(crate) fn of_command(verbose: u8) {
    text(verbose, LevelFilter::WARN);
}

/// Of the daemon.
///
/// # Errors
/// If the journal was asked for and is not there.
pub(crate) fn of_daemon(format: LogFormat, verbose: u8) -> io::Result<()> {
    let format = match format {
        LogFormat::Auto if is_journal() => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Text,
        format => format,
    };
    match format {
        LogFormat::Journal => {
            let journal = tracing_journald::layer()?;
            let filter = filter(verbose, LevelFilter::INFO);
            tracing_subscriber::registry().with(journal).with(filter).init();
        }
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .event_format(Json);
            let filter = filter(verbose, LevelFilter::INFO);
            tracing_subscriber::registry().with(json).with(filter).init();
        }
        LogFormat::Text | LogFormat::Auto => text(verbose, LevelFilter::INFO),
    }
    Ok(())
}

/// By target and level, as in `info,probe_user::engine=debug`. Spans and fields can't be named: nothing here has spans, and
/// the filter that knows them brings a compiler of regular expressions into the program.
fn filter(verbose: u8, least: LevelFilter) -> Targets {
    let levels = [
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];
    let first = levels.iter().position(|l| *l == least).unwrap_or(0);
    let level = levels[(first + usize::from(verbose)).min(levels.len() - 1)];
    std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(level))
}

fn text(verbose: u8, least: LevelFilter) {
    let text = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(cmd::color(&io::stderr()))
        .with_target(verbose > 1)
        .without_time();
    tracing_subscriber::registry()
        .with(text)
        .with(filter(verbose, least))
        .init();
}

/// Whether stderr is the journal's own stream, as systemd says in `JOURNAL_STREAM`: device and inode.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|fd| std::fs::File::from(fd).metadata());
    metadata.is_ok_and(|m| stream == format!("{}:{}", m.st_dev(), m.st_ino()))
}

/// One JSON object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let offset = probe_user::clock::wall_offset();
        let now = i128::from(probe_user::clock::now().0) + i128::from(offset);
        let at = Timestamp::from_nanosecond(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let metadata = event.metadata();
        line.insert("at".to_owned(), format!("{at:.9}").into());
        line.insert(
            "level".to_owned(),
            metadata.level().as_str().to_lowercase().into(),
        );
        line.insert("target".to_owned(), metadata.target().into());
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A String takes everything.
        _ = write!(text, "{value:?}");
        self.0.insert(field.name().to_owned(), text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
