//! Metrics, in OpenMetrics and in Prometheus' older text format. Names and labels are a contract: dashboards and alert
//! rules in `packaging/` stand on them.
//!
//! The number of series is bounded: labels are names of declared services, their addresses, and words of this program;
//! what comes from elsewhere is one of a fixed set, or `other`.

mod classic;
mod count;
mod histogram;
mod now;
mod table;
mod timing;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    registry::Registry,
};

use self::{count::Counts, table::Tables};
pub use self::{
    now::{HookFigures, Now},
    timing::Timings,
};
use crate::stream::Said;

/// The forms that whoever asks may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// Prometheus' text format, version 0.0.4.
    Classic,
}

impl Format {
    /// By the `Accept` header.
    pub fn accepted(accept: Option<&str>) -> Self {
        let wants = |kinds: &str| kinds.contains("application/openmetrics-text");
        if accept.is_some_and(wants) {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is counted. A clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counts: Arc<Mutex<Counts>>,
    timings: Arc<Timings>,
}

impl Metrics {
    /// `timings`: what the engine's thread measures itself by.
    pub fn new(timings: Arc<Timings>) -> Self {
        Self {
            counts: Arc::default(),
            timings,
        }
    }

    /// Counts what was said.
    pub fn take(&self, said: &Said) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(said);
    }

    /// So many lines were said and not counted here.
    pub fn missed(&self, count: u64) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lost("metrics", count);
    }

    /// All metrics as text: what was counted, and how things are now.
    pub fn encode(&self, now: &Now<'_>, format: Format) -> String {
        let mut tables = Tables::default();
        now.tell(&mut tables);
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tell(&mut tables);
        self.timings.tell(&mut tables);
        let mut registry = Registry::with_prefix("probe");
        registry.register_collector(Box::new(tables));
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string does not fail.
        _ = encode_registry(&mut text, &registry);
        match format {
            Format::OpenMetrics => {
                _ = encode_eof(&mut text);
                text
            }
            Format::Classic => classic::from_openmetrics(&text),
        }
    }
}

#[cfg(test)]
mod tests;
