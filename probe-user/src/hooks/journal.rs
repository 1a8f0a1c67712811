//! An entry in systemd's journal, with the finding in fields: journald's native protocol, a datagram of `NAME=value` lines.
//! A value with line feeds has its length before it. See <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixDatagram, time::timeout};

use super::notification::{Notification, State};
use crate::engine::finding::Severity;

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
        let line = alert.line();
        field(
            &mut out,
            "PROBE_FINDING",
            String::from_utf8_lossy(&line).trim_end(),
        );
        if let Some(unit) = units.get(&f.service) {
            field(&mut out, "OBJECT_SYSTEMD_UNIT", unit);
        }
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::testing::notification;

    #[test]
    fn an_entry_says_all_of_it() {
        let n = notification("two\nlines");
        let units = BTreeMap::from([("annad".to_owned(), "annad.service".to_owned())]);
        let entry = entry("log", &n, &units);
        let length = (b"annad stale-socket: two\nlines".len() as u64).to_le_bytes();
        let begin = [
            b"MESSAGE\n",
            &length[..],
            b"annad stale-socket: two\nlines\nPRIORITY=2\n",
        ]
        .concat();
        assert!(entry.starts_with(&begin), "{}", entry.escape_ascii());
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
        assert_eq!(json["summary"], "two\nlines");
    }
}
