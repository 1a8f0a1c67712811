//! The services, probe's daemon, and the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use probe_tests::{Bpffs, Probed, Sandbox, until, until_within};
use probe_user::clock;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    acts::{Act, Expected, Victim, crash},
    churn::{self, Churn, Counts},
};

const VICTIMS: usize = 4;
/// Lines that the stream keeps for those who come late: memory grows until there are so many.
const KEPT: u64 = 1 << 16;
/// In one go: the ring holds them.
const AT_ONCE: u64 = 500;
/// Everything is compared in the end.
const RETENTION: &str = "retention = { age = \"30d\", size = \"64GiB\" }\n";
const FILLED_WITHIN: Duration = Duration::from_secs(120);

/// How often a service had a finding of a kind.
type Found = BTreeMap<(String, String), u64>;

pub(crate) struct Stage {
    pub(crate) probed: Probed,
    churn: Churn,
    victims: Vec<Victim>,
    turn: usize,
    /// The `[[service]]` tables, and whether one more was declared last.
    config: String,
    more: bool,
    truth: Found,
    acts: BTreeMap<&'static str, u64>,
    _bpffs: Bpffs,
    _sandbox: Sandbox,
}

/// The truth beside what was found.
pub(crate) struct Compared {
    acts: BTreeMap<&'static str, u64>,
    pub(crate) wanted: u64,
    pub(crate) missed: u64,
    pub(crate) wrong: u64,
    differing: Vec<String>,
    still_open: Vec<String>,
}

impl Compared {
    pub(crate) fn acts(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.acts.iter().map(|(what, n)| (*what, format!("{n} times")))
    }

    /// What is not as it should be.
    pub(crate) fn wrongs(&self) -> Vec<&String> {
        self.differing.iter().chain(&self.still_open).collect()
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let bpffs = Bpffs::mount(&sandbox);
        let names = (0..VICTIMS).map(|n| format!("victim-{n}"));
        let victims: Vec<_> = names.map(|name| Victim::start(&sandbox, &name)).collect();
        let (churn, mut config) = Churn::start(&sandbox);
        config.extend(victims.iter().map(Victim::toml));
        let stage = Self {
            probed: Probed::with(&sandbox, &format!("{}{RETENTION}", bpffs.toml()), &config),
            churn,
            victims,
            turn: 0,
            config,
            more: false,
            truth: Found::new(),
            acts: BTreeMap::new(),
            _bpffs: bpffs,
            _sandbox: sandbox,
        };
        stage.victims.iter().for_each(|v| stage.expect_well(v));
        stage
    }

    fn next(&mut self) -> usize {
        self.turn += 1;
        self.turn % VICTIMS
    }

    /// Does something to the next one, waits for what must be found, mends it, and waits for the end of that.
    pub(crate) fn act(&mut self, act: &Act) {
        let i = self.next();
        let expected = (act.cause)(&mut self.victims[i]);
        self.expect(i, act.what, &expected);
        (act.mend)(&mut self.victims[i]);
        self.expect_well(&self.victims[i]);
        if self.turn.is_multiple_of(3) {
            self.reload();
        }
    }

    /// Kills probe, has a service crash, and starts probe again.
    pub(crate) fn restart_around_a_crash(&mut self) {
        self.settle();
        self.probed.kill();
        let i = self.next();
        let killer = self.victims[i].kill();
        self.probed.begin();
        let mut expected = crash(killer);
        // Who held which socket is not kept over a restart.
        expected.retain(|(kind, _)| *kind != "stale-socket");
        expected.push(("stale-socket", None));
        self.expect(i, "probe is killed (KILL), and a service meanwhile", &expected);
        self.victims[i].start_again();
        self.expect_well(&self.victims[i]);
    }

    /// Waits until exactly this is open.
    #[track_caller]
    fn expect(&mut self, victim: usize, what: &'static str, expected: &Expected) {
        let name = &self.victims[victim].name;
        let mut wanted: Vec<&str> = expected.iter().map(|(kind, _)| *kind).collect();
        wanted.sort_unstable();
        until(
            &format!("{what}: {name} has {expected:?}\n{}", self.last(name)),
            || {
                let findings = self.findings(name);
                let mut kinds: Vec<&str> = findings.iter().filter_map(|f| f["kind"].as_str()).collect();
                kinds.sort_unstable();
                kinds == wanted
                    && expected.iter().all(|(kind, actor)| {
                        let finding = findings.iter().find(|f| f["kind"] == *kind);
                        actor.is_none_or(|a| finding.is_some_and(|f| f["actor"]["pid"] == a))
                    })
            },
        );
        for (kind, _) in expected {
            *self.truth.entry((name.clone(), (*kind).to_owned())).or_default() += 1;
        }
        *self.acts.entry(what).or_default() += 1;
    }

    fn findings(&self, name: &str) -> Vec<Value> {
        let service = self.probed.service(name);
        service["findings"].as_array().cloned().unwrap_or_default()
    }

    fn last(&self, name: &str) -> String {
        format!("{:#}\n{}", self.probed.service(name), self.probed.log())
    }

    /// Waits until it runs, is ready, and nothing is wrong with it.
    #[track_caller]
    fn expect_well(&self, victim: &Victim) {
        until(&format!("{} is well", victim.name), || {
            let s = self.probed.service(&victim.name);
            s["main"]["pid"] == victim.daemon.pid() && s["ready"] == true && s["verdict"] == "ok"
        });
    }

    /// Declares one service more, or one less.
    fn reload(&mut self) {
        self.more = !self.more;
        let more = match self.more {
            true => {
                "[[service]]\nname = \"more\"\nexpected = false\nlisten = [\"unix:/run/probe-soak-more.sock\"]\n"
            }
            false => "",
        };
        self.probed.declare(&format!("{}{more}", self.config));
        self.probed.signal(Signal::HUP);
        let services = VICTIMS + 1 + usize::from(self.more);
        until("the configuration is read", || {
            self.probed.status()["services"].as_array().map(Vec::len) == Some(services)
        });
        *self.acts.entry("reloads").or_default() += 1;
    }

    /// Waits until everything that was said by now is written down: a signal is behind it. A generation and what is said of it
    /// come to the writer on two ways.
    fn settle(&self) {
        for _ in 0..2 {
            let before = clock::now().0;
            self.churn.while_still(|daemon, _| daemon.tell("raise USR2"));
            let query = [
                "history",
                "--json",
                "--kind",
                "signal",
                "--service",
                churn::NAME,
                "--since",
                "30s",
            ];
            until("it is written down", || {
                let output = self.probed.ask(&query);
                let mut lines = output.stdout.lines().filter(|l| l.contains("\"USR2\""));
                lines.any(|l| {
                    let line: Value = serde_json::from_str(l).expect("JSON");
                    line["boot_ns"].as_u64().is_some_and(|at| at >= before)
                })
            });
        }
    }

    /// Has as many lines told as are kept for those who come late.
    pub(crate) fn fill_what_is_kept(&self) {
        self.churn.while_still(|daemon, counts| {
            let mut told = self.told("USR1");
            for _ in 0..KEPT.div_ceil(AT_ONCE) {
                daemon.tell(&format!("raise USR1 {AT_ONCE}"));
                counts.signals += AT_ONCE;
                told += AT_ONCE;
                until_within(FILLED_WITHIN, "the signals are told", || {
                    self.told("USR1") >= told
                });
            }
        });
    }

    /// How many of these signals to the churned service were told in this life of probe's.
    fn told(&self, signal: &str) -> u64 {
        let metrics = self.probed.metrics();
        let series = metrics
            .lines()
            .filter(|l| l.starts_with("probe_signals_total") && l.contains(&format!("{signal:?}")));
        series
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// How many signals were sent and told by now.
    pub(crate) fn signals(&self) -> (u64, u64) {
        self.churn.while_still(|daemon, counts| {
            // Nothing else is sent meanwhile, so when another signal is told, all before it are.
            let marks = self.told("USR2");
            daemon.tell("raise USR2 1");
            until("the mark is told", || self.told("USR2") > marks);
            (counts.signals, self.told("USR1"))
        })
    }

    pub(crate) fn signals_since(&self, before: &(u64, u64)) -> (u64, u64) {
        let (sent, told) = self.signals();
        (sent - before.0, told - before.1)
    }

    /// KB of the lines that are kept for late readers: they differ in length.
    pub(crate) fn kept(&self) -> u64 {
        let metrics = self.probed.metrics();
        let bytes = metrics.lines().find_map(|l| l.strip_prefix("probe_stream_bytes"));
        let bytes = bytes.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        bytes.expect("the bytes that are kept") as u64 / 1024
    }

    /// Everything that was ever found, beside the truth.
    pub(crate) fn compare(&self) -> Compared {
        self.settle();
        let output = self.probed.ask(&["history", "--json", "--only", "finding"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let mut found = Found::new();
        let mut lines: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
        for line in output.stdout.lines() {
            let value: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            let key = (text("service"), text("kind"));
            if value["state"] == "opened" {
                *found.entry(key.clone()).or_default() += 1;
            }
            lines.entry(key).or_default().push(line);
        }
        let keys: BTreeSet<_> = found.keys().chain(self.truth.keys()).collect();
        let (mut missed, mut wrong, mut differing) = (0, 0, Vec::new());
        for key in keys {
            let wanted = self.truth.get(key).copied().unwrap_or(0);
            let came = found.get(key).copied().unwrap_or(0);
            missed += wanted.saturating_sub(came);
            wrong += came.saturating_sub(wanted);
            if wanted != came {
                differing.push(format!("{} {}: {came} times, not {wanted}", key.0, key.1));
                if wanted == 0 {
                    let shown = lines.get(key).into_iter().flatten();
                    differing.extend(shown.take(4).map(|l| (*l).to_owned()));
                }
            }
        }
        let answer = self.probed.http("GET", "/v1/findings");
        let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        let still_open = answer["findings"].as_array().into_iter().flatten();
        Compared {
            acts: self.acts.clone(),
            wanted: self.truth.values().sum(),
            missed,
            wrong,
            differing,
            still_open: still_open.map(Value::to_string).collect(),
        }
    }

    /// Ends everything, and says what went on beside it.
    pub(crate) fn end(self) -> String {
        let Counts {
            forks,
            strangers,
            signals,
            connections,
            sockets,
        } = self.churn.end();
        format!(
            "{forks} forks of {}, {strangers} processes of strangers, {signals} signals, {connections} connections, {sockets} sockets",
            churn::NAME
        )
    }
}
