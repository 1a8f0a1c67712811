//! Metrics with their samples, in an order that does not change.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::histogram::Histogram;

/// Names and values; the encoder escapes the values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A longer value of a label is cut: a path can be 4096 bytes long.
const VALUE_BYTES: usize = 256;

#[derive(Debug)]
enum Samples {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, f64)>),
    Histogram(Vec<(Labels, Histogram)>),
    Info(Labels),
}

#[derive(Debug)]
struct Table {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    samples: Samples,
}

/// All metrics of one answer. Names are given without `probe_`, without the unit and without `_total`.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<Table>);

impl Tables {
    fn add(&mut self, name: &'static str, help: &'static str, unit: Option<Unit>, samples: Samples) {
        self.0.push(Table {
            name,
            help,
            unit,
            samples,
        });
    }

    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let samples = samples.into_iter().collect();
        self.add(name, help, unit, Samples::Gauge(samples));
    }

    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, n)| (l, n as f64)).collect();
        self.add(name, help, None, Samples::Counter(samples));
    }

    /// Of durations.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Histogram)>,
    ) {
        let samples = samples.into_iter().collect();
        self.add(name, help, Some(Unit::Seconds), Samples::Histogram(samples));
    }

    pub(super) fn info(&mut self, name: &'static str, help: &'static str, labels: Labels) {
        self.add(name, help, None, Samples::Info(labels));
    }
}

/// Labels from names and values.
pub(super) fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(name, value)| (name, cut(value)))
        .collect()
}

fn cut(value: &str) -> String {
    let end = value.floor_char_boundary(VALUE_BYTES);
    if end < value.len() {
        format!("{}…", &value[..end])
    } else {
        value.to_owned()
    }
}

impl Collector for Tables {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for table in &self.0 {
            let kind = match &table.samples {
                Samples::Gauge(_) => MetricType::Gauge,
                Samples::Counter(_) => MetricType::Counter,
                Samples::Histogram(_) => MetricType::Histogram,
                Samples::Info(_) => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(table.name, table.help, table.unit.as_ref(), kind)?;
            match &table.samples {
                Samples::Gauge(samples) => {
                    for (labels, value) in samples {
                        ConstGauge::new(*value).encode(metric.encode_family(labels)?)?;
                    }
                }
                Samples::Counter(samples) => {
                    for (labels, value) in samples {
                        ConstCounter::new(*value).encode(metric.encode_family(labels)?)?;
                    }
                }
                Samples::Histogram(samples) => {
                    for (labels, h) in samples {
                        metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(
                            h.sum,
                            h.count(),
                            &h.buckets(),
                            None,
                        )?;
                    }
                }
                Samples::Info(labels) => metric.encode_info(labels)?,
            }
        }
        Ok(())
    }
}
