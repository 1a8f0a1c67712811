//! The engine: pure, no I/O, no clock.

pub mod finding;
pub mod membership;
