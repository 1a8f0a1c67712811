//! Findings are posted to an HTTP server: as one JSON document, or as alerts of an Alertmanager.

mod alertmanager;
mod post;
#[cfg(test)]
mod tests;
mod url;

use std::time::Duration;

use bytes::Bytes;

pub use self::{
    post::{Phase, PostError},
    url::{Url, UrlError},
};
use super::notification::Notification;
use crate::{clock, config::WebhookFormat};

#[derive(Debug, Clone)]
pub struct Webhook {
    pub(super) url: Url,
    pub(super) format: WebhookFormat,
    /// Of one request.
    pub(super) limit: Duration,
    pub(super) resend_every: Duration,
}

impl Webhook {
    /// One attempt. Returns the status.
    pub(super) async fn send(&self, hook: &str, n: &Notification) -> Result<u16, PostError> {
        match self.format {
            WebhookFormat::Json => self.post(n.json(hook).to_string()).await,
            WebhookFormat::Alertmanager => {
                let mut status = 200;
                // Prometheus sends as many at once.
                for alerts in n.alerts.chunks(256) {
                    let wall = i64::try_from(clock::now().0).unwrap_or(i64::MAX);
                    let now = wall.saturating_add(clock::wall_offset());
                    let body = alertmanager::alerts(alerts, now, self.resend_every);
                    status = self.post(body.to_string()).await?;
                }
                Ok(status)
            }
        }
    }

    async fn post(&self, body: String) -> Result<u16, PostError> {
        post::post(&self.url, Bytes::from(body), self.limit).await
    }
}
