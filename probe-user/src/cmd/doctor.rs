//! `probe doctor`: what this kernel offers, how each hook is attached and why, what cannot be seen.

use std::io::{self, Write};

use probe_user::{
    kernel::{
        Facts, Kernel, LoadOptions,
        facts::Availability,
        plan::{Plan, Planned, Tier},
    },
    report::blind_spots,
};
use serde::Serialize;

use crate::cli::Doctor;

/// Everything that doctor prints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct Report {
    kernel: String,
    /// What was looked for before anything was loaded.
    facts: Vec<Fact>,
    hooks: Vec<HookRow>,
    /// Why nothing could be loaded at all.
    problem: Option<String>,
    /// What the attached hooks never see.
    cannot_see: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fact {
    name: &'static str,
    ok: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct HookRow {
    hook: &'static str,
    subject: &'static str,
    attached: bool,
    /// `None` where it is not attached.
    tier: Option<&'static str>,
    /// How it is attached, or would be.
    by: String,
    gives: &'static str,
    /// Why it is not attached, or not in the better way.
    reason: Option<String>,
}

pub(crate) fn run(args: &Doctor) -> anyhow::Result<()> {
    let report = gather(args.tier.wanted());
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(out.flush()?)
}

fn gather(tier: Option<Tier>) -> Report {
    let mut report = Report::default();
    let options = LoadOptions {
        tier,
        ..LoadOptions::default()
    };
    // Loading is the only way to know: what a kernel says it supports and what it lets this process do differ.
    let facts = match Kernel::load(&options) {
        Ok(kernel) => {
            report.hooks = kernel
                .plan()
                .hooks
                .iter()
                .map(|p| row(p, kernel.plan()))
                .collect();
            let plan = kernel.plan();
            let lacks = plan.lacks.iter().map(ToString::to_string);
            report.cannot_see = blind_spots(plan)
                .map(|b| b.what.to_owned())
                .chain(lacks)
                .collect();
            kernel.facts().clone()
        }
        Err(e) => {
            report.problem = Some(e.to_string());
            Facts::gather()
        }
    };
    report.kernel.clone_from(&facts.release);
    report.facts = rows(&facts);
    report
}

fn row(planned: &Planned, plan: &Plan) -> HookRow {
    let hook = planned.hook;
    let candidate = planned.attached.unwrap_or(&hook.candidates[0]);
    let spares = plan.spared().filter(|(first, _)| *first == candidate.program);
    let spares = match spares.count() {
        0 => String::new(),
        n => format!(", {n} spare"),
    };
    HookRow {
        hook: hook.name,
        subject: hook.subject,
        attached: planned.attached.is_some(),
        tier: planned.tier().map(Tier::name),
        by: format!("{}{spares}", candidate.attach),
        gives: hook.gives,
        reason: planned.reason(),
    }
}

fn rows(facts: &Facts) -> Vec<Fact> {
    let availability = |name, a: &Availability, works: &str| Fact {
        name,
        ok: *a == Availability::Works,
        value: match a {
            Availability::Works => works.to_owned(),
            Availability::Absent => "not in this kernel".to_owned(),
            Availability::Refused(reason) => format!("refused: {reason}"),
        },
    };
    let mount = |name, at: &Option<std::path::PathBuf>, without: &str| Fact {
        name,
        ok: at.is_some(),
        value: match at {
            Some(path) => path.display().to_string(),
            None => format!("not mounted{without}"),
        },
    };
    let missing: Vec<String> = facts
        .missing_capabilities()
        .iter()
        .map(|c| format!("{} (to {})", c.name, c.why))
        .collect();
    vec![
        Fact {
            name: "capabilities",
            ok: missing.is_empty(),
            value: match missing.is_empty() {
                true => "all".to_owned(),
                false => format!("without {}", missing.join(", ")),
            },
        },
        availability("bpf()", &facts.bpf, "works"),
        availability("BTF", &facts.btf, "/sys/kernel/btf/vmlinux"),
        mount(
            "cgroup v2",
            &facts.cgroup2,
            ": when UDP sockets are bound is noticed late",
        ),
        mount("tracefs", &facts.tracefs, "; this tier does without"),
        mount("bpffs", &facts.bpffs, "; nothing is pinned"),
    ]
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "kernel {}", report.kernel)?;
    let width = report.facts.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for fact in &report.facts {
        writeln!(out, "  {} {:width$}  {}", mark(fact.ok), fact.name, fact.value)?;
    }
    if let Some(problem) = &report.problem {
        writeln!(out, "\nnothing could be loaded: {problem}")?;
    }
    if !report.hooks.is_empty() {
        writeln!(out, "\nhooks")?;
    }
    let width = report.hooks.iter().map(|h| h.hook.len()).max().unwrap_or(0);
    for h in &report.hooks {
        write!(
            out,
            "  {} {:width$}  {:<10}  {}: {}",
            mark(h.attached),
            h.hook,
            h.tier.unwrap_or("-"),
            h.by,
            h.gives
        )?;
        match &h.reason {
            Some(reason) if h.attached => writeln!(out, "; second best: {reason}")?,
            Some(reason) => writeln!(out, "; not attached: {reason}")?,
            None => writeln!(out)?,
        }
    }
    if !report.cannot_see.is_empty() {
        writeln!(out, "\nprobe cannot see here")?;
    }
    for what in &report.cannot_see {
        writeln!(out, "  - {what}")?;
    }
    Ok(())
}

fn mark(ok: bool) -> &'static str {
    if ok { "ok " } else { "no " }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_why() {
        let hook = HookRow {
            hook: "post_bind4",
            subject: "inet_socket",
            attached: false,
            tier: None,
            by: "cgroup socket hook".into(),
            gives: "when UDP sockets are bound",
            reason: Some("cgroup v2 is not mounted".into()),
        };
        let exit = HookRow {
            hook: "exit",
            attached: true,
            tier: Some("tracepoint"),
            by: "raw tracepoint sched_process_exit".into(),
            gives: "the end of processes",
            reason: None,
            ..hook.clone()
        };
        let report = Report {
            kernel: "6.18.0".into(),
            facts: vec![
                Fact {
                    name: "BTF",
                    ok: true,
                    value: "/sys/kernel/btf/vmlinux".into(),
                },
                Fact {
                    name: "cgroup v2",
                    ok: false,
                    value: "not mounted".into(),
                },
            ],
            hooks: vec![exit, hook],
            problem: None,
            cannot_see: vec!["binds that fail".into()],
        };
        let mut out = Vec::new();
        print(&mut out, &report).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "kernel 6.18.0
  ok  BTF        /sys/kernel/btf/vmlinux
  no  cgroup v2  not mounted

hooks
  ok  exit        tracepoint  raw tracepoint sched_process_exit: the end of processes
  no  post_bind4  -           cgroup socket hook: when UDP sockets are bound; not attached: cgroup v2 is not mounted

probe cannot see here
  - binds that fail
"
        );
    }
}
