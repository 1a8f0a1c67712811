//! `GET /v1/events`: the stream, a line of JSON each, for as long as the client reads.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Api,
    answer::{Query, Refused},
    turn,
    types::{Cursor, LostLine, LostType, V},
};
use crate::{
    clock::{self, Nanos},
    config::span,
    report,
    stream::{Filter, Next, Start, Subscription},
};

/// Lines are joined to pieces of about this size while there are some.
const PIECE: usize = 32 * 1024;

/// The query.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Events {
    /// Go on after this line, without a gap: `EPOCH.CURSOR` or `CURSOR` of a line. Or begin with what was said since
    /// then and is still kept: a duration, for example `10m`. Without it: with what is said next.
    since: Option<String>,
    /// Only these services, separated by commas.
    service: Option<String>,
    /// Only lines of these types, separated by commas: `event`, `finding`, `lost`.
    only: Option<String>,
    /// Only events and findings of these kinds, separated by commas.
    kind: Option<String>,
    /// `false`: end after what is known already. The default is to go on.
    follow: Option<bool>,
}

pub(super) async fn events(State(api): State<Api>, Query(query): Query<Events>) -> Result<Response, Refused> {
    let filter = filter(&query)?;
    let start = start(query.since.as_deref(), api.0.stream.epoch())?;
    let follow = query.follow.unwrap_or(true);
    let wanted_before = match &start {
        Start::After { epoch, .. } => Some(epoch.clone()),
        _ => None,
    };
    let reader = api.0.stream.subscribe(start, filter);
    let (epoch, cursor) = (reader.epoch().to_owned(), reader.cursor());
    let mut first = Vec::new();
    if wanted_before.is_some() && reader.is_of_another_epoch() {
        lost(&mut first, &reader, "epoch", None);
    }
    let lines = Lines {
        state: Reading::Idle(Box::new(Piece {
            reader,
            first,
            follow,
        })),
    };
    let mut response = Body::new(lines.boxed_unsync()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    for (name, value) in [("probe-epoch", epoch), ("probe-cursor", cursor.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

fn filter(query: &Events) -> Result<Filter, Refused> {
    Ok(Filter {
        services: list(query.service.as_deref()).map(str::to_owned).collect(),
        lines: report::Filter {
            only: parsed(query.only.as_deref())?,
            kinds: parsed(query.kind.as_deref())?,
        },
    })
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    let words = text.unwrap_or_default().split(',');
    words.map(str::trim).filter(|word| !word.is_empty())
}

fn parsed<T: std::str::FromStr<Err: ToString>>(text: Option<&str>) -> Result<Vec<T>, Refused> {
    list(text)
        .map(|word| word.parse().map_err(|e: T::Err| Refused::bad(e.to_string())))
        .collect()
}

fn start(since: Option<&str>, epoch: &str) -> Result<Start, Refused> {
    let Some(text) = since else {
        return Ok(Start::Now);
    };
    let wrong = match text.parse::<Cursor>() {
        Ok(cursor) => {
            return Ok(Start::After {
                epoch: cursor.epoch.unwrap_or_else(|| epoch.to_owned()),
                cursor: cursor.cursor,
            });
        }
        Err(e) => e,
    };
    match span::parse(text) {
        Ok(span) => {
            let ago = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            Ok(Start::At(Nanos(clock::now().0.saturating_sub(ago))))
        }
        Err(_) => Err(Refused::bad(format!("{wrong}, or a duration, for example 10m"))),
    }
}

/// Says that lines are gone for this client.
fn lost(out: &mut Vec<u8>, reader: &Subscription, source: &str, count: Option<u64>) {
    let line = LostLine {
        v: V,
        r#type: LostType::Lost,
        source: source.to_owned(),
        count,
        epoch: reader.epoch().to_owned(),
        cursor: reader.cursor(),
    };
    // Numbers and texts are always written.
    _ = serde_json::to_writer(&mut *out, &line);
    out.push(b'\n');
}

/// Reads from the stream, a piece at a time.
struct Piece {
    reader: Subscription,
    /// Said before everything else.
    first: Vec<u8>,
    follow: bool,
}

impl Piece {
    /// Waits for something, and takes what is there then. `None`: the stream has ended.
    async fn next(mut self: Box<Self>) -> Option<(Box<Self>, Bytes)> {
        turn::go_on();
        let mut piece = std::mem::take(&mut self.first);
        if piece.is_empty() {
            let next = match self.follow {
                true => self.reader.next().await,
                false => self.reader.try_next()?,
            };
            self.add(next, &mut piece)?;
        }
        while piece.len() < PIECE {
            match self.reader.try_next() {
                // It is told the next time.
                None | Some(Next::End) => break,
                Some(next) => self.add(next, &mut piece)?,
            }
        }
        Some((self, piece.into()))
    }

    fn add(&self, next: Next, piece: &mut Vec<u8>) -> Option<()> {
        match next {
            Next::Line(line) => piece.extend_from_slice(line.json()),
            Next::Missed(count) => lost(piece, &self.reader, "stream", Some(count)),
            Next::End => return None,
        }
        Some(())
    }
}

type NextPiece = Pin<Box<dyn Future<Output = Option<(Box<Piece>, Bytes)>> + Send>>;

enum Reading {
    Idle(Box<Piece>),
    Waiting(NextPiece),
    Ended,
}

/// The body of the answer.
struct Lines {
    state: Reading,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut waiting = match std::mem::replace(&mut self.state, Reading::Ended) {
            Reading::Idle(piece) => Box::pin(piece.next()),
            Reading::Waiting(waiting) => waiting,
            Reading::Ended => return Poll::Ready(None),
        };
        match waiting.as_mut().poll(context) {
            Poll::Pending => {
                self.state = Reading::Waiting(waiting);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some((piece, bytes))) => {
                self.state = Reading::Idle(piece);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Reading::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_cursor_or_a_duration() {
        let after = |epoch: &str, cursor| Start::After {
            epoch: epoch.into(),
            cursor,
        };
        assert_eq!(start(None, "e").unwrap(), Start::Now);
        assert_eq!(start(Some("7"), "e").unwrap(), after("e", 7));
        assert_eq!(start(Some("f-1.7"), "e").unwrap(), after("f-1", 7));
        let before = clock::now();
        let Start::At(at) = start(Some("10m"), "e").unwrap() else {
            panic!("a duration")
        };
        assert!(at.0.saturating_sub(before.0.saturating_sub(600_000_000_000)) < 60_000_000_000);
        for wrong in ["", "yesterday", "-1", "e.", "1e9"] {
            assert!(start(Some(wrong), "e").is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let query = |only: &str, kind: &str| Events {
            only: Some(only.into()),
            kind: Some(kind.into()),
            ..Events::default()
        };
        assert!(filter(&query("event, finding", "signal,crashed")).is_ok());
        assert!(filter(&query("", "")).is_ok());
        assert!(filter(&query("events", "")).is_err());
        assert!(filter(&query("", "crash")).is_err());
    }
}
