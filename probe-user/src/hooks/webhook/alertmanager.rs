//! Alerts as Alertmanager's API v2 takes them. It knows an alert by its labels, so they are the same from its beginning to
//! its end; what changes stands in annotations.

use std::time::Duration;

use serde_json::{Value, json};

use crate::hooks::notification::{Alert, host, rfc3339};

/// An open alert ends by itself when it is not sent again so many times in a row.
const MISSES: u32 = 4;

/// The body of `POST /api/v2/alerts`.
pub(super) fn alerts(alerts: &[Alert], now_ns: i64, resend_every: Duration) -> Value {
    let ahead = i64::try_from((resend_every * MISSES).as_nanos()).unwrap_or(i64::MAX);
    let until = now_ns.saturating_add(ahead);
    let host = host();
    let alert = |a: &Alert| {
        let f = &a.finding;
        // Its end must not lie before its beginning.
        let ends = a.ended_ns.unwrap_or(until).max(a.started_ns);
        json!({
            "labels": {
                "alertname": f.kind,
                "service": f.service,
                "severity": f.severity,
                "subject": f.subject,
                "host": host,
            },
            "annotations": {
                "summary": f.summary,
                "resolution": f.resolution.as_deref().unwrap_or_default(),
                "finding": f.id,
                "cause": f.cause,
            },
            "startsAt": rfc3339(a.started_ns),
            "endsAt": rfc3339(ends),
        })
    };
    alerts.iter().map(alert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::testing::notification;

    #[test]
    fn an_alert_has_the_same_labels_from_beginning_to_end() {
        let mut n = notification("no process holds it");
        let now = n.made_ns;
        let minute = Duration::from_secs(60);
        let open = alerts(&n.alerts, now, minute);
        assert_eq!(open[0]["startsAt"], "2023-11-14T22:13:22.000000000Z");
        assert_eq!(open[0]["endsAt"], "2023-11-14T22:17:23.000000000Z");
        assert_eq!(open[0]["labels"]["alertname"], "stale-socket");
        assert_eq!(open[0]["annotations"]["summary"], "no process holds it");
        n.alerts[0].ended_ns = Some(now);
        n.alerts[0].finding.summary = "other words".into();
        let over = alerts(&n.alerts, now + 5, minute);
        assert_eq!(over[0]["endsAt"], "2023-11-14T22:13:23.000000000Z");
        assert_eq!(over[0]["labels"], open[0]["labels"]);
    }
}
