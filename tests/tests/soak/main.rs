//! Daemons that live, fail and are mended; others that fork, signal, bind and connect beside them; and probe's own daemon, which is
//! reloaded and killed. What is done is written down as the truth, and everything that probe has ever found is compared with it.
//!
//! First probe is killed again and again, then one life of it must stay as large as it was: `$PROBE_SOAK_SECONDS` for all of it.

mod acts;
mod churn;
mod size;
mod stage;

use std::{env, thread, time::Duration};

use probe_tests::{Deadline, table::row};

use crate::{acts::ACTS, size::Sizes, stage::Stage};

const TABLE: &str = "soak";
/// Of continuous integration.
const SHORT_SECONDS: u64 = 60;
/// Between two acts: others want to work too.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn everything_true_is_found_nothing_else_and_probe_stays_as_large_as_it_is() {
    let seconds = env::var("PROBE_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds: u64 = seconds.unwrap_or(SHORT_SECONDS);
    let mut stage = Stage::new();
    // Killed again and again.
    let until = Deadline::after(Duration::from_secs(seconds * 2 / 5));
    let mut turn = 0;
    while until.left().is_some() {
        stage.act(&ACTS[turn % ACTS.len()]);
        turn += 1;
        if turn.is_multiple_of(5) {
            stage.restart_around_a_crash();
        }
        thread::sleep(PAUSE);
    }
    // One life.
    stage.restart_around_a_crash();
    stage.fill_what_is_kept();
    let signals_before = stage.signals();
    let until = Deadline::after(Duration::from_secs(seconds * 3 / 5));
    let mut sizes = Sizes::default();
    while until.left().is_some() {
        stage.act(&ACTS[turn % ACTS.len()]);
        turn += 1;
        sizes.look(stage.probed.pid(), || stage.kept());
        thread::sleep(PAUSE);
    }
    let (sent, told) = stage.signals_since(&signals_before);
    let compared = stage.compare();
    let churned = stage.end();
    let flat = sizes.flat();
    let say = |what: &str, value: &str| row(TABLE, &[what, value]);
    say("time", &format!("{seconds} s"));
    for (what, n) in compared.acts() {
        say(what, &n);
    }
    say("beside it", &churned);
    say("findings that had to come", &compared.wanted.to_string());
    say("missed", &compared.missed.to_string());
    say("false", &compared.wrong.to_string());
    say("signals in the last life", &format!("{sent} sent, {told} told"));
    for line in &flat.rows {
        say(line.0, &line.1);
    }
    let wrongs = compared.wrongs();
    assert!(wrongs.is_empty() && compared.wanted > 0, "{wrongs:#?}");
    assert_eq!(sent, told, "each signal is told once");
    assert!(flat.grown.is_empty(), "{:#?}", flat.grown);
}
