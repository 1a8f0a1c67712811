//! The journal, for commands whose output somebody may not keep.

use std::{env, io, os::fd::AsFd};

use probe_user::reclaim::Step;
use tracing_subscriber::layer::SubscriberExt;

/// journald, where it listens and our output does not lead to it anyway.
pub(crate) struct Journal(tracing::Dispatch);

impl Journal {
    pub(crate) fn open() -> Option<Self> {
        if leads_to_journal(&io::stdout()) {
            return None;
        }
        let layer = tracing_journald::layer()
            .ok()?
            .with_syslog_identifier("probe".into());
        Some(Self(tracing::Dispatch::new(
            tracing_subscriber::registry().with(layer),
        )))
    }

    pub(crate) fn step(&self, step: &Step) {
        tracing::dispatcher::with_default(&self.0, || {
            tracing::info!(
                service = step.service,
                subject = step.subject,
                reason = step.reason,
                dry_run = step.dry_run,
                "{}: {step}",
                step.service
            );
        });
    }
}

/// systemd tells the device and inode of the stream that it made for a service: systemd.exec(5), `JOURNAL_STREAM`.
fn leads_to_journal(stream: &impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(stream) else {
        return false;
    };
    env::var("JOURNAL_STREAM").is_ok_and(|told| told == format!("{}:{}", stat.st_dev, stat.st_ino))
}
