//! The daemon's stream, also over its restarts: whoever reads it goes on where they were, or is told that lines are gone.

use std::time::Duration;

use bytes::BytesMut;
use memchr::memmem;
use serde::Deserialize;
use tokio::time::sleep;

use super::{Client, ClientError, Lines, query};
use crate::api::types::Cursor;

/// How long to wait before the daemon is looked for again: longer each time, and not everybody at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What comes next.
#[derive(Debug)]
pub enum Told {
    /// A line of JSON, without its end.
    Line(BytesMut),
    /// The daemon is gone, and why; it is looked for.
    Gone(String),
    /// It is there again. Lines follow from where the last one was.
    Back,
}

/// A reader of `GET /v1/events`.
pub struct Follow {
    client: Client,
    parameters: Vec<(&'static str, String)>,
    /// Where to begin, as `?since=` says it: behind what was read until the daemon was last asked.
    since: Option<String>,
    /// The last line that has a place. What it is matters only if the daemon has to be asked again.
    last: Vec<u8>,
    lines: Option<Lines>,
    pause: Duration,
}

/// What each line of the daemon has.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    epoch: std::borrow::Cow<'a, str>,
    cursor: u64,
}

impl Follow {
    /// Reads what the query's parameters let pass, from `since` on: a cursor or a duration. Without it: what is said next.
    pub fn new(client: Client, parameters: Vec<(&'static str, String)>, since: Option<String>) -> Self {
        Self {
            client,
            parameters,
            since,
            last: Vec::new(),
            lines: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Begins to read. Everything that is said from now on will be told.
    ///
    /// # Errors
    /// [`ClientError`]: nobody is waited for yet.
    pub async fn begin(&mut self) -> Result<(), ClientError> {
        let since = self.since().map(str::to_owned);
        let mut parameters: Vec<(&str, Option<&str>)> = self
            .parameters
            .iter()
            .map(|(name, value)| (*name, Some(value.as_str())))
            .collect();
        parameters.push(("since", since.as_deref()));
        let lines = self.client.lines(&query("/v1/events", &parameters)).await?;
        let header = |name| lines.header(name).map(str::to_owned);
        if let (Some(epoch), Some(cursor)) = (header("probe-epoch"), header("probe-cursor")) {
            // A client that is cut off before the first line goes on from here.
            self.since = self.since.take().filter(|s| s.parse::<Cursor>().is_ok());
            self.since.get_or_insert_with(|| format!("{epoch}.{cursor}"));
        }
        self.lines = Some(lines);
        self.pause = FIRST_PAUSE;
        Ok(())
    }

    /// Waits for what comes next, however long the daemon is away. Cancel-safe.
    ///
    /// # Errors
    /// When a daemon is there, and will not answer: it refuses, or is of another version.
    pub async fn next(&mut self) -> Result<Told, ClientError> {
        if let Some(lines) = &mut self.lines {
            let why = match lines.next().await {
                Ok(Some(line)) => {
                    self.note(&line);
                    return Ok(Told::Line(line));
                }
                Ok(None) => format!("the daemon at {} has ended", self.client.socket.display()),
                Err(e) if e.is_absence() => e.to_string(),
                Err(e) => return Err(e),
            };
            self.lines = None;
            return Ok(Told::Gone(why));
        }
        loop {
            sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            self.pause = (self.pause * 2).min(LAST_PAUSE);
            match self.begin().await {
                Ok(()) => return Ok(Told::Back),
                Err(e) if e.is_absence() || e.is_busy() || e.timeout().is_some() => tracing::debug!("{e}"),
                Err(e) => return Err(e),
            }
        }
    }

    /// A line that is here already.
    pub fn try_next(&mut self) -> Option<BytesMut> {
        let line = self.lines.as_mut()?.try_next()?;
        self.note(&line);
        Some(line)
    }

    /// Where to go on from, as `?since=` takes it.
    pub fn since(&mut self) -> Option<&str> {
        if let Ok(place) = serde_json::from_slice::<Place<'_>>(&self.last) {
            self.since = Some(format!("{}.{}", place.epoch, place.cursor));
        }
        self.last.clear();
        self.since.as_deref()
    }

    fn note(&mut self, line: &[u8]) {
        // It can't be part of a text, where quotes are escaped.
        if memmem::rfind(line, b"\"cursor\":").is_some() {
            self.last.clear();
            self.last.extend_from_slice(line);
        }
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("parameters", &self.parameters)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
