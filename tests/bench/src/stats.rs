//! Samples, and what is said of them: on a shared machine a mean says nothing.

use serde::{Deserialize, Serialize};

/// Values of one thing, in the order in which they were measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The value that this part of the others does not exceed; NaN without samples.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// How often one thing goes into another, with what the noise makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) value: f64,
    pub(crate) high: f64,
}

impl Span {
    pub(crate) fn exactly(value: f64) -> Self {
        Self {
            low: value,
            value,
            high: value,
        }
    }

    /// Of medians; the bounds are those of the quartiles at their worst.
    pub(crate) fn of(above: &Samples, below: &Samples) -> Self {
        Self {
            low: above.quantile(0.25) / below.quantile(0.75),
            value: above.median() / below.median(),
            high: above.quantile(0.75) / below.quantile(0.25),
        }
    }

    /// Of things that were measured in turn: what disturbs one of a pair disturbs the other too.
    pub(crate) fn of_pairs(above: &Samples, below: &Samples) -> Self {
        let ratios: Samples = above.0.iter().zip(&below.0).map(|(a, b)| a / b).collect();
        Self {
            low: ratios.quantile(0.25),
            value: ratios.median(),
            high: ratios.quantile(0.75),
        }
    }

    /// Whether it is at most `limit`; `None` where the quartiles lie on both sides of it and too far apart to tell.
    pub(crate) fn is_at_most(&self, limit: f64) -> Option<bool> {
        /// Of what is compared.
        const NARROW: f64 = 0.05;
        match () {
            () if self.high <= limit => Some(true),
            () if self.low > limit => Some(false),
            () => (self.high - self.low <= NARROW).then_some(self.value <= limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let samples: Samples = (1..=100).rev().map(f64::from).collect();
        assert_eq!(samples.median(), 51.0);
        assert_eq!(samples.p99(), 99.0);
        assert_eq!(samples.quantile(1.0), 100.0);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn noise_is_no_success() {
        let span = |low, value, high| Span { low, value, high };
        assert_eq!(span(0.98, 0.99, 1.0).is_at_most(1.01), Some(true));
        assert_eq!(span(1.02, 1.1, 1.5).is_at_most(1.01), Some(false));
        assert_eq!(span(0.99, 1.0, 1.02).is_at_most(1.01), Some(true));
        assert_eq!(span(0.99, 1.015, 1.03).is_at_most(1.01), Some(false));
        assert_eq!(span(0.4, 1.0, 3.0).is_at_most(1.01), None);
    }

    #[test]
    fn pairs_forgive_what_disturbs_both() {
        let fast: Samples = [1.0, 5.0, 1.0].into_iter().collect();
        let slow: Samples = [10.0, 50.0, 10.0].into_iter().collect();
        let span = Span::of_pairs(&slow, &fast);
        assert_eq!((span.low, span.value, span.high), (10.0, 10.0, 10.0));
    }
}
