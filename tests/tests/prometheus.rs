//! What Prometheus and Grafana make of the metrics: `promtool` of the distribution is the judge.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use probe_tests::Sandbox;
use probe_user::{
    api::types::{ProbeStatus, ServiceStatus},
    clock::Nanos,
    history,
    metrics::{Format, HookFigures, Metrics, Now},
    stream::{Figures, Said},
};
use serde_json::{Value, json};

/// Runs promtool, and returns what it wrote.
#[track_caller]
fn promtool(args: &[&str], input: &str) -> String {
    let (succeeded, text) = judged(args, input);
    assert!(succeeded, "promtool {args:?}: {text}\nof\n{input}");
    text
}

/// Likewise, whatever it thinks of it.
#[track_caller]
fn judged(args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: apt-get install prometheus");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}

fn service(name: &str) -> ServiceStatus {
    serde_json::from_value(json!({
        "service": name, "verdict": "finding", "expected": true, "main": null, "main_since_ns": null, "instances": 1,
        "members": 2, "generation": 4, "restarts": 3, "ready": true,
        "listeners": [{"address": "unix:/run/a b\"c\\d{e}.sock", "state": "listening", "holder": null, "inode": 7,
                       "queue": 3, "limit": 128, "since_ns": 1}],
        "pid_file": null, "unit": null, "heartbeat_age_ns": 1_500_000_000, "stopping": null, "last_end": null,
        "gave_up": false, "silenced": null, "tier": {}, "cannot_see": [],
        "findings": [{"id": "1", "state": "opened", "kind": "stale-socket", "service": name, "severity": "critical",
                      "subject": "s", "cause": "c", "at": "", "boot_ns": 1, "actor": null, "summary": "", "evidence": []}],
    }))
    .expect("a service of the API")
}

/// Every metric there is, of services with names that try to break out.
fn everything(format: Format) -> String {
    let metrics = Metrics::default();
    metrics.take(&Said::Lost {
        source: "ring \"\\\n".into(),
        count: 3,
    });
    let services = [
        service("annad"),
        service("a\"} 1\n# TYPE evil counter\nevil{x=\"\\"),
        service("ünïcode\u{2028}\u{202e}"),
        service(&"long".repeat(1000)),
    ];
    let probe: ProbeStatus = serde_json::from_value(json!({
        "version": "0", "process": {"pid": 1}, "since_ns": 1, "joined": true, "blind": null, "lost": {},
        "tier": {"signal": "tracepoint"}, "loaded_ns": 1, "reloads": 2, "reload_error": null,
    }))
    .expect("a status of the API");
    let history = history::Status {
        health: history::Health::Writing,
        written: 1,
        lost: 0,
        failures: 0,
        waiting: 0,
        bytes: 4096,
        oldest: None,
    };
    let hooks = [HookFigures {
        hook: "page \"me\"".into(),
        waiting: 1,
        results: vec![("ok", 1), ("failed", 2)],
    }];
    let now = Now {
        at: Nanos(5),
        services: &services,
        probe: Some(&probe),
        hooks: &hooks,
        history: Some(&history),
        stream: Some(Figures {
            lines: 1,
            bytes: 2,
            oldest: 1,
            newest: 1,
            readers: 1,
        }),
    };
    metrics.encode(&now, format)
}

/// The configurations in YAML that a page shows.
fn shown_in(page: &str) -> Vec<String> {
    let blocks = page.split("\n```yaml\n").skip(1);
    blocks
        .filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned() + "\n"))
        .collect()
}

/// What stands below a key, without its indentation; `None` where there is no such key.
fn below(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|l| l.trim() != key);
    let depth = |l: &str| l.len() - l.trim_start().len();
    let outside = depth(lines.next()?);
    let inside: Vec<&str> = lines.take_while(|l| depth(l) > outside).collect();
    let indent = depth(inside.first()?);
    Some(inside.iter().map(|l| l[indent..].to_owned() + "\n").collect())
}

/// Names under which samples of these metrics can be asked for.
fn known() -> BTreeSet<String> {
    let text = everything(Format::Classic);
    let types = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let mut names: BTreeSet<String> = ["up".to_owned()].into();
    for (name, kind) in types {
        if kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Names of metrics in an expression.
fn asked(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|w| w.starts_with("probe_"))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn check_names(what: &str, expression: &str, known: &BTreeSet<String>) {
    let names = asked(expression);
    assert!(
        !names.is_empty() || expression.contains("up{"),
        "{what} asks for nothing: {expression}"
    );
    for name in names {
        assert!(
            known.contains(&name),
            "{what} asks for {name}, which probe does not have"
        );
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let said = promtool(&["check", "metrics"], &everything(Format::Classic));
    assert_eq!(said, "");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alert_rules() {
    let path = packaging("prometheus/probe.rules.yml");
    let path = path.to_str().expect("a path in UTF-8");
    promtool(&["check", "rules", path], "");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/probe.rules.test.yml");
    let said = promtool(&["test", "rules", unit.to_str().expect("a path in UTF-8")], "");
    assert!(said.contains("SUCCESS"), "{said}");
    let (known, text) = (known(), fs::read_to_string(path).expect("the rules"));
    let names = asked(&text.replace("probe_history`", ""));
    assert!(names.len() > 14, "{names:?}");
    for name in names {
        assert!(
            known.contains(&name),
            "the rules ask for {name}, which probe does not have"
        );
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = fs::read_to_string(packaging("grafana/probe.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let known = known();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are used twice");
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let mut shown = BTreeSet::new();
    let targets = panels.iter().flat_map(|p| {
        let targets = p["targets"].as_array().into_iter().flatten();
        targets.map(|t| (p["title"].as_str().unwrap_or_default(), t))
    });
    for (n, (title, target)) in targets.enumerate() {
        let expression = target["expr"].as_str().expect("an expression");
        check_names(title, expression, &known);
        shown.extend(asked(expression));
        let filled = expression
            .replace("$__rate_interval", "5m")
            .replace("$__range", "6h");
        rules += &format!("      - record: r{n}\n        expr: {}\n", Value::String(filled));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(definition) = variable["definition"].as_str() {
            check_names("a variable", definition, &known);
        }
    }
    let sandbox = Sandbox::new();
    let file = sandbox.write("dashboard.yml", &rules);
    promtool(&["check", "rules", file.to_str().expect("a path in UTF-8")], "");
    let hidden: Vec<_> = known
        .iter()
        .filter(|name| !shown.contains(*name) && !name.ends_with("_sum") && !name.ends_with("_count"))
        .collect();
    let expected = [
        "probe_blind",
        "probe_history_lines_total",
        "probe_history_queue_length",
        "probe_joined",
        "probe_reloads_total",
        "probe_snapshot_seconds_bucket",
        "probe_stream_readers",
        "up",
    ];
    assert_eq!(hidden, expected, "metrics that the dashboard does not show");
}

/// The collector itself is no package of the distribution.
#[test]
fn what_the_page_on_fleets_shows_is_read_by_prometheus_and_names_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let shown = shown_in(&read("docs/fleets.md"));
    let (journal, lines) = (
        read("probe-user/src/hooks/journal.rs"),
        read("docs/schema/lines.json"),
    );
    let sandbox = Sandbox::new();
    let check = |text: &str| {
        let file = sandbox.write("shown.yml", text);
        let file = file.to_str().expect("a path in UTF-8");
        judged(&["check", "config", "--syntax-only", file], "")
    };
    let mut scraped = 0;
    for text in &shown {
        let of_prometheus = match text.starts_with("receivers:") {
            false => Some(text.clone()),
            true => below(text, "config:"),
        };
        if let Some(config) = of_prometheus {
            let (valid, said) = check(&config);
            assert!(valid, "{said}\nof\n{config}");
            assert!(config.contains("127.0.0.1:9477"), "{config}");
            scraped += 1;
        }
        // What is not its own it refuses by name, once it has read all of the YAML.
        let (_, said) = check(text);
        assert!(!said.contains("yaml: line"), "{said}\nof\n{text}");
        for word in text.split_whitespace() {
            if let Some(field) = word.strip_prefix("body.") {
                assert!(journal.contains(&format!("\"{field}\", ")), "{field}");
            }
            if let Some(field) = word.strip_prefix("attributes.") {
                assert!(lines.contains(&format!("\"{field}\": {{")), "{field}");
            }
        }
    }
    assert_eq!((shown.len(), scraped), (3, 2), "blocks of YAML, and what scrapes");
    let (valid, said) = check("receivers: [\n  x: y\n");
    assert!(
        !valid && said.contains("yaml: line"),
        "the judge is strict: {said}"
    );
}
