//! `probe who`.

use clap::Args;
use probe_user::{address::Address, config::Netns};

use super::reach::Reach;

/// Say who holds an address, and whether somebody who connects to it reaches them
///
/// Right where `lsof PATH` and `fuser PATH` are not: they go by the name that a socket was once given, not by the file
/// that the path leads to. Needs no daemon; where one runs, it is asked, because it knows who held the socket the last time and
/// need not search everything. Without one root sees everything; anybody else is told what could not be seen.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 live, 3 held or left behind and nobody is reached (stale, orphaned, bound, shut_down, \
not_a_socket), 4 free, 5 unknown, 1 error, 2 wrong usage.

Examples:
  probe who /run/anna/annad.sock
  probe who @abstract
  probe who tcp:127.0.0.1:8080                     8080 alone means tcp:8080
  probe who --json udp:53 | jq '.sockets[].holders[].pid'"
)]
pub(crate) struct Who {
    /// A path, @NAME, [ADDR:]PORT of TCP, or unix:…, tcp:…, udp:…
    #[arg(value_parser = parse)]
    pub(crate) address: Address,

    /// Network namespace that the port or the abstract name is in, for example /run/netns/NAME
    #[arg(long, value_name = "PATH", value_parser = netns)]
    pub(crate) netns: Option<Netns>,

    /// Look without asking the daemon, also where one runs
    #[arg(long)]
    pub(crate) alone: bool,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

fn parse(text: &str) -> Result<Address, String> {
    let has_scheme = ["unix:", "tcp:", "udp:"].iter().any(|s| text.starts_with(s));
    match text.strip_prefix("unix:") {
        Some(name) => super::declare::unix(name),
        None if has_scheme => text
            .parse()
            .map_err(|e: probe_user::address::AddressError| e.to_string()),
        None if text.starts_with('@') || text.contains('/') => super::declare::unix(text),
        None => super::declare::tcp(text),
    }
}

fn netns(text: &str) -> Result<Netns, String> {
    super::declare::path(text).map(Netns::Path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_address_is_one() {
        let here = std::env::current_dir().unwrap();
        for (text, address) in [
            ("/run/a.sock", "unix:/run/a.sock"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("@a/b", "unix:@a/b"),
            ("unix:@a", "unix:@a"),
            ("80", "tcp:80"),
            ("127.0.0.1:80", "tcp:127.0.0.1:80"),
            ("[::1]:80", "tcp:[::1]:80"),
            ("udp:53", "udp:53"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), address, "{text}");
        }
        assert_eq!(
            parse("./a.sock").unwrap().path(),
            Some(here.join("a.sock").as_path())
        );
        for text in ["", "localhost:80", "a.sock", "tcp:0", "sctp:7"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
