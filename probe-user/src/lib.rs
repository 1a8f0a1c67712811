//! probe: the truth about the daemons on a Linux host. See `ARCHITECTURE.md` for where things are.

pub mod address;
pub mod api;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod discover;
pub mod engine;
pub mod event;
pub mod exec;
#[doc(hidden)]
pub mod fuzz;
pub mod heal;
pub mod history;
pub mod hooks;
pub mod kernel;
pub mod lock;
pub mod metrics;
mod realtime;
pub mod reclaim;
pub mod report;
pub mod run;
pub mod runtime;
pub mod signal;
pub mod silence;
pub mod sources;
pub mod spawner;
pub mod stream;
pub mod trace;
pub mod tree;
pub mod wait;
pub mod who;
