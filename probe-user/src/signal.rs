//! Signal numbers and names. One place, because `SIGUSR1`, `USR1` and `10` all mean the same to a user.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A signal number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub i32);

impl Signal {
    pub const HUP: Self = Self(libc::SIGHUP);
    pub const INT: Self = Self(libc::SIGINT);
    pub const QUIT: Self = Self(libc::SIGQUIT);
    pub const KILL: Self = Self(libc::SIGKILL);
    pub const USR1: Self = Self(libc::SIGUSR1);
    pub const TERM: Self = Self(libc::SIGTERM);
    pub const STOP: Self = Self(libc::SIGSTOP);
    pub const CONT: Self = Self(libc::SIGCONT);
    pub const CHLD: Self = Self(libc::SIGCHLD);

    /// `TERM`, `RTMIN+2`; the number of what is no signal.
    pub fn name(self) -> Cow<'static, str> {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(s) => {
                let name = s.as_str();
                name.strip_prefix("SIG").unwrap_or(name).into()
            }
            Err(_) if (34..=64).contains(&self.0) => format!("RTMIN+{}", self.0 - 34).into(),
            Err(_) => self.0.to_string().into(),
        }
    }

    /// From `TERM`, `SIGTERM`, `15`, `RTMIN+2` or `34`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(n) = text.parse::<i32>() {
            return (1..=64).contains(&n).then_some(Self(n));
        }
        let name = text.strip_prefix("SIG").unwrap_or(text);
        if let Some(rest) = name.strip_prefix("RTMIN") {
            let n = if rest.is_empty() {
                0
            } else {
                rest.strip_prefix('+')?.parse::<i32>().ok()?
            };
            return (0..=30).contains(&n).then_some(Self(34 + n));
        }
        let full = format!("SIG{name}");
        full.parse::<nix::sys::signal::Signal>()
            .ok()
            .map(|s| Self(s as i32))
    }

    /// What this signal does to a process that neither catches nor ignores it.
    pub fn default_action(self) -> DefaultAction {
        match self.0 {
            libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH => DefaultAction::Ignore,
            libc::SIGCONT => DefaultAction::Continue,
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => DefaultAction::Stop,
            _ => DefaultAction::Terminate,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    Terminate,
    Ignore,
    Stop,
    Continue,
}

/// The name without `SIG`, as in `kill -l`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(i32),
            Name(String),
        }
        let text = match Raw::deserialize(d)? {
            Raw::Number(n) => n.to_string(),
            Raw::Name(s) => s,
        };
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "unknown signal {text:?}, expected a name such as \"TERM\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_same_signal() {
        for text in ["USR1", "SIGUSR1", "10"] {
            assert_eq!(Signal::parse(text), Some(Signal::USR1), "{text}");
        }
        assert_eq!(Signal::USR1.to_string(), "USR1");
        assert_eq!(Signal::parse("RTMIN+2"), Some(Signal(36)));
        assert_eq!(Signal(36).to_string(), "RTMIN+2");
        for text in ["", "SIG", "0", "65", "TERMX", "RTMIN+99"] {
            assert_eq!(Signal::parse(text), None, "{text}");
        }
    }
}
