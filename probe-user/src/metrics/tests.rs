use serde_json::json;

use super::*;
use crate::{
    api::types::{ProbeStatus, ServiceStatus},
    clock::Nanos,
    engine::finding::{EventKind, Finding, FindingState, Kind, Shown},
    event::TimeSource,
};

fn service(name: &str) -> ServiceStatus {
    serde_json::from_value(json!({
        "service": name, "verdict": "finding", "expected": true, "main": null, "main_since_ns": null, "instances": 1,
        "members": 2, "generation": 4, "restarts": 3, "ready": true,
        "listeners": [{"address": "unix:/run/a\"b\\c.sock", "state": "listening", "holder": null, "inode": 7,
                       "queue": 3, "limit": 128, "since_ns": 1}],
        "pid_file": null, "unit": null, "heartbeat_age_ns": 1_500_000_000, "stopping": null, "last_end": null,
        "gave_up": false, "silenced": null, "tier": {}, "cannot_see": [],
        "findings": [{"id": "1", "state": "opened", "kind": "stale-socket", "service": name, "severity": "critical",
                      "subject": "s", "cause": "c", "at": "", "boot_ns": 1, "actor": null, "summary": "", "evidence": []}],
    }))
    .unwrap()
}

fn probe() -> ProbeStatus {
    serde_json::from_value(json!({
        "version": "0", "process": {"pid": 1}, "since_ns": 1_000_000_000, "joined": true, "blind": null, "lost": {},
        "tier": {"signal": "tracepoint"}, "loaded_ns": 1, "reloads": 2, "reload_error": null,
    }))
    .unwrap()
}

fn signal(name: &str, disposition: &str) -> Said {
    let facts = json!({"signal": name, "disposition": disposition});
    Said::Event(Box::new(Shown {
        seq: 1,
        at: Nanos(1),
        time_source: TimeSource::Kernel,
        service: "annad".into(),
        kind: EventKind::Signal,
        subject: None,
        process: None,
        actor: None,
        facts: facts.into(),
        summary: String::new(),
    }))
}

fn opened(detected_after_ns: u64) -> Said {
    Said::Finding(Box::new(Finding {
        id: "1".into(),
        state: FindingState::Opened,
        kind: Kind::Crashed,
        service: "annad".into(),
        severity: Kind::Crashed.severity(),
        subject: String::new(),
        cause: String::new(),
        at: Nanos(1),
        detected_after_ns,
        actor: None,
        summary: String::new(),
        resolution: None,
        evidence: vec![],
        facts: serde_json::Map::new(),
    }))
}

fn lost(source: &str, count: u64) -> Said {
    Said::Lost {
        source: source.into(),
        count,
    }
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line {line}\nin\n{text}");
}

#[test]
fn what_was_said_is_counted_and_what_is_so_is_told() {
    let metrics = Metrics::default();
    for said in [
        signal("USR1", "default"),
        signal("USR1", "default"),
        signal("RTMIN+2", "caught"),
        signal("no signal", "no disposition"),
        opened(180_000),
        opened(1_000_000_000),
        lost("ring", 12),
        lost("ring", 1),
    ] {
        metrics.take(&said);
    }
    let (services, probe) = ([service("annad")], probe());
    let now = Now {
        at: Nanos(3_500_000_000),
        services: &services,
        probe: Some(&probe),
        hooks: &[HookFigures {
            hook: "page".into(),
            waiting: 2,
            results: vec![("ok", 5)],
        }],
        ..Now::default()
    };
    let text = metrics.encode(&now, Format::OpenMetrics);
    for line in [
        r#"probe_events_total{kind="signal"} 4.0"#,
        r#"probe_signals_total{signal="USR1",number="10",disposition="default"} 2.0"#,
        r#"probe_signals_total{signal="RTMIN+2",number="36",disposition="caught"} 1.0"#,
        r#"probe_signals_total{signal="other",number="0",disposition="other"} 1.0"#,
        r#"probe_findings_total{kind="crashed",state="opened"} 2.0"#,
        r#"probe_detection_seconds_count{kind="crashed"} 2"#,
        r#"probe_detection_seconds_bucket{le="0.0001",kind="crashed"} 0"#,
        r#"probe_detection_seconds_bucket{le="0.0005",kind="crashed"} 1"#,
        r#"probe_detection_seconds_bucket{le="1.0",kind="crashed"} 2"#,
        r#"probe_detection_seconds_bucket{le="+Inf",kind="crashed"} 2"#,
        r#"probe_events_lost_total{source="ring"} 13.0"#,
        r#"probe_service_verdict{service="annad",verdict="finding"} 1.0"#,
        r#"probe_service_verdict{service="annad",verdict="ok"} 0.0"#,
        r#"probe_service_restarts_total{service="annad"} 3.0"#,
        r#"probe_heartbeat_age_seconds{service="annad"} 1.5"#,
        r#"probe_findings_open{service="annad",kind="stale-socket",severity="critical"} 1.0"#,
        r#"probe_accept_queue_length{service="annad",address="unix:/run/a\"b\\c.sock"} 3.0"#,
        r#"probe_accept_queue_limit{service="annad",address="unix:/run/a\"b\\c.sock"} 128.0"#,
        "probe_uptime_seconds{} 2.5",
        r#"probe_tier{subject="signal",tier="tracepoint"} 1.0"#,
        r#"probe_hook_results_total{hook="page",outcome="ok"} 5.0"#,
        r#"probe_hook_queue_length{hook="page"} 2.0"#,
        concat!(
            r#"probe_build_info{version=""#,
            env!("CARGO_PKG_VERSION"),
            r#""} 1"#
        ),
    ] {
        has(&text, line);
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(
        text,
        metrics.encode(&now, Format::OpenMetrics),
        "the order changes"
    );
}

#[test]
fn the_older_format_has_the_same_samples() {
    let metrics = Metrics::default();
    metrics.take(&lost("ring", 12));
    let services = [service("a\"b\\c\nd # TYPE evil counter")];
    let now = Now {
        services: &services,
        ..Now::default()
    };
    let classic = metrics.encode(&now, Format::Classic);
    let open = metrics.encode(&now, Format::OpenMetrics);
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(samples(&classic), samples(&open));
    has(&open, "# TYPE probe_events_lost counter");
    has(&classic, "# TYPE probe_events_lost_total counter");
    has(
        &classic,
        "# HELP probe_events_lost_total Events lost before they were judged or counted, by source.",
    );
    has(&classic, "# TYPE probe_build_info gauge");
    has(&classic, "# TYPE probe_detection_seconds histogram");
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
    has(
        &classic,
        r#"probe_service_generation{service="a\"b\\c\nd # TYPE evil counter"} 4.0"#,
    );
}

#[test]
fn names_cannot_multiply_the_series() {
    let metrics = Metrics::default();
    for n in 0..1000 {
        metrics.take(&lost(&format!("source {n}"), 1));
        metrics.take(&signal(&format!("signal {n}"), &format!("disposition {n}")));
    }
    let services = [service(&"é".repeat(2000))];
    let now = Now {
        services: &services,
        ..Now::default()
    };
    let text = metrics.encode(&now, Format::OpenMetrics);
    assert_eq!(text.matches("probe_signals_total{").count(), 1);
    assert_eq!(text.matches("probe_events_lost_total{").count(), 65);
    has(&text, r#"probe_events_lost_total{source="other"} 936.0"#);
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest < 700, "{longest}");
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    // What Prometheus 2.42 sends.
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
    assert_eq!(Format::accepted(Some("text/plain")), Format::Classic);
    assert_eq!(Format::accepted(None), Format::Classic);
}

#[test]
fn the_engine_s_thread_is_measured() {
    let timings = Arc::new(Timings::default());
    let metrics = Metrics::new(Arc::clone(&timings));
    timings.applied(std::time::Duration::from_micros(10));
    timings.applied(std::time::Duration::from_micros(11));
    timings.snapshot(std::time::Duration::from_secs(200));
    timings.ring(500, 4096);
    timings.ring(100, 4096);
    let text = metrics.encode(&Now::default(), Format::OpenMetrics);
    for line in [
        r#"probe_engine_apply_seconds_bucket{le="0.00001"} 1"#,
        r#"probe_engine_apply_seconds_bucket{le="0.00005"} 2"#,
        r#"probe_snapshot_seconds_bucket{le="120.0"} 0"#,
        r#"probe_snapshot_seconds_bucket{le="+Inf"} 1"#,
        "probe_snapshot_seconds_sum{} 200.0",
        "probe_ring_high_water_bytes{} 500.0",
        "probe_ring_size_bytes{} 4096.0",
    ] {
        has(&text, line);
    }
}
