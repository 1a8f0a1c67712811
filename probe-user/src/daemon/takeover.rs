//! What the daemon says of the programs and maps that an earlier one had left in the kernel.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    clock,
    kernel::TakenOver,
    runtime::Runtime,
    stream::{Action, ActionKind, Outcome},
};

/// `None`: nothing was left. `lost`: what was told as lost until now.
pub(super) fn action(runtime: &Runtime, lost: &BTreeMap<String, u64>) -> Option<Action> {
    let left = runtime.kernel().taken_over()?;
    let (waited, lost) = (runtime.waited(), lost.values().sum::<u64>());
    let mut facts = serde_json::Map::new();
    facts.insert("adopted".into(), left.adopted.into());
    facts.insert("records".into(), waited.into());
    facts.insert("lost".into(), lost.into());
    facts.insert("reattached".into(), json!(left.reattached));
    let predecessors: Vec<_> = left
        .predecessors
        .iter()
        .map(|p| json!({ "generation": p.name, "unreadable": p.unreadable }))
        .collect();
    facts.insert("predecessors".into(), json!(predecessors));
    Some(Action {
        at: clock::now(),
        service: None,
        what: ActionKind::Takeover,
        subject: None,
        cause: None,
        outcome: match lost {
            0 => Outcome::Ok,
            _ => Outcome::Failed,
        },
        summary: summary(left, waited, lost),
        facts,
    })
}

fn summary(left: &TakenOver, waited: usize, lost: u64) -> String {
    let mut text = match left.adopted {
        true => "the programs of an earlier daemon go on".to_owned(),
        false => "the programs of an earlier daemon were replaced".to_owned(),
    };
    for p in &left.predecessors {
        text += &format!("; those of another build ({}) ended", p.name);
        if p.unreadable > 0 {
            text += &format!(", {} of its records can't be read by this one", p.unreadable);
        }
    }
    if let Some(why) = &left.unfit {
        text += &format!("; what was pinned does not fit: {why}");
    }
    text += &format!("; {waited} events had waited, {lost} were lost");
    if !left.reattached.is_empty() {
        text += &format!("; attached anew: {}", left.reattached.join(", "));
    }
    // No kernel keeps watches of directories for a process that is gone.
    text + "; who changed watched paths meanwhile was not seen, a snapshot has settled what they are"
}
