//! A bpffs of a test's own, and what of eBPF a process has.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    bpf::{BpfObjects, bpf_objects},
    sandbox::Sandbox,
};

/// Mounted in a sandbox; unmounted when it is dropped, and with it goes what is pinned there.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    _sandbox: Sandbox,
}

impl Bpffs {
    pub fn mount(sandbox: &Sandbox) -> Self {
        let path = sandbox.path("bpf");
        fs::create_dir(&path).expect("a directory");
        let bpffs = Self {
            path,
            _sandbox: sandbox.clone(),
        };
        bpffs.mount_again();
        bpffs
    }

    pub fn unmount(&self) {
        umount2(&self.path, MntFlags::MNT_DETACH).expect("unmount bpffs");
    }

    pub fn mount_again(&self) {
        let none: Option<&str> = None;
        mount(Some("bpf"), &self.path, Some("bpf"), MsFlags::empty(), none).expect("mount bpffs");
    }

    /// Where a daemon may pin.
    pub fn pins(&self) -> PathBuf {
        self.path.join("probe")
    }

    /// The line of the `[probe]` table.
    pub fn toml(&self) -> String {
        format!("pin_dir = {:?}\n", self.pins())
    }

    /// Every pin, as a path below [`Self::pins`].
    pub fn pinned(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut directories = vec![self.pins()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => directories.push(path),
                    path => _ = found.insert(path.strip_prefix(self.pins()).expect("below").to_owned()),
                }
            }
        }
        found
    }
}

impl Bpffs {
    /// One slot of a pinned array of counters, of all processors together.
    #[track_caller]
    pub fn counter(&self, map: &str, slot: usize) -> u64 {
        let entries = self.dump(map);
        let byte = |b: &serde_json::Value| {
            let text = b.as_str().expect("a byte").trim_start_matches("0x");
            u8::from_str_radix(text, 16).expect("a byte")
        };
        let number = |value: &serde_json::Value| {
            let bytes: Vec<u8> = value["value"]
                .as_array()
                .expect("bytes")
                .iter()
                .map(byte)
                .collect();
            u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
        };
        entries[slot]["values"]
            .as_array()
            .expect("values")
            .iter()
            .map(number)
            .sum()
    }

    /// How many entries a pinned map has.
    #[track_caller]
    pub fn entries(&self, map: &str) -> usize {
        let entries = self.dump(map);
        entries.as_array().map_or(0, Vec::len)
    }

    #[track_caller]
    fn dump(&self, map: &str) -> serde_json::Value {
        let pins = self.pins();
        let generation = self.generations().into_iter().next().expect("a generation");
        let output = Command::new("bpftool")
            .args(["--json", "map", "dump", "pinned"])
            .arg(pins.join(generation).join("maps").join(map))
            .output()
            .expect("run bpftool");
        assert!(output.status.success(), "bpftool map dump: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON of bpftool")
    }

    /// The directories of what was built differently.
    pub fn generations(&self) -> Vec<String> {
        let entries = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Programs, maps and links, by kind and number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects(BTreeSet<(&'static str, u64)>);

impl Objects {
    /// Everything that a process holds, of its `/proc/PID/fdinfo`.
    pub fn of(pid: u32) -> Self {
        let mut found = BTreeSet::new();
        let directory = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&directory).expect("descriptors").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for line in text.lines() {
                let Some((name, value)) = line.split_once(':') else {
                    continue;
                };
                let kind = match name {
                    "prog_id" => "prog",
                    "map_id" => "map",
                    "link_id" => "link",
                    _ => continue,
                };
                found.extend(value.trim().parse().ok().map(|id| (kind, id)));
            }
        }
        Self(found)
    }

    /// Which of these the kernel still has, as bpftool lists them.
    pub fn that_exist(&self) -> Self {
        let mut left = BTreeSet::new();
        for kind in ["prog", "map", "link"] {
            let ids = listed(kind);
            left.extend(self.0.iter().filter(|(k, id)| *k == kind && ids.contains(id)));
        }
        Self(left)
    }

    /// Whether the kernel still has one of these. Needs no bpftool, which a small machine lacks.
    pub fn any_is_left(&self) -> bool {
        let kinds = [
            ("prog", BpfObjects::Programs),
            ("map", BpfObjects::Maps),
            ("link", BpfObjects::Links),
        ];
        kinds.into_iter().any(|(kind, of)| {
            let ids = bpf_objects(of);
            self.0
                .iter()
                .any(|(k, id)| *k == kind && u32::try_from(*id).is_ok_and(|id| ids.contains(&id)))
        })
    }

    /// Those of one kind.
    pub fn of_kind(&self, kind: &str) -> Self {
        Self(self.0.iter().filter(|(k, _)| *k == kind).copied().collect())
    }

    pub fn count(&self, kind: &str) -> usize {
        self.0.iter().filter(|(k, _)| *k == kind).count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Numbers of all objects of a kind.
fn listed(kind: &str) -> BTreeSet<u64> {
    let output = Command::new("bpftool")
        .args(["--json", kind, "show"])
        .output()
        .expect("run bpftool");
    assert!(output.status.success(), "bpftool {kind} show: {output:?}");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON of bpftool");
    let ids = list.as_array().into_iter().flatten();
    ids.filter_map(|o| o["id"].as_u64()).collect()
}
