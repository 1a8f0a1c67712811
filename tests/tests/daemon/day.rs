//! A day in the life: three services of three kinds, a failure of each, and everybody who is told of it.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use probe_tests::{
    Attached, Managed, Nginx, Probed, Proc, Redis, Sandbox, free_port, http, kill, unassigned_port, until,
    until_within,
};
use serde_json::Value;

use crate::scene::{Service, noted, noting};

/// Prometheus and Alertmanager take seconds to begin, and more on a busy machine.
const BEGIN: Duration = Duration::from_secs(60);

/// A real Prometheus that scrapes probe, and a real Alertmanager.
struct Monitoring {
    _alertmanager: Proc,
    _prometheus: Proc,
    alertmanager: u16,
    prometheus: u16,
}

impl Monitoring {
    fn start(sandbox: &Sandbox, probe: u16) -> Self {
        let (alertmanager, prometheus) = (free_port(), free_port());
        let config = sandbox.write(
            "alertmanager.yml",
            "route: { receiver: none }\nreceivers: [{ name: none }]\n",
        );
        let quiet = |command: &mut Command, log: &str| {
            let log = fs::File::create(sandbox.path(log)).expect("a log");
            Proc::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
        };
        let of_alertmanager = quiet(
            Command::new("prometheus-alertmanager")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.path={}",
                    sandbox.path("alertmanager").display()
                ))
                .arg(format!("--web.listen-address=127.0.0.1:{alertmanager}"))
                .arg("--cluster.listen-address="),
            "alertmanager.log",
        );
        let config = sandbox.write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: probe\n    \
                 static_configs: [{{ targets: ['127.0.0.1:{probe}'] }}]\n"
            ),
        );
        let of_prometheus = quiet(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    sandbox.path("prometheus").display()
                ))
                .arg(format!("--web.listen-address=127.0.0.1:{prometheus}")),
            "prometheus.log",
        );
        let all = Self {
            _alertmanager: of_alertmanager,
            _prometheus: of_prometheus,
            alertmanager,
            prometheus,
        };
        for port in [alertmanager, prometheus] {
            until_within(BEGIN, "it is ready", || {
                http::over_tcp(port, "GET", "/-/ready", "").is_ok_and(|a| a.code == 200)
            });
        }
        all
    }

    /// `SERVICE KIND` of each alert that is not resolved.
    fn alerts(&self) -> Vec<String> {
        let answer = http::over_tcp(self.alertmanager, "GET", "/api/v2/alerts", "").expect("an answer");
        let alerts: Value = serde_json::from_str(&answer.body).expect("JSON");
        let label = |a: &Value, name: &str| a["labels"][name].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = alerts
            .as_array()
            .into_iter()
            .flatten()
            .map(|a| format!("{} {}", label(a, "service"), label(a, "alertname")))
            .collect();
        names.sort();
        names
    }

    /// The value of an expression that gives one.
    fn value(&self, expression: &str) -> Option<String> {
        let path = format!("/api/v1/query?query={expression}");
        let answer = http::over_tcp(self.prometheus, "GET", &path, "").ok()?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    }
}

#[test]
fn three_services_fail_and_everybody_knows() {
    let sandbox = Sandbox::new();
    let (redis, nginx, annad) = (
        Redis::install(&sandbox),
        Nginx::install(&sandbox),
        Service::new(&sandbox, "annad"),
    );
    // Prometheus asks there before probe listens.
    let port = unassigned_port();
    let monitoring = Monitoring::start(&sandbox, port);
    let file = sandbox.path("noted");
    let webhook = format!(
        "\n[[hook]]\nname = \"alertmanager\"\nseverity = \"warning\"\nformat = \"alertmanager\"\n\
         webhook = \"http://127.0.0.1:{}/api/v2/alerts\"\n",
        monitoring.alertmanager
    );
    let config = format!(
        "{}{}{}{webhook}{}",
        redis.service(),
        nginx.service(""),
        annad.toml(""),
        noting("note", &file, "")
    );
    let mut in_redis = redis.start();
    let in_nginx = nginx.start();
    let mut in_annad = annad.start();
    let managed = Managed {
        activated: true,
        watchdog: Some(Duration::from_secs(3)),
        ..Managed::default()
    };
    let mut probed = Probed::declared(
        &sandbox,
        &format!("api_tcp = \"127.0.0.1:{port}\""),
        &config,
        &managed,
    );
    probed.begin();
    let watch = Attached::to(probed.socket(), &[]);
    let verdicts = |probed: &Probed| {
        ["redis", "nginx", "annad"].map(|s| {
            probed.service(s)["verdict"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    };
    until("all are well", || verdicts(&probed) == ["ok", "ok", "ok"]);

    // Three failures.
    kill("KILL", in_redis.pid());
    in_redis.wait();
    kill("STOP", in_nginx.pid());
    fs::remove_file(&annad.path).expect("the socket file");
    until("each is found", || {
        verdicts(&probed) == ["finding", "finding", "finding"]
    });
    let opened = |what: &[&str]| what.iter().all(|w| noted(&file).iter().any(|n| n == w));
    until("each is told", || {
        opened(&[
            "redis opened crashed",
            "nginx opened stopped",
            "annad opened orphaned-listener",
        ])
    });
    until("Alertmanager has them", || {
        let alerts = monitoring.alerts();
        ["redis crashed", "nginx stopped", "annad orphaned-listener"]
            .iter()
            .all(|a| alerts.iter().any(|have| have == a))
    });
    until_within(BEGIN, "Prometheus has them", || {
        monitoring
            .value("count(count%20by(service)(probe_findings_open))")
            .as_deref()
            == Some("3")
    });

    // A bad reload in the middle changes nothing, a good one loses nothing.
    probed.declare("[[service]]\nname = \"redis\"\nlisten = [\"nowhere:1\"]\n");
    probed.expect_log("the configuration stays as it was");
    assert_eq!(verdicts(&probed), ["finding", "finding", "finding"]);
    let another = Service::new(&sandbox, "another");
    probed.declare(&format!("{config}{}", another.toml("")));
    until("the reload is through", || {
        probed.status()["services"].as_array().map(Vec::len) == Some(4)
    });
    assert_eq!(verdicts(&probed), ["finding", "finding", "finding"]);

    // Everything is mended.
    in_redis = redis.start();
    kill("CONT", in_nginx.pid());
    annad.kill(&in_annad);
    in_annad = annad.ready(&probed);
    until("all are well again", || verdicts(&probed) == ["ok", "ok", "ok"]);
    until("each end is told", || {
        opened(&["redis resolved crashed", "nginx resolved stopped"])
            && noted(&file).iter().any(|n| n.starts_with("annad resolved"))
    });
    until("Alertmanager has none", || monitoring.alerts().is_empty());
    until_within(BEGIN, "Prometheus sees the restarts", || {
        monitoring
            .value("sum(probe_service_restarts_total)")
            .is_some_and(|n| n == "2")
    });

    // Each was told once.
    let told = noted(&file);
    for what in ["redis opened", "redis resolved", "nginx opened", "nginx resolved"] {
        assert_eq!(
            told.iter().filter(|n| n.starts_with(what)).count(),
            1,
            "{what}: {told:?}"
        );
    }

    // Nothing was lost, also not by the reloads.
    let lines = watch.stop();
    let cursors: Vec<u64> = lines.iter().filter_map(|l| l.value["cursor"].as_u64()).collect();
    let gap = cursors
        .iter()
        .zip(cursors.iter().skip(1))
        .find(|(a, b)| **a + 1 != **b);
    assert_eq!(gap, None, "{cursors:?}");
    assert!(lines.iter().all(|l| l.kind() != "lost"));

    // The history tells the story.
    let story = probed.ask(&["history", "--only", "finding", "--json"]).stdout;
    let told = |service: &str, kind: &str, state: &str| {
        story.lines().any(|l| {
            let line: Value = serde_json::from_str(l).expect("JSON");
            line["service"] == service && line["kind"] == kind && line["state"] == state
        })
    };
    for (service, kind) in [
        ("redis", "crashed"),
        ("redis", "stale-socket"),
        ("nginx", "stopped"),
        ("annad", "orphaned-listener"),
    ] {
        assert!(
            told(service, kind, "opened") && told(service, kind, "resolved"),
            "{service} {kind}: {story}"
        );
    }
    let reloads = probed.ask(&["history", "--kind", "action", "--json"]).stdout;
    assert!(
        reloads.contains("\"refused\"") && reloads.contains("the configuration was taken over"),
        "{reloads}"
    );
    probed.stop();
    println!(
        "{} lines were told, {} findings kept",
        lines.len(),
        story.lines().count()
    );
    assert!(in_annad.process().is_alive() && in_redis.is_alive());
}
