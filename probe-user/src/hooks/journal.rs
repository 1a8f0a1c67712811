//! An entry in systemd's journal, with the finding in fields: journald's native protocol, a datagram of `NAME=value` lines.
//! A value with a line feed could begin another field, and journalctl(1) shows one with control characters not at all: what steers
//! a terminal is escaped. See <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixDatagram, time::timeout};

use super::notification::{Notification, State};
use crate::{engine::finding::Severity, report};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Findings of one entry; a datagram has a limit (208 KiB by default), and a finding takes some KiB at most.
const MAX_FINDINGS: usize = 32;

#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) socket: PathBuf,
    /// The unit of a service: `journalctl --unit` shows the entry then.
    pub(super) units: BTreeMap<String, String>,
    pub(super) limit: Duration,
}

impl Journal {
    /// Writes one entry.
    pub(super) async fn send(&self, hook: &str, n: &Notification) -> io::Result<()> {
        let entry = entry(hook, n, &self.units);
        let socket = UnixDatagram::unbound()?;
        match timeout(self.limit, socket.send_to(&entry, &self.socket)).await {
            Ok(sent) => sent.map(|_| ()).map_err(|e| {
                let path = Path::display(&self.socket);
                io::Error::new(e.kind(), format!("cannot write to journald at {path}: {e}"))
            }),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("journald has taken nothing for {:?}", self.limit),
            )),
        }
    }
}

fn entry(hook: &str, n: &Notification, units: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let main = &n.main().finding;
    let priority = match (n.state, main.severity) {
        (State::Resolved, _) => "5",
        (_, Severity::Warning) => "4",
        (_, Severity::Critical) => "2",
    };
    let message = match (n.state, &main.resolution) {
        (State::Resolved, Some(why)) => {
            format!("{} RESOLVED {}: {why}", main.service, main.kind.name())
        }
        _ => format!("{} {}: {}", main.service, main.kind.name(), main.summary),
    };
    field(&mut out, "MESSAGE", &message);
    field(&mut out, "PRIORITY", priority);
    field(&mut out, "SYSLOG_IDENTIFIER", "probe");
    field(&mut out, "PROBE_HOOK", hook);
    field(&mut out, "PROBE_STATE", n.state.name());
    field(&mut out, "PROBE_CAUSE", &n.cause);
    // A field may stand there several times; each is found then.
    for alert in n.alerts.iter().take(MAX_FINDINGS) {
        let f = &alert.finding;
        field(&mut out, "PROBE_SERVICE", &f.service);
        field(&mut out, "PROBE_KIND", f.kind.name());
        field(&mut out, "PROBE_SEVERITY", f.severity.name());
        field(&mut out, "PROBE_SUBJECT", &f.subject);
        field(&mut out, "PROBE_ID", &f.id);
        // JSON escapes itself.
        let json = alert.line();
        line(
            &mut out,
            "PROBE_FINDING",
            String::from_utf8_lossy(&json).trim_end(),
        );
        if let Some(unit) = units.get(&f.service) {
            field(&mut out, "OBJECT_SYSTEMD_UNIT", unit);
        }
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    line(out, name, &report::plain(value));
}

/// `value`: of one line.
fn line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::testing::notification;

    #[test]
    fn an_entry_says_all_of_it() {
        let n = notification("why");
        let units = BTreeMap::from([("annad".to_owned(), "annad.service".to_owned())]);
        let entry = entry("log", &n, &units);
        let text = String::from_utf8_lossy(&entry);
        for line in [
            "PROBE_SERVICE=annad",
            "PROBE_KIND=stale-socket",
            "PROBE_STATE=opened",
            "OBJECT_SYSTEMD_UNIT=annad.service",
            "PROBE_SUBJECT=unix:/run/anna/annad.sock",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing");
        }
        let json = text
            .lines()
            .find_map(|l| l.strip_prefix("PROBE_FINDING="))
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["summary"], "why");
    }

    #[test]
    fn names_that_steer_terminals_make_no_field_and_no_control_character() {
        let hostile = "e\u{1b}]0;x\u{7}\nPRIORITY=0\n\u{9b}\u{202e}\0'{kind}";
        let mut n = notification(hostile);
        n.alerts[0].finding.subject = format!("unix:/run/{hostile}{}", "x".repeat(4096));
        let units = BTreeMap::from([("annad".to_owned(), format!("{hostile}.service"))]);
        let entry = String::from_utf8(entry(hostile, &n, &units)).unwrap();
        let (mut names, mut finding) = (Vec::new(), serde_json::Value::Null);
        for line in entry.lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert!(!value.chars().any(char::is_control), "{line:?}");
            match name {
                "PROBE_FINDING" => finding = serde_json::from_str(value).unwrap(),
                _ => assert!(!value.contains('\u{202e}'), "{line:?}"),
            }
            names.push(name);
        }
        assert_eq!(finding["summary"], hostile);
        let first = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "PROBE_HOOK"];
        assert_eq!(names[..4], first);
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((all, names.len()), (13, 13), "each stands there once: {names:?}");
    }
}
