//! What reads bytes of others, as fuzzing calls it: `fuzz/` at the top has the programs and the corpora, `cargo xtask fuzz`
//! runs them, and the tests of this module read every corpus.
//!
//! Each target says what must hold whatever the bytes are. Part of the library, and hidden: a feature would have the whole
//! workspace built twice.

mod api;
mod lines;
#[cfg(test)]
mod tests;
mod texts;
mod trace;

/// One target: its name, which is that of its program and its corpus, and what is called with the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 10] = [
    target("api_request", api::request),
    target("btf", texts::btf),
    target("configuration", texts::configuration),
    target("journal", texts::journal),
    target("netlink", texts::netlink),
    target("notify", texts::notify),
    target("pid_file", texts::pid_file),
    target("proc", texts::proc),
    target("ring", trace::ring),
    target("trace", trace::trace),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Calls the target of this name.
///
/// # Panics
/// When there is none, and where something does not hold that must.
pub fn run(name: &str, bytes: &[u8]) {
    let Some(target) = TARGETS.iter().find(|t| t.name == name) else {
        panic!("there is no target {name}");
    };
    (target.run)(bytes);
}
