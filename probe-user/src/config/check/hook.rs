//! One hook, the services that it names, and the other hooks.

use std::collections::BTreeSet;

use super::Check;
use crate::{
    config::{Config, Hook, WebhookFormat, load},
    hooks::{template::Template, webhook::Url},
};

pub(super) fn check(c: &mut Check, h: &Hook, config: &Config, complete: bool) {
    let ways = [
        ("exec", h.exec.is_some()),
        ("webhook", h.webhook.is_some()),
        ("journal", h.journal),
    ];
    let mut given = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way);
    match (given.next(), given.next()) {
        (None, _) if complete => c.here("a hook needs `exec`, `webhook` or `journal = true`"),
        (Some(one), Some(two)) => c.key(
            two,
            format!("a hook does one thing, this has both `{one}` and `{two}`"),
        ),
        _ => {}
    }
    if complete && h.on.is_empty() && h.severity.is_none() && !h.gave_up {
        c.here("a hook needs `on` with kinds of findings, `severity`, or `gave_up = true`");
    }
    if h.states.is_empty() {
        c.key(
            "states",
            "`states` must name what is told: opened, escalated, resolved",
        );
    }
    c.program("exec", h.exec.as_ref());
    c.within("exec", |c| argv(c, h.exec.as_deref().unwrap_or_default()));
    c.duration("timeout", h.timeout);
    if h.at_most.within.is_zero() {
        c.key("at_most", "`at_most` needs a time that is longer than zero");
    }
    for (key, d) in [("retry_for", h.retry_for), ("resend_every", h.resend_every)] {
        if let Some(d) = d {
            c.duration(key, d.0);
        }
    }
    if let Some(Err(error)) = h.webhook.as_ref().map(|u| u.parse::<Url>()) {
        c.key("webhook", error.to_string());
    }
    if complete {
        belongs(c, h);
        let names: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        c.each("services", &h.services, |c, name| {
            if !names.contains(&name.as_str()) {
                let hint = load::nearest(name, &names).map(|n| format!(", did you mean {n:?}?"));
                c.here(format!(
                    "no service is named {name:?}{}",
                    hint.unwrap_or_default()
                ));
            }
        });
    }
}

/// Keys that mean something only beside another one.
fn belongs(c: &mut Check, h: &Hook) {
    let alertmanager = h.format == Some(WebhookFormat::Alertmanager);
    let only_with = [
        ("user", h.user.is_some(), "exec", h.exec.is_some()),
        ("format", h.format.is_some(), "webhook", h.webhook.is_some()),
        ("retry_for", h.retry_for.is_some(), "webhook", h.webhook.is_some()),
        (
            "resend_every",
            h.resend_every.is_some(),
            "format = \"alertmanager\"",
            alertmanager,
        ),
    ];
    for (key, _, other, _) in only_with.iter().filter(|(_, given, _, there)| *given && !there) {
        c.key(key, format!("`{key}` belongs to `{other}`, which is not there"));
    }
}

fn argv(c: &mut Check, argv: &[String]) {
    for (i, text) in argv.iter().enumerate() {
        let problem = match text.parse::<Template>() {
            Ok(t) if i == 0 && !t.is_constant() => {
                Some("no value of a finding may choose the program that runs".to_owned())
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            c.at.push(super::Step::Index(i));
            c.here(problem);
            c.at.pop();
        }
    }
}

/// Hooks are told apart by their names.
pub(super) fn between(c: &mut Check, hooks: &[Hook]) {
    let mut names = BTreeSet::new();
    let labels: Vec<String> = hooks.iter().enumerate().map(|(i, h)| h.label(i)).collect();
    c.within("hook", |c| {
        for (i, label) in labels.iter().enumerate() {
            if !names.insert(label) {
                c.at.push(super::Step::Index(i));
                c.key("name", format!("another hook is named {label:?} too"));
                c.at.pop();
            }
        }
    });
}
