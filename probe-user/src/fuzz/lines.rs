//! What must hold of every line that is shown.

use jiff::tz::TimeZone;

use crate::{
    engine::Effect,
    report::{self, Filter, Reporter},
};

/// Says effects as people and as programs are told them, and looks at the lines.
pub(super) struct Lines {
    human: Reporter,
    json: Reporter,
}

impl Lines {
    pub(super) fn new() -> Self {
        let reporter = |json| {
            Reporter::new(report::Options {
                json,
                color: false,
                wall_offset_ns: 0,
                epoch: "e".to_owned(),
                filter: Filter::default(),
                time_zone: TimeZone::UTC,
            })
        };
        Self {
            human: reporter(false),
            json: reporter(true),
        }
    }

    pub(super) fn check(&mut self, effect: &Effect) {
        let mut line = Vec::new();
        let written = self.human.effect(&mut line, effect);
        assert!(written.is_ok(), "writing to memory failed: {written:?}");
        one_line(&line);
        line.clear();
        let written = self.json.effect(&mut line, effect);
        assert!(written.is_ok(), "writing to memory failed: {written:?}");
        one_line(&line);
        if !line.is_empty() {
            let value = serde_json::from_slice::<serde_json::Value>(&line);
            assert!(value.is_ok_and(|v| v.is_object()), "no object: {line:?}");
        }
    }
}

/// Nothing, or one line of text in which nothing steers a terminal.
fn one_line(line: &[u8]) {
    if line.is_empty() {
        return;
    }
    let text = std::str::from_utf8(line);
    let line = text.ok().and_then(|t| t.strip_suffix('\n'));
    let plain = line.is_some_and(|l| !l.chars().any(char::is_control));
    assert!(plain, "a line that steers a terminal: {text:?}");
}
