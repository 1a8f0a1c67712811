//! What is watched of a service, and what of it can never be seen.

use std::collections::BTreeMap;

use crate::{address::Address, config::Service, event::ProcId};

/// What is watched of one service, said once before its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    pub service: String,
    pub listen: Vec<Address>,
    pub pid_file: Option<String>,
    pub main: Option<ProcId>,
    /// The tier of each subject: `unix_socket`, `inet_socket`, `signal`, `process`.
    pub tier: BTreeMap<String, String>,
    /// What this tier can never see for the service.
    pub cannot_see: Vec<String>,
}

impl Watching {
    /// On the tracepoint tier.
    pub fn on_tracepoints(service: &Service, main: Option<ProcId>) -> Self {
        Self {
            service: service.name.clone(),
            listen: service.listen.clone(),
            pid_file: service.pid_file.clone(),
            main,
            tier: tracepoint_tier(),
            cannot_see: cannot_see(service).map(str::to_owned).collect(),
        }
    }
}

/// The tier of every subject, for `watching` lines and headers of traces.
pub fn tracepoint_tier() -> BTreeMap<String, String> {
    let subjects = ["unix_socket", "inet_socket", "signal", "process"];
    subjects
        .into_iter()
        .map(|s| (s.to_owned(), "tracepoint".to_owned()))
        .collect()
}

/// What cannot be seen, and whether it concerns a service.
pub type BlindSpot = (&'static str, fn(&Service) -> bool);

/// What the tracepoint tier never sees, and whom that concerns. No hook tells of it that costs unrelated processes
/// nothing.
pub const CANNOT_SEE: [BlindSpot; 5] = [
    ("binds that fail", |s| !s.listen.is_empty()),
    (
        "the moment of listen() on a UNIX socket (noticed by asking the kernel)",
        has_unix,
    ),
    (
        "shutdown() of a UNIX listener, until the kernel is asked the next time",
        has_unix,
    ),
    (
        "who changed a path, where the kernel refuses fanotify on its directory",
        |s| s.pid_file.is_some() || s.listen.iter().any(|a| a.path().is_some()),
    ),
    (
        "binds of abstract addresses, until the kernel is asked the next time",
        |s| s.listen.iter().any(|a| matches!(a, Address::Abstract(_))),
    ),
];

fn has_unix(s: &Service) -> bool {
    s.listen.iter().any(|a| a.inet().is_none())
}

fn cannot_see(service: &Service) -> impl Iterator<Item = &'static str> {
    CANNOT_SEE
        .into_iter()
        .filter(|(_, concerns)| concerns(service))
        .map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_a_service_is_said() {
        let mut service = Service::named("a");
        assert_eq!(cannot_see(&service).count(), 0);
        service.listen = vec!["tcp:80".parse().unwrap()];
        assert_eq!(cannot_see(&service).collect::<Vec<_>>(), ["binds that fail"]);
        service.listen.push("unix:@a".parse().unwrap());
        assert_eq!(cannot_see(&service).count(), 4);
        service.pid_file = Some("/run/a.pid".into());
        assert_eq!(cannot_see(&service).count(), CANNOT_SEE.len());
    }
}
