//! Where a service listens: `unix:/path`, `unix:@name`, `tcp:[ADDR:]PORT`, `udp:[ADDR:]PORT`.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A declared or observed address. Which network namespace and which root directory it is meant in, the [`Site`] tells.
#[derive(Debug, Clone)]
pub enum Address {
    /// A socket file, by absolute path.
    Unix(PathBuf),
    /// An abstract name, without its leading NUL. Bytes that are no UTF-8 are written as `\xNN`.
    Abstract(String),
    Tcp(Inet),
    Udp(Inet),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inet {
    /// `None`: any address.
    pub ip: Option<IpAddr>,
    pub port: u16,
}

impl Inet {
    /// Whether a socket bound to `ip` serves what this declares: the declared address itself or a wildcard.
    pub fn is_served_by(&self, ip: IpAddr) -> bool {
        match self.ip {
            None => true,
            Some(want) => want == ip || ip.is_unspecified() && (ip.is_ipv6() || want.is_ipv4()),
        }
    }
}

impl Address {
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(p) => Some(p),
            _ => None,
        }
    }

    pub fn inet(&self) -> Option<&Inet> {
        match self {
            Self::Tcp(i) | Self::Udp(i) => Some(i),
            _ => None,
        }
    }
}

/// What two addresses are compared by. Paths are normal already, and comparing them component by component, as `Path`
/// does, costs ten times as much.
impl Address {
    fn key(&self) -> (u8, &[u8], Option<&Inet>) {
        match self {
            Self::Unix(p) => (0, p.as_os_str().as_encoded_bytes(), None),
            Self::Abstract(n) => (1, n.as_bytes(), None),
            Self::Tcp(i) => (2, &[], Some(i)),
            Self::Udp(i) => (3, &[], Some(i)),
        }
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// What is wrong with an address that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address: {problem}; expected unix:/path, unix:@name, tcp:[ADDR:]PORT or udp:[ADDR:]PORT"
)]
pub struct AddressError {
    pub text: String,
    pub problem: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |problem: String| AddressError {
            text: text.to_owned(),
            problem,
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(fail("it has no scheme before a colon".into()));
        };
        match scheme {
            "unix" => {
                if let Some(name) = rest.strip_prefix('@') {
                    if name.is_empty() {
                        return Err(fail("the abstract name is empty".into()));
                    }
                    return Ok(Self::Abstract(name.to_owned()));
                }
                if !rest.starts_with('/') {
                    return Err(fail(format!("the path {rest:?} is not absolute")));
                }
                if rest.len() > 107 {
                    return Err(fail(format!(
                        "the path has {} bytes, the kernel takes 107",
                        rest.len()
                    )));
                }
                Ok(Self::Unix(normal(Path::new(rest))))
            }
            "tcp" => Ok(Self::Tcp(inet(rest).map_err(fail)?)),
            "udp" => Ok(Self::Udp(inet(rest).map_err(fail)?)),
            other => Err(fail(format!("the scheme {other:?} is unknown"))),
        }
    }
}

/// Without empty and `.` components. `..` stays: what it means depends on links.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

fn inet(text: &str) -> Result<Inet, String> {
    let (ip, port) = match text.rsplit_once(':') {
        None => (None, text),
        Some((ip, port)) => (Some(ip), port),
    };
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|p| *p != 0)
        .ok_or(format!("{port:?} is no port from 1 to 65535"))?;
    let ip = match ip {
        None | Some("*" | "") => None,
        Some(v6) if v6.starts_with('[') && v6.ends_with(']') => Some(IpAddr::V6(
            v6[1..v6.len() - 1]
                .parse::<Ipv6Addr>()
                .map_err(|_| format!("{v6:?} is no IPv6 address"))?,
        )),
        Some(v4) => Some(IpAddr::V4(v4.parse::<Ipv4Addr>().map_err(|_| {
            format!(
                "{v4:?} is no IPv4 address (an IPv6 address stands in brackets, a host name is not looked up)"
            )
        })?)),
    };
    Ok(Inet { ip, port })
}

impl fmt::Display for Inet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => write!(f, "{}", self.port),
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// A declared address, and who means it.
///
/// The same words mean different things to services with different network namespaces or root directories.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    pub address: Address,
    /// The one service that means it so. `None`: all services that declare it mean the same.
    pub of: Option<String>,
}

impl FromStr for Site {
    type Err = AddressError;

    /// An address that all who declare it mean alike.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse::<Address>().map(Self::from)
    }
}

impl From<Address> for Site {
    fn from(address: Address) -> Self {
        Self { address, of: None }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(p) => write!(f, "unix:{}", p.display()),
            Self::Abstract(n) => write!(f, "unix:@{n}"),
            Self::Tcp(i) => write!(f, "tcp:{i}"),
            Self::Udp(i) => write!(f, "udp:{i}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in [
            "unix:/run/a.sock",
            "unix:@name",
            "tcp:80",
            "tcp:127.0.0.1:80",
            "udp:[::1]:53",
        ] {
            let a: Address = text.parse().unwrap();
            assert_eq!(a.to_string(), text);
        }
        assert_eq!(
            "unix:/run//./a".parse::<Address>().unwrap().to_string(),
            "unix:/run/a"
        );
        assert_eq!("tcp:*:80".parse::<Address>().unwrap().to_string(), "tcp:80");
    }

    #[test]
    fn what_does_not_parse_says_why() {
        for (text, why) in [
            ("/run/a.sock", "no scheme"),
            ("unix:run/a", "not absolute"),
            ("unix:@", "empty"),
            ("tcp:0", "no port"),
            ("tcp:localhost:80", "host name"),
            ("tcp:::1:80", "no IPv4"),
            ("sctp:80", "unknown"),
        ] {
            let e = text.parse::<Address>().unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn a_wildcard_socket_serves_a_declared_address() {
        let want = Inet {
            ip: Some("127.0.0.1".parse().unwrap()),
            port: 80,
        };
        assert!(want.is_served_by("0.0.0.0".parse().unwrap()));
        assert!(want.is_served_by("::".parse().unwrap()));
        assert!(!want.is_served_by("127.0.0.2".parse().unwrap()));
        let want = Inet {
            ip: Some("::1".parse().unwrap()),
            port: 80,
        };
        assert!(!want.is_served_by("0.0.0.0".parse().unwrap()));
    }
}
