//! Who holds a path, beside 80, 1,000 and 5,000 processes with 20 descriptors each.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Context, ensure};
use probe_tests::{Probed, Sandbox, probe_binary};
use probe_user::clock;
use serde_json::Value;

use super::Measure;
use crate::{
    load::child::Load,
    netlink, peer, process,
    row::{Better, Plot, PlotLine, Row, Unit},
    stats::{Samples, Span},
};

pub(super) const MEASURE: Measure = Measure {
    rows: &[
        (
            "who",
            "`probe who PATH` at 5,000 processes with 20 descriptors each",
            "Each tool is run in turn, from its start to its end, with its output thrown away. `attached`: a daemon runs that \
             watches the path, also asked without the start of a program; `alone`: none does, and `probe who` looks by itself.",
        ),
        (
            "growth-processes",
            "Growth of a question from 80 to 5,000 processes",
            "The medians of the same runs.",
        ),
    ],
    run,
};

const SIZES: [usize; 3] = [80, 1_000, 5_000];
const DESCRIPTORS: usize = 20;
const ROUNDS: usize = 9;
/// It takes seconds.
const LSOF_ROUNDS: usize = 3;

#[derive(Default)]
struct Tools {
    attached: Samples,
    /// The same question from a client that runs already.
    asked: Samples,
    alone: Samples,
    lsof: Samples,
    fuser: Samples,
    ss: Samples,
}

fn run(rows: &mut [Row]) -> anyhow::Result<()> {
    let [row, growth] = rows else {
        anyhow::bail!("two rows")
    };
    for peer in ["lsof", "fuser", "ss"] {
        if !peer::is_there(peer) {
            row.skipped.push(format!("{peer} is not installed"));
        }
    }
    let sandbox = Sandbox::new();
    let exe = sandbox.install(&std::env::current_exe()?, "served");
    let path = sandbox.path("served.sock");
    let config = format!(
        "[[service]]\nname = \"served\"\nexe = {exe:?}\nlisten = [\"unix:{}\"]\n",
        path.display()
    );
    let _served = Load::start(&exe, &["listener", &path.display().to_string()])?;
    let daemon = Probed::start(&sandbox, &config);
    let mut all = Vec::new();
    // Those of the size before end in their own time.
    let others = process::count();
    for size in SIZES {
        let more = size.saturating_sub(others).to_string();
        let _bystanders = Load::own(&["bystanders", &more, &DESCRIPTORS.to_string()])?;
        let beside = process::count();
        all.push((beside, ask_all(&path, &daemon)?));
        if size == SIZES[SIZES.len() - 1] {
            let inode = socket_inode(&answer_of(&path, &daemon)?)?;
            row.floors.push(format!(
                "a bare netlink question for one UNIX socket, sent and answered: {}; {beside} processes",
                Unit::Nanos.show(netlink::ask_for(inode)?.median())
            ));
            row.floors.push(format!(
                "starting a program that does nothing (`probe --version`): {}; {beside} processes",
                Unit::Nanos.show(start_alone()?.median())
            ));
        }
    }
    let Some((_, most)) = all.last() else {
        anyhow::bail!("nothing was measured")
    };
    for (beside, tools) in &all {
        for (name, samples) in tools.named() {
            row.figure(&format!("{name}, {beside} processes"), Unit::Nanos, samples);
        }
    }
    row.aim_at_most("attached", Unit::Nanos, most.attached.median(), 2e6);
    row.aim_at_most("alone", Unit::Nanos, most.alone.median(), 45e6);
    let mut faster = |what: &str, peer: &Samples, own: &Samples, limit| {
        if peer.len() > 0 {
            row.aim_ratio(what, Better::Higher, Span::of(peer, own), limit);
        }
    };
    faster("lsof / attached", &most.lsof, &most.attached, 3000.0);
    faster("lsof / alone", &most.lsof, &most.alone, 140.0);
    faster("fuser / alone", &most.fuser, &most.alone, 14.0);
    faster("ss -xlp / alone", &most.ss, &most.alone, 18.0);
    let least = &all[0].1;
    let mut grown = |what: &str, few: &Samples, many: &Samples, limit: Option<f64>| {
        if few.len() == 0 {
            return;
        }
        let span = Span::of(many, few);
        match limit {
            Some(limit) => growth.aim_ratio(what, Better::Lower, span, limit),
            None => growth.ratio(what, Better::Lower, span),
        }
    };
    grown("attached", &least.attached, &most.attached, Some(1.1));
    grown("asked by a running client", &least.asked, &most.asked, Some(1.1));
    grown("alone", &least.alone, &most.alone, None);
    grown("lsof", &least.lsof, &most.lsof, None);
    grown("fuser", &least.fuser, &most.fuser, None);
    grown("ss -xlp", &least.ss, &most.ss, None);
    let names: Vec<&str> = least.named().iter().map(|(name, _)| *name).collect();
    growth.plots.push(Plot {
        name: "growth-processes".into(),
        title: "Who holds a path? Time from question to answer".into(),
        x: "processes with 20 descriptors each".into(),
        y: "ms".into(),
        lines: names
            .iter()
            .enumerate()
            .map(|(i, name)| PlotLine {
                name: (*name).to_owned(),
                points: all
                    .iter()
                    .map(|(beside, tools)| (*beside as f64, tools.named()[i].1.median() / 1e6))
                    .filter(|(_, y)| y.is_finite())
                    .collect(),
            })
            .collect(),
    });
    Ok(())
}

impl Tools {
    fn named(&self) -> [(&'static str, &Samples); 6] {
        [
            ("probe who, attached", &self.attached),
            ("the daemon, asked by a running client", &self.asked),
            ("probe who, alone", &self.alone),
            ("lsof PATH", &self.lsof),
            ("fuser PATH", &self.fuser),
            ("ss -xlp", &self.ss),
        ]
    }
}

fn who(path: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(probe_binary());
    command.arg("who").arg(path).args(more);
    command
}

fn ask_all(path: &Path, daemon: &Probed) -> anyhow::Result<Tools> {
    let socket = daemon.socket().display().to_string();
    let attached = || who(path, &["--socket", &socket]);
    let alone = || who(path, &["--alone"]);
    // The right answer first: a fast wrong one is worth nothing.
    for command in [attached(), alone()] {
        let answer = answer(command)?;
        let socket = &answer["sockets"][0];
        let holders = socket["holders"].as_array().map_or(0, Vec::len);
        ensure!(
            answer["state"] == "live" && holders == 1 && socket["holders_complete"] == true,
            "a wrong answer: {answer}"
        );
    }
    let mut tools = Tools::default();
    for round in 0..super::samples(ROUNDS) {
        tools.attached.push(peer::time(&mut attached())?);
        tools.asked.push(ask_daemon(path, daemon)?);
        tools.alone.push(peer::time(&mut alone())?);
        if peer::is_there("fuser") {
            tools.fuser.push(peer::time(&mut peer::fuser(path))?);
        }
        if peer::is_there("ss") {
            tools.ss.push(peer::time(&mut peer::ss())?);
        }
        if peer::is_there("lsof") && round % (ROUNDS / LSOF_ROUNDS) == 0 {
            tools.lsof.push(peer::time(&mut peer::lsof(path))?);
        }
    }
    Ok(tools)
}

/// From the connect to the end of the answer.
fn ask_daemon(path: &Path, daemon: &Probed) -> anyhow::Result<f64> {
    let question = format!(
        "GET /v1/who?address=unix:{} HTTP/1.0\r\nhost: probe\r\n\r\n",
        path.display()
    );
    let mut answer = Vec::new();
    let began = clock::now();
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.write_all(question.as_bytes())?;
    stream.read_to_end(&mut answer)?;
    let took = clock::now().since(began);
    ensure!(
        answer.starts_with(b"HTTP/1.0 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(peer::nanos(took))
}

fn answer(mut command: Command) -> anyhow::Result<Value> {
    let output = command.arg("--json").output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("probe who: {}", String::from_utf8_lossy(&output.stderr)))
}

fn answer_of(path: &Path, daemon: &Probed) -> anyhow::Result<Value> {
    answer(who(path, &["--socket", &daemon.socket().display().to_string()]))
}

fn socket_inode(answer: &Value) -> anyhow::Result<u32> {
    let inode = answer["sockets"][0]["inode"].as_u64();
    inode.and_then(|i| u32::try_from(i).ok()).context("no inode")
}

fn start_alone() -> anyhow::Result<Samples> {
    (0..super::samples(ROUNDS))
        .map(|_| peer::time(Command::new(probe_binary()).arg("--version")))
        .collect()
}
