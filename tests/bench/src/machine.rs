//! Where it was measured.

use std::{fs, thread};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// How many wanted to run during the minute before: on a shared machine others take part of the time.
    pub(crate) load_before: String,
    pub(crate) probe: String,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo");
        let model = cpu
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        let memory = text("/proc/meminfo");
        let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib = total.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        let load = text("/proc/loadavg");
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: thread::available_parallelism().map_or(1, Into::into),
            memory_mib: kib.unwrap_or(0) / 1024,
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
            probe: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
