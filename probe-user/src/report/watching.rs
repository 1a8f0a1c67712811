//! What is watched of a service, and what of it can never be seen.

use std::collections::BTreeMap;

use crate::{
    address::Address,
    api::types::ServiceStatus,
    config::Service,
    event::ProcId,
    kernel::{Plan, Tier},
};

/// What is watched of one service, said once before its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    pub service: String,
    pub listen: Vec<Address>,
    pub pid_file: Option<String>,
    /// The pid of the main process.
    pub main: Option<u32>,
    /// The tier of each subject: `unix_socket`, `inet_socket`, `signal`, `process`.
    pub tier: BTreeMap<String, String>,
    /// What this tier can never see for the service.
    pub cannot_see: Vec<String>,
}

impl Watching {
    /// As the hooks of `plan` see the service.
    pub fn new(service: &Service, main: Option<ProcId>, plan: &Plan) -> Self {
        Self {
            service: service.name.clone(),
            listen: service.listen.clone(),
            pid_file: service.pid_file.clone(),
            main: main.map(|id| id.pid),
            tier: plan.tiers(),
            cannot_see: blind_spots(plan)
                .filter(|b| (b.concerns)(service))
                .map(|b| b.what.to_owned())
                .chain(plan.lacks.iter().map(ToString::to_string))
                .collect(),
        }
    }
}

impl From<&ServiceStatus> for Watching {
    /// As the daemon tells it.
    fn from(s: &ServiceStatus) -> Self {
        Self {
            service: s.service.clone(),
            listen: s.listeners.iter().map(|l| l.address.clone()).collect(),
            pid_file: s.pid_file.clone(),
            main: s.main.as_ref().map(|m| m.pid),
            tier: s.tier.clone(),
            cannot_see: s.cannot_see.clone(),
        }
    }
}

/// Something that cannot be seen, and whom that concerns.
#[derive(Debug)]
pub struct BlindSpot {
    pub what: &'static str,
    pub concerns: fn(&Service) -> bool,
    /// The hook that sees it in the fentry tier. `None`: nothing does.
    pub seen_by: Option<&'static str>,
}

/// What no hook tells of that costs unrelated processes nothing, or only one in the fentry tier.
const BLIND_SPOTS: [BlindSpot; 7] = [
    BlindSpot {
        what: "binds of UNIX sockets that fail",
        concerns: has_unix,
        seen_by: Some("unix_bind"),
    },
    BlindSpot {
        what: "binds of IPv4 sockets that fail",
        concerns: has_inet,
        seen_by: Some("inet_bind"),
    },
    BlindSpot {
        what: "binds of IPv6 sockets that fail",
        concerns: has_inet,
        seen_by: Some("inet6_bind"),
    },
    BlindSpot {
        what: "the moment of listen() on a UNIX socket (noticed by asking the kernel)",
        concerns: has_unix,
        seen_by: Some("unix_listen"),
    },
    BlindSpot {
        what: "shutdown() of a UNIX listener, until the kernel is asked the next time",
        concerns: has_unix,
        seen_by: Some("unix_shutdown"),
    },
    BlindSpot {
        what: "who changed a path, where the kernel refuses fanotify on its directory",
        concerns: |s| s.pid_file.is_some() || s.listen.iter().any(|a| a.path().is_some()),
        seen_by: Some("inode_unlink"),
    },
    BlindSpot {
        what: "binds of abstract addresses, until the kernel is asked the next time",
        concerns: |s| s.listen.iter().any(|a| matches!(a, Address::Abstract(_))),
        seen_by: Some("unix_bind"),
    },
];

/// What the hooks of `plan` cannot see.
pub fn blind_spots(plan: &Plan) -> impl Iterator<Item = &'static BlindSpot> {
    BLIND_SPOTS.iter().filter(|b| {
        let by = b.seen_by.and_then(|hook| plan.tier_of(hook));
        by != Some(Tier::Fentry)
    })
}

fn has_inet(s: &Service) -> bool {
    s.listen.iter().any(|a| a.inet().is_some())
}

fn has_unix(s: &Service) -> bool {
    s.listen.iter().any(|a| a.inet().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        features::{FEATURES, Lack},
        plan::{HOOKS, Planned},
    };

    fn plan(tier: Tier) -> Plan {
        let planned = |hook| Planned {
            hook,
            attached: hook.candidates.iter().find(|c| c.attach.tier() == tier),
            refused: Vec::new(),
        };
        Plan {
            hooks: HOOKS.iter().map(planned).collect(),
            lacks: Vec::new(),
            spares: Vec::new(),
        }
    }

    fn cannot_see(service: &Service, tier: Tier) -> Vec<String> {
        Watching::new(service, None, &plan(tier)).cannot_see
    }

    #[test]
    fn only_what_concerns_a_service_is_said() {
        let mut service = Service::named("a");
        assert_eq!(cannot_see(&service, Tier::Tracepoint).len(), 0);
        service.listen = vec!["tcp:80".parse().unwrap()];
        assert_eq!(
            cannot_see(&service, Tier::Tracepoint),
            [
                "binds of IPv4 sockets that fail",
                "binds of IPv6 sockets that fail"
            ]
        );
        service.listen.push("unix:@a".parse().unwrap());
        assert_eq!(cannot_see(&service, Tier::Tracepoint).len(), 6);
        service.pid_file = Some("/run/a.pid".into());
        assert_eq!(cannot_see(&service, Tier::Tracepoint).len(), BLIND_SPOTS.len());
        assert_eq!(cannot_see(&service, Tier::Fentry).len(), 0);
    }

    #[test]
    fn what_the_kernel_has_no_members_for_is_said_to_every_service() {
        let mut plan = plan(Tier::Fentry);
        plan.lacks.push(Lack {
            feature: &FEATURES[0],
            members: vec!["task_struct.cred".into()],
        });
        assert_eq!(
            Watching::new(&Service::named("a"), None, &plan).cannot_see,
            ["the user of a process: this kernel has no task_struct.cred"]
        );
    }

    #[test]
    fn every_hook_that_is_named_exists() {
        for hook in BLIND_SPOTS.iter().filter_map(|b| b.seen_by) {
            assert!(
                HOOKS.iter().any(|h| h.name == hook && h.has(Tier::Fentry)),
                "{hook}"
            );
        }
    }
}
