//! What a run has found: a row for each measure.

use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    stats::{Samples, Span},
};

/// The version of the file that `--json` writes.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) v: u32,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: String,
    /// How it was measured, in a sentence or two.
    pub(crate) method: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) targets: Vec<Target>,
    /// What cannot be undercut, and how far from it this is.
    pub(crate) floors: Vec<String>,
    pub(crate) skipped: Vec<String>,
    pub(crate) plots: Vec<Plot>,
    /// Why the measure ended early.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "ns")]
    Nanos,
    #[serde(rename = "percent")]
    Percent,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "count")]
    Count,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) samples: usize,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) span: Span,
    pub(crate) better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) got: String,
    /// `None`: the noise of this run is greater than what was to be told apart.
    pub(crate) met: Option<bool>,
}

impl Target {
    pub(crate) fn sign(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "noise",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plot {
    /// The file's name without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<PlotLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlotLine {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Row {
    pub(crate) fn new(name: &str, title: &str, method: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            method: method.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn figure(&mut self, what: &str, unit: Unit, samples: &Samples) {
        if samples.len() == 0 {
            return;
        }
        self.figures.push(Figure {
            what: what.to_owned(),
            unit,
            samples: samples.len(),
            median: samples.median(),
            p99: samples.p99(),
            least: samples.quantile(0.0),
            most: samples.quantile(1.0),
        });
    }

    pub(crate) fn value(&mut self, what: &str, unit: Unit, value: f64) {
        self.figure(what, unit, &std::iter::once(value).collect());
    }

    pub(crate) fn ratio(&mut self, what: &str, better: Better, span: Span) {
        self.ratios.push(Ratio {
            what: what.to_owned(),
            span,
            better,
        });
    }

    /// A ratio with its target: at least so much where higher is better, at most where lower is.
    pub(crate) fn aim_ratio(&mut self, what: &str, better: Better, span: Span, limit: f64) {
        self.ratio(what, better, span);
        let (sign, met) = match better {
            Better::Higher => ("≥", span.value >= limit),
            Better::Lower => ("≤", span.value <= limit),
        };
        let (wanted, got) = (times(limit), times(span.value));
        self.aim(what, &format!("{sign} {wanted}"), &got, met);
    }

    /// A value that must not exceed its target.
    pub(crate) fn aim_at_most(&mut self, what: &str, unit: Unit, value: f64, limit: f64) {
        let (wanted, got) = (unit.show(limit), unit.show(value));
        self.aim(what, &format!("≤ {wanted}"), &got, value <= limit);
    }

    pub(crate) fn aim_at_least(&mut self, what: &str, unit: Unit, value: f64, limit: f64) {
        let (wanted, got) = (unit.show(limit), unit.show(value));
        self.aim(what, &format!("≥ {wanted}"), &got, value >= limit);
    }

    pub(crate) fn aim(&mut self, what: &str, wanted: &str, got: &str, met: bool) {
        self.aim_or_noise(what, wanted, got, Some(met));
    }

    pub(crate) fn aim_or_noise(&mut self, what: &str, wanted: &str, got: &str, met: Option<bool>) {
        self.targets.push(Target {
            what: what.to_owned(),
            wanted: wanted.to_owned(),
            got: got.to_owned(),
            met,
        });
    }
}

/// `3 200 ×`, `1.07 ×`
pub(crate) fn times(value: f64) -> String {
    format!("{} ×", short(value))
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        if value.is_nan() {
            return "–".to_owned();
        }
        let scaled = |steps: &[(f64, &str)]| {
            let fits = steps.iter().rev().find(|(size, _)| value.abs() >= *size);
            let (size, name) = fits.or(steps.first()).copied().unwrap_or((1.0, ""));
            format!("{} {name}", short(value / size))
        };
        match self {
            Self::Nanos => scaled(&[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"), (6e10, "min")]),
            Self::Percent => format!("{} %", short(value)),
            Self::Bytes => scaled(&[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB")]),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Count => short(value),
        }
    }
}

/// Three digits that count; groups of three before the point.
fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let digits = match size {
        _ if size == 0.0 => 0,
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    let digits_before = whole.trim_start_matches('-').len();
    for (i, digit) in whole.chars().enumerate() {
        let behind = whole.len() - i;
        if digit != '-' && behind % 3 == 0 && behind < digits_before {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest {
        "" => grouped,
        rest => format!("{grouped}.{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        assert_eq!(Unit::Nanos.show(123_456.0), "123 µs");
        assert_eq!(Unit::Nanos.show(1_500_000_000.0), "1.50 s");
        assert_eq!(Unit::PerSecond.show(1_234_567.0), "1,234,567/s");
        assert_eq!(Unit::Percent.show(0.05), "0.050 %");
        assert_eq!(Unit::Bytes.show(12.0 * 1_048_576.0), "12.0 MiB");
        assert_eq!(times(-3141.0), "-3,141 ×");
    }
}
