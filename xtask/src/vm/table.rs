//! The table of hooks: kernel × tier × hook.

use std::{fs, path::Path};

use anyhow::Context;

use super::machine::Report;

const BEGIN: &str = "<!-- made by `cargo xtask vm --table` -->";
const END: &str = "<!-- end of the table -->";

/// One column a boot, one row a hook, and below it why what was refused was refused.
pub(super) fn markdown(reports: &[Report]) -> String {
    let mut hooks: Vec<&str> = Vec::new();
    for hook in reports.iter().flat_map(|r| &r.doctor.hooks) {
        if !hooks.contains(&hook.hook.as_str()) {
            hooks.push(&hook.hook);
        }
    }
    let mut text = "| hook |".to_owned();
    for r in reports {
        text.push_str(&format!(" {}<br>`{}` |", r.kernel, r.tier));
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(reports.len()));
    text.push('\n');
    let mut reasons: Vec<String> = Vec::new();
    for hook in hooks {
        text.push_str(&format!("| `{hook}` |"));
        for r in reports {
            let found = r.doctor.hooks.iter().find(|h| h.hook == hook);
            let cell = match found.map(|h| (&h.tier, &h.reason)) {
                None => "—".to_owned(),
                Some((Some(tier), _)) => tier.clone(),
                Some((None, reason)) => {
                    let reason = reason.clone().unwrap_or_default();
                    let number = reasons.iter().position(|known| *known == reason);
                    let number = number.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("no ({})", number + 1)
                }
            };
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text.push_str("| tests |");
    for r in reports {
        text.push_str(&format!(
            " {} of {} |",
            r.passed.len(),
            r.passed.len() + r.failed.len()
        ));
    }
    text.push('\n');
    for (n, reason) in reasons.iter().enumerate() {
        text.push_str(&format!("\n({}) {reason}\n", n + 1));
    }
    text
}

/// What system calls of others cost, one row a kernel and call.
pub(super) fn costs(reports: &[Report]) -> String {
    let mut text =
        "| kernel | system call | without probe | with probe | with another system call traced |\n\
                    | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for r in reports {
        for cost in &r.costs {
            let [without, with, traced] = cost.instructions;
            text.push_str(&format!(
                "| {} | {} | {without} | {with} | {traced} |\n",
                r.kernel, cost.call
            ));
        }
    }
    text
}

/// Replaces the table between its marks.
pub(super) fn write(file: &Path, table: &str) -> anyhow::Result<()> {
    let old = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let new = replaced(&old, table).with_context(|| format!("{} lacks the line {BEGIN}", file.display()))?;
    fs::write(file, new).with_context(|| format!("write {}", file.display()))
}

fn replaced(old: &str, table: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            Tier,
            kernel::Release,
            machine::{Doctor, Hook},
        },
        *,
    };

    #[test]
    fn refusals_are_numbered_and_explained() {
        let hook = |name: &str, tier: Option<&str>, reason: Option<&str>| Hook {
            hook: name.into(),
            tier: tier.map(str::to_owned),
            reason: reason.map(str::to_owned),
        };
        let report = Report {
            release: Release::V6_1,
            tier: Tier::Fentry,
            kernel: "6.1.0".into(),
            doctor: Doctor {
                problem: None,
                hooks: vec![
                    hook("unix_bind", Some("fentry"), None),
                    hook("iter_task", None, Some("no such thing")),
                ],
            },
            passed: vec!["a".into()],
            failed: Vec::new(),
            findings: BTreeMap::new(),
            costs: Vec::new(),
            rows: Vec::new(),
            traces: BTreeMap::new(),
        };
        assert_eq!(
            markdown(&[report]),
            "| hook | 6.1.0<br>`fentry` |\n| --- | --- |\n| `unix_bind` | fentry |\n| `iter_task` | no (1) |\n\
             | tests | 1 of 1 |\n\n(1) no such thing\n"
        );
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(
            replaced(&old, "new\n").unwrap(),
            format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n")
        );
        assert_eq!(replaced("nothing", "new"), None);
    }
}
