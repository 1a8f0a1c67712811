//! What the user declares. Reading files, errors with places and hints: `config/load.rs`.

pub mod check;
mod heal;
mod hook;
pub mod load;
mod netns;
mod place;
mod probe;
pub mod reference;
pub mod schema;
mod service;
mod site;
pub mod span;
mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    heal::{Backoff, CrashLoop, Heal},
    hook::{After, Hook, HookState, WebhookFormat},
    netns::Netns,
    probe::{Bounds, Probe, Retention, Size, TierChoice, Timeouts},
    service::{Heartbeat, KeepInstance, Service, Signals},
    span::Span,
};

/// The effective configuration: every default filled in. It stands at the head of each trace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of probe itself.
    #[serde(default)]
    pub probe: Probe,
    /// Default time limits of `probe exec`, by the command's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Span>,
    /// What is watched.
    #[serde(default, rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What is done when a finding opens.
    #[serde(default, rename = "hook", skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}
