//! What got worse since an earlier run.

use crate::row::{Better, Row, Run, times};

/// A ratio that is worse by less than this says nothing, however sure it seems.
const LEAST: f64 = 0.10;

/// Ratios that are worse than they were, and whose spans do not touch; and measures that no longer work.
pub(crate) fn worse(before: &Run, now: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &now.rows {
        let Some(old) = before.rows.iter().find(|r| r.name == row.name) else {
            continue;
        };
        if let (None, Some(e)) = (&old.error, &row.error) {
            lines.push(format!("{}: it could be measured, and now: {e}", row.name));
        }
        lines.extend(ratios(old, row));
    }
    lines
}

fn ratios(old: &Row, row: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    for ratio in &row.ratios {
        let Some(was) = old.ratios.iter().find(|r| r.what == ratio.what) else {
            continue;
        };
        let (was, is) = (was.span, ratio.span);
        let is_worse = match ratio.better {
            Better::Higher => is.high < was.low && is.value < was.value * (1.0 - LEAST),
            Better::Lower => is.low > was.high && is.value > was.value * (1.0 + LEAST),
        };
        if is_worse {
            lines.push(format!(
                "{}: {}: {} (it was {}; noise {}–{}, then {}–{})",
                row.name,
                ratio.what,
                times(is.value),
                times(was.value),
                times(is.low),
                times(is.high),
                times(was.low),
                times(was.high)
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Machine, stats::Span};

    fn run(better: Better, low: f64, value: f64, high: f64) -> Run {
        let mut row = Row::new("who", "", "");
        row.ratio("faster", better, Span { low, value, high });
        Run {
            v: 1,
            machine: Machine::read(),
            rows: vec![row],
        }
    }

    #[test]
    fn only_what_is_worse_by_more_than_the_noise_is_told() {
        let before = run(Better::Higher, 90.0, 100.0, 110.0);
        for (low, value, high, told) in [
            (80.0, 85.0, 95.0, 0),
            (50.0, 60.0, 70.0, 1),
            (200.0, 210.0, 220.0, 0),
        ] {
            let lines = worse(&before, &run(Better::Higher, low, value, high));
            assert_eq!(lines.len(), told, "{lines:?}");
        }
        let before = run(Better::Lower, 1.0, 1.0, 1.0);
        assert_eq!(worse(&before, &run(Better::Lower, 1.05, 1.05, 1.05)).len(), 0);
        assert_eq!(worse(&before, &run(Better::Lower, 1.2, 1.2, 1.2)).len(), 1);
    }
}
