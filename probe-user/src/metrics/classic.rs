//! OpenMetrics in Prometheus' older text format: there a counter's name has its `_total`, an info is a gauge, and units
//! have no line.

use std::fmt::Write;

/// Of text that this program has written, without `# EOF`.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // HELP stands before TYPE, and its name depends on that.
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            // Writing to a string does not fail.
            if let Some((_, help)) = help.take() {
                _ = writeln!(out, "# HELP {name}{suffix} {help}");
            }
            _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
