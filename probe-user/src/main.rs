//! The command line of probe.
fn main() {}
