//! How the wall clock was set: what a file's time means on the boot clock, also where the clock was set after it was written.

use super::Nanos;

/// What lies between the two clocks for as long as nobody sets the wall clock.
#[derive(Debug, Clone, Copy)]
struct Era {
    /// It began then or later: the last look that saw another one. The first one has always been.
    from: Option<Nanos>,
    /// It was first seen then, and last.
    first: Nanos,
    last: Nanos,
    offset: i64,
}

/// The newest eras, in their order.
#[derive(Debug)]
pub(super) struct Eras(Vec<Era>);

/// A clock that is only steered moves by less between two looks.
const STEP: u64 = 500_000_000;
const KEPT: usize = 16;
/// The clocks are read one after the other, and files' times are rounded.
const SLACK: i128 = 1_000_000_000;

impl Eras {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// What lies between the clocks now.
    pub(super) fn note(&mut self, now: Nanos, offset: i64) {
        match self.0.last_mut() {
            Some(era) if era.offset.abs_diff(offset) < STEP => {
                era.offset = offset;
                era.last = era.last.max(now);
            }
            last => {
                let from = last.map(|era| era.last);
                self.0.push(Era {
                    from,
                    first: now,
                    last: now,
                    offset,
                });
                if self.0.len() > KEPT {
                    self.0.remove(0);
                }
            }
        }
    }

    /// When the wall clock showed this, in nanoseconds of the boot clock: by the newest era that it fits into. What fits into none
    /// is told by the present one, and may lie in the future.
    pub(super) fn when(&self, wall: i128) -> i128 {
        let mut next: Option<&Era> = None;
        for era in self.0.iter().rev() {
            let at = wall - i128::from(era.offset);
            let began = era.from.is_none_or(|from| at >= i128::from(from.0));
            let until = next.map_or(i128::from(era.last.0), |next| i128::from(next.first.0));
            if began && at <= until + SLACK {
                return at;
            }
            next = Some(era);
        }
        let present = self.0.last().map_or(0, |era| era.offset);
        wall - i128::from(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const DAY: i64 = 86_400 * S;

    fn at(seconds: i64) -> Nanos {
        Nanos((seconds * S) as u64)
    }

    #[test]
    fn a_file_s_time_stays_what_it_was_when_the_clock_is_set() {
        for step in [DAY, -DAY] {
            let mut eras = Eras::new();
            let offset = 100 * DAY;
            (0..10).for_each(|s| eras.note(at(1000 + 10 * s), offset + s * 1000));
            let written = i128::from(1050 * S + offset);
            // The clock is steered too, by less than a second.
            let in_time = |eras: &Eras, wall: i128| (eras.when(wall) + i128::from(S / 2)) / i128::from(S);
            assert_eq!(in_time(&eras, written), 1050);
            // Set at 1095, noticed at 1100.
            eras.note(at(1100), offset + step);
            let before = i128::from(1094 * S + offset);
            let unnoticed = i128::from(1097 * S + offset + step);
            eras.note(at(1200), offset + step);
            let after = i128::from(1150 * S + offset + step);
            let found = [written, before, unnoticed, after].map(|wall| in_time(&eras, wall));
            assert_eq!(found, [1050, 1094, 1097, 1150], "{step}");
        }
    }

    #[test]
    fn what_was_before_the_first_look_and_what_lies_ahead() {
        let mut eras = Eras::new();
        assert_eq!(eras.when(5), 5);
        eras.note(at(1000), 50 * S);
        let when = |eras: &Eras, wall: i64| eras.when(i128::from(wall * S)) / i128::from(S);
        assert_eq!(when(&eras, 60), 10);
        assert_eq!(when(&eras, 40), -10);
        assert_eq!(when(&eras, 3000), 2950);
        for i in 1..100 {
            eras.note(at(1000 + i), 50 * S + i * DAY);
        }
        assert_eq!(eras.0.len(), KEPT);
    }
}
