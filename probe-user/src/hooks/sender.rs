//! One attempt at telling somebody: by a program, a request, or an entry in the journal.

use std::{collections::BTreeMap, time::Duration};

use super::{
    exec::{End, Rest, Run, Runner},
    journal::{self, Journal},
    notification::Notification,
    rule::RESEND_EVERY,
    status::Way,
    template::{Template, clean},
    webhook::{PostError, Webhook},
};
use crate::{
    api::types::{HookTested, V},
    config::{Hook, WebhookFormat},
    stream::Outcome,
};

/// How a hook tells.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    hook: String,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Exec(Exec),
    Webhook(Webhook),
    Journal(Journal),
}

#[derive(Debug, Clone)]
struct Exec {
    argv: Vec<Template>,
    user: Option<String>,
    limit: Duration,
    runner: Runner,
}

/// How one attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub outcome: Outcome,
    /// `exit code 0`, `204`, `timeout (connect) after 3s`.
    pub detail: String,
    /// As a shell would tell it; programs only.
    pub exit_code: Option<i32>,
    /// The last of what the program wrote.
    pub output: String,
    /// Whether and when the same may succeed.
    pub(super) retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Later,
    /// The receiver says when.
    After(Duration),
}

impl Attempt {
    /// As the API tells it.
    pub fn tested(self, hook: &str) -> HookTested {
        HookTested {
            v: V,
            hook: hook.to_owned(),
            outcome: self.outcome.name().to_owned(),
            detail: self.detail,
            exit_code: self.exit_code,
            output: self.output,
        }
    }
}

impl Sender {
    /// Of a hook that was checked.
    ///
    /// # Errors
    /// What [`crate::config::check`] says of the hook.
    pub(super) fn new(label: &str, hook: &Hook, units: &BTreeMap<String, String>) -> Result<Self, String> {
        let how = if let Some(argv) = &hook.exec {
            How::Exec(Exec {
                argv: argv
                    .iter()
                    .map(|a| a.parse().map_err(|e| format!("hook {label}: {e}")))
                    .collect::<Result<_, String>>()?,
                user: hook.user.clone(),
                limit: hook.timeout,
                runner: Runner::default(),
            })
        } else if let Some(url) = &hook.webhook {
            How::Webhook(Webhook {
                url: url.parse().map_err(|e| format!("hook {label}: {e}"))?,
                format: hook.format.unwrap_or(WebhookFormat::Json),
                limit: hook.timeout,
                resend_every: hook.resend_every.map_or(RESEND_EVERY, |s| s.0),
            })
        } else {
            How::Journal(Journal {
                socket: journal::SOCKET.into(),
                units: units.clone(),
                limit: hook.timeout,
            })
        };
        Ok(Self {
            hook: label.to_owned(),
            how,
        })
    }

    pub(super) fn way(&self) -> Way {
        match &self.how {
            How::Exec(_) => Way::Exec,
            How::Webhook(w) if w.format == WebhookFormat::Alertmanager => Way::Alertmanager,
            How::Webhook(_) => Way::Webhook,
            How::Journal(_) => Way::Journal,
        }
    }

    /// Tries once. Nothing that it began goes on when it is dropped.
    pub(super) async fn send(&self, n: &Notification) -> Attempt {
        match &self.how {
            How::Exec(exec) => exec.send(&self.hook, n).await,
            How::Webhook(webhook) => request(webhook.send(&self.hook, n).await),
            How::Journal(journal) => entry(journal.send(&self.hook, n).await),
        }
    }
}

impl Exec {
    async fn send(&self, hook: &str, n: &Notification) -> Attempt {
        let values = n.values(hook);
        let variable = |(name, value): (&str, &str)| (format!("PROBE_{}", name.to_uppercase()), clean(value));
        let ran = self
            .runner
            .run(Run {
                argv: self.argv.iter().map(|t| t.fill(&values)).collect(),
                environment: values.iter().map(variable).collect(),
                user: self.user.clone(),
                input: n.lines(),
                limit: self.limit,
                rest: Rest::End,
            })
            .await;
        let outcome = match ran.end {
            End::Exited(0) => Outcome::Ok,
            End::TimedOut { .. } => Outcome::Timeout,
            _ => Outcome::Failed,
        };
        Attempt {
            outcome,
            detail: ran.end.to_string(),
            exit_code: Some(ran.end.code()),
            output: ran.output,
            retry: Retry::Never,
        }
    }
}

fn request(sent: Result<u16, PostError>) -> Attempt {
    let (outcome, detail, retry) = match sent {
        Ok(status) => (Outcome::Ok, format!("the server answered {status}"), Retry::Never),
        Err(error) => {
            let outcome = match error {
                PostError::Timeout { .. } => Outcome::Timeout,
                _ => Outcome::Failed,
            };
            let retry = match (error.is_temporary(), error.retry_after()) {
                (false, _) => Retry::Never,
                (true, None) => Retry::Later,
                (true, Some(pause)) => Retry::After(pause),
            };
            (outcome, error.to_string(), retry)
        }
    };
    Attempt {
        outcome,
        detail,
        exit_code: None,
        output: String::new(),
        retry,
    }
}

fn entry(written: std::io::Result<()>) -> Attempt {
    let (outcome, detail, retry) = match written {
        Ok(()) => (Outcome::Ok, "written".to_owned(), Retry::Never),
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => (Outcome::Timeout, e.to_string(), Retry::Later),
        // journald is being restarted, or there is none.
        Err(e) => (Outcome::Failed, e.to_string(), Retry::Later),
    };
    Attempt {
        outcome,
        detail,
        exit_code: None,
        output: String::new(),
        retry,
    }
}
