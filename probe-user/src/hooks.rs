//! Alert hooks: who is told of findings, and how.

pub mod backoff;
pub mod notification;
pub mod pending;
pub mod router;
pub mod rule;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhook;
