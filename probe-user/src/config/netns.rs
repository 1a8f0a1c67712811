//! Where a service's addresses are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The network namespace that the addresses are in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Netns {
    #[default]
    Host,
    /// The main process's.
    Main,
    /// A file that stands for one, as in `/run/netns`.
    Path(String),
}

impl Serialize for Netns {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match self {
            Self::Host => "host",
            Self::Main => "main",
            Self::Path(path) => path,
        })
    }
}

impl<'de> Deserialize<'de> for Netns {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "host" => Ok(Self::Host),
            "main" => Ok(Self::Main),
            path if path.starts_with('/') => Ok(Self::Path(text)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is no network namespace; expected \"host\", \"main\" or the absolute path of one"
            ))),
        }
    }
}
