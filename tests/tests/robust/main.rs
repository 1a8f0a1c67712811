//! Never blind and never dangerous: what survives probe's own end, losses of events, and faults of the host.
//! Each test adds a row to a table: `cargo xtask robust` prints them.

mod faults;
mod loss;
mod restart;
mod scene;
