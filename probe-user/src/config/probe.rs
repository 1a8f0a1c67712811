//! The `[probe]` table.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Of probe itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Where the daemon answers.
    pub socket: String,
    /// Who may read there besides root: a group, where there is one of this name.
    pub group: String,
    /// Where the daemon answers over TCP too, only to those who read: a loopback address and a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_tcp: Option<SocketAddr>,
    /// Whether the threads between the kernel and a watcher get a real-time priority where that is allowed: the engine's, and the
    /// API's while it hands out what was just said.
    pub realtime: bool,
    /// Where the history is kept.
    pub state_dir: String,
    /// How events are to be captured.
    pub tier: TierChoice,
    /// Programs and maps stay in the kernel over a restart of the daemon, and go on collecting until the next one reads what
    /// happened. They stay after a stop too: `probe daemon --uninstall` removes them.
    pub keep_pinned: bool,
    /// Where they are pinned: a directory on bpffs, of this daemon alone. Unset: `/sys/fs/bpf/probe` for a daemon at the default
    /// `socket`, and nowhere for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_dir: Option<String>,
    /// How many events the kernel keeps until they are read, in bytes; rounded up to a power of two.
    pub ring: Size,
    /// How often the state of everything declared is read anew although no event asked for it.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub settle_every: Duration,
    /// What the history keeps.
    pub retention: Retention,
    /// How long a client waits for the daemon.
    pub timeouts: Timeouts,
    /// How much is remembered.
    pub bounds: Bounds,
}

/// How much is remembered at most. What is beyond is told as lost, and the services concerned are not judged until
/// everything fits again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Living processes of all services together.
    pub members: NonZeroU32,
    /// Live sockets of one address.
    pub sockets: NonZeroU32,
    /// Processes that hold one socket.
    pub holders: NonZeroU32,
    /// Ended processes that an event told late must not bring back.
    pub ended: NonZeroU32,
}

impl Default for Bounds {
    fn default() -> Self {
        const fn n(n: u32) -> NonZeroU32 {
            NonZeroU32::new(n).expect("not zero")
        }
        Self {
            members: n(65_536),
            sockets: n(1024),
            holders: n(1024),
            ended: n(65_536),
        }
    }
}

/// Where the system's daemon answers.
const SOCKET: &str = "/run/probe/probe.sock";
/// Where the system's daemon pins.
const PIN_DIR: &str = "/sys/fs/bpf/probe";

impl Probe {
    /// Where programs and maps are pinned, or were by an earlier daemon of this configuration.
    pub fn pins(&self) -> Option<PathBuf> {
        match &self.pin_dir {
            Some(directory) => Some(directory.into()),
            // Two daemons cannot share a ring buffer.
            None => (self.socket == SOCKET).then(|| PIN_DIR.into()),
        }
    }

    /// Bytes of the ring buffer, within what the kernel takes.
    pub fn ring_bytes(&self) -> u32 {
        let bytes = self.ring.0.clamp(4096, 1 << 30);
        u32::try_from(bytes).unwrap_or(1 << 30).next_power_of_two()
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            group: "probe".into(),
            api_tcp: None,
            realtime: true,
            state_dir: "/var/lib/probe".into(),
            tier: TierChoice::default(),
            keep_pinned: true,
            pin_dir: None,
            ring: Size(4 << 20),
            settle_every: Duration::from_secs(60),
            retention: Retention::default(),
            timeouts: Timeouts::default(),
            bounds: Bounds::default(),
        }
    }
}

/// How events are to be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The best that the kernel offers, for each hook.
    #[default]
    Auto,
    Fentry,
    Tracepoint,
}

/// What the history keeps: whichever limit is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Nothing older.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub age: Duration,
    /// Nothing more.
    pub size: Size,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 86_400),
            size: Size(256 << 20),
        }
    }
}

/// How long a client waits for the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the daemon takes the connection.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub connect: Duration,
    /// Until it has taken the question.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub write: Duration,
    /// Until it answers.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            write: Duration::from_secs(2),
            read: Duration::from_secs(5),
        }
    }
}

/// Bytes, as `"256MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no size; expected a whole number of B, KiB, MiB, GiB or TiB, for example \"256MiB\""
            )
        };
        let (unit, shift) = UNITS
            .iter()
            .find(|(unit, _)| text.ends_with(unit))
            .ok_or_else(wrong)?;
        let number: u64 = text[..text.len() - unit.len()]
            .trim_end()
            .parse()
            .map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        let (unit, shift) = UNITS.iter().find(|(_, shift)| fits(*shift)).unwrap_or(&("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("1000B", 1000),
            ("0B", 0),
            ("3TiB", 3 << 40),
            ("1025KiB", 1025 << 10),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for text in ["", "12", "MiB", "1.5GiB", "-1B", "16777216TiB", "1MB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
