//! A control group with a memory limit, for the kernel's OOM killer.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A group that is removed at the end; its processes must be gone by then.
#[derive(Debug)]
pub struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// `Err` says why this machine cannot limit memory.
    pub fn new(name: &str, limit_mib: u64) -> Result<Self, String> {
        let (parent, v2) = parent()?;
        let dir = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        let group = Self { dir };
        let limit = (limit_mib << 20).to_string();
        let (memory, swap, no_swap) = if v2 {
            ("memory.max", "memory.swap.max", "0")
        } else {
            (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                limit.as_str(),
            )
        };
        group.write(memory, &limit)?;
        // Without swap accounting the file does not exist; then there is no swap to flee to, or the test takes longer.
        if group.dir.join(swap).exists() {
            group.write(swap, no_swap)?;
        }
        Ok(group)
    }

    /// Moves a process in.
    pub fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string())
            .unwrap_or_else(|e| panic!("{e}"));
    }

    fn write(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.dir.join(file);
        fs::write(&path, value).map_err(|e| format!("cannot write {value} to {}: {e}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel empties a group a moment after its last process was reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Where the memory controller is: version 2 with the controller handed down, else version 1.
fn parent() -> Result<(PathBuf, bool), String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|e| format!("cannot read mounts: {e}"))?;
    let mut v1 = None;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words[..] else {
            continue;
        };
        let at = Path::new(at);
        if kind == "cgroup2" && has_word(&at.join("cgroup.subtree_control"), "memory") {
            return Ok((at.to_owned(), true));
        }
        if kind == "cgroup" && options.split(',').any(|o| o == "memory") {
            v1 = Some(at.to_owned());
        }
    }
    v1.map(|at| (at, false))
        .ok_or_else(|| "no cgroup mount offers the memory controller".to_owned())
}

fn has_word(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|w| w == word))
}
