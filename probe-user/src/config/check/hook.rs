//! One hook, and the services that it names.

use super::Check;
use crate::config::{Config, Hook, load};

pub(super) fn check(c: &mut Check, h: &Hook, config: &Config, complete: bool) {
    match (&h.exec, &h.webhook) {
        (None, None) if complete => c.here("a hook needs `exec` or `webhook`"),
        (Some(_), Some(_)) => c.key("webhook", "a hook has either `exec` or `webhook`, this has both"),
        _ => {}
    }
    if complete && h.on.is_empty() && h.severity.is_none() {
        c.here("a hook needs `on` with kinds of findings, or `severity`");
    }
    c.program("exec", h.exec.as_ref());
    c.duration("timeout", h.timeout);
    if let Some(url) = h
        .webhook
        .as_ref()
        .filter(|u| !u.starts_with("http://") && !u.starts_with("https://"))
    {
        c.key(
            "webhook",
            format!("{url:?} is no URL that begins with http:// or https://"),
        );
    }
    if complete && h.exec.is_none() && h.user.is_some() {
        c.key("user", "`user` belongs to `exec`, which is not there");
    }
    if complete && h.webhook.is_none() && h.format.is_some() {
        c.key("format", "`format` belongs to `webhook`, which is not there");
    }
    if complete {
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
