//! The output that monitoring systems expect of a plugin: one line with performance data, then a line for each thing that is
//! wrong (<https://nagios-plugins.org/doc/guidelines.html>).

use std::fmt::Write;

use super::{Report, ServiceReport, Status};
use crate::engine::finding::Severity;

/// Ends with a line end.
pub fn plugin(report: &Report) -> String {
    let mut text = format!(
        "PROBE {} - {} |{}\n",
        word(report.status),
        headline(report),
        performance(report)
    );
    for service in &report.services {
        for f in &service.findings {
            let status = match f.severity {
                Severity::Critical => Status::Critical,
                Severity::Warning => Status::Warning,
            };
            let line = format!("{} {}: {}", service.service, f.kind.name(), f.summary);
            _ = writeln!(text, "[{}] {}", word(status), plain(&line));
        }
        for what in &service.cannot_see {
            let line = format!("{}: not seen: {what}", service.service);
            _ = writeln!(text, "[{}] {}", word(Status::Unknown), plain(&line));
        }
    }
    text
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::Warning => "WARNING",
        Status::Critical => "CRITICAL",
        Status::Unknown => "UNKNOWN",
    }
}

fn headline(report: &Report) -> String {
    let worst = report.services.iter().filter(|s| s.status == report.status);
    let text = match (report.status, &report.services[..]) {
        (_, []) => "nothing to look at".to_owned(),
        (Status::Ok, [one]) => match &one.main {
            Some(main) => format!("{} runs ({})", one.service, main.pid),
            None => format!("{} is in order", one.service),
        },
        (Status::Ok, all) => format!("{} services are in order", all.len()),
        (status, _) => {
            let said: Vec<String> = worst.map(|s| complaint(s, status)).collect();
            said.join("; ")
        }
    };
    plain(&text)
}

/// The first of what makes it so.
fn complaint(service: &ServiceReport, status: Status) -> String {
    let name = &service.service;
    match (status, service.findings.first(), service.cannot_see.first()) {
        (Status::Unknown, _, Some(what)) => format!("{name}: not seen: {what}"),
        (_, Some(f), _) => format!("{name}: {}: {}", f.kind.name(), f.summary),
        _ => name.clone(),
    }
}

/// `'label'=value;warning;critical;minimum;maximum`
fn performance(report: &Report) -> String {
    let count = |status| report.services.iter().filter(|s| s.status == status).count();
    let all = report.services.len();
    let mut text = String::new();
    for (label, n) in [
        ("ok", count(Status::Ok)),
        ("warning", count(Status::Warning)),
        ("critical", count(Status::Critical)),
        ("unknown", count(Status::Unknown)),
    ] {
        _ = write!(text, " {label}={n};;;0;{all}");
    }
    for s in &report.services {
        for q in &s.queues {
            let label = label(&format!("{} {} queue", s.service, q.address));
            _ = write!(text, " {label}={};;;0;{}", q.queue, q.limit);
        }
        if let (Some(age), Some(limit)) = (s.heartbeat_age_ns, s.stale_after_ns) {
            let seconds = |ns: u64| ns as f64 / 1e9;
            let label = label(&format!("{} heartbeat age", s.service));
            _ = write!(text, " {label}={:.3}s;;{:.3};0", seconds(age), seconds(limit));
        }
    }
    text
}

/// Labels stand in quotes, and hold neither those nor `=`.
fn label(text: &str) -> String {
    let text: String = plain(text)
        .chars()
        .map(|c| if matches!(c, '\'' | '=') { '_' } else { c })
        .collect();
    format!("'{text}'")
}

/// On one line, without what separates text from performance data, and nothing that steers a terminal.
fn plain(text: &str) -> String {
    crate::report::plain(text).replace('|', "/")
}
