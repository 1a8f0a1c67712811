//! probe: the truth about the daemons on a Linux host. See `ARCHITECTURE.md` for where things are.

pub mod address;
pub mod clock;
pub mod config;
pub mod discover;
pub mod engine;
pub mod event;
pub mod exec;
pub mod kernel;
pub mod lock;
pub mod reclaim;
pub mod report;
pub mod run;
pub mod runtime;
pub mod signal;
pub mod sources;
pub mod trace;
pub mod tree;
