//! The OOM killer, in a memory cgroup of the test's own, on the running kernel as root.

mod kernel_support;

use std::{fs, path::PathBuf, process::Command};

use kernel_support::{OwnExe, Reaped, Watch};
use probe_user::{
    event::{ExitStatus, What},
    signal::Signal,
};

const LIMIT: u64 = 16 << 20;

/// A cgroup that may use [`LIMIT`] bytes; removed at the end.
struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    fn create() -> Option<Self> {
        let name = format!("probe-oom-{}", std::process::id());
        // The controller belongs to one of the hierarchies.
        let v1 = PathBuf::from("/sys/fs/cgroup/memory");
        let v2 = PathBuf::from("/sys/fs/cgroup");
        let (parent, limit) = if v1.is_dir() {
            (v1, "memory.limit_in_bytes")
        } else {
            (v2, "memory.max")
        };
        let own = Self(parent.join(name));
        fs::create_dir(&own.0).ok()?;
        fs::write(own.0.join(limit), LIMIT.to_string()).ok()?;
        // Without this the machine would swap instead.
        for swap in ["memory.swap.max", "memory.swappiness"] {
            let _ = fs::write(own.0.join(swap), "0");
        }
        Some(own)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_victim_of_the_oom_killer_is_named_with_its_memory() {
    let Some(mut watch) = Watch::load() else { return };
    let Some(cgroup) = MemoryCgroup::create() else {
        eprintln!("skipped: no memory cgroup can be made here");
        return;
    };
    if !watch.kernel.plan().is_attached("mark_victim") {
        eprintln!("skipped: {:?}", watch.kernel.plan().without().collect::<Vec<_>>());
        return;
    }
    let exe = OwnExe::copy("/usr/bin/tail", "oom");
    watch.want_exe(&exe.path);
    // tail keeps the last lines in memory, and /dev/zero has only one.
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {} /dev/zero",
        cgroup.0.display(),
        exe.path.display()
    );
    let mut child = Reaped(Command::new("/bin/sh").arg("-c").arg(script).spawn().unwrap());
    let pid = child.0.id();
    let (victim, rss) = watch.expect("oom", |e| match &e.what {
        What::Oom { victim, rss } if victim.id.pid == pid => Some((victim.clone(), *rss)),
        _ => None,
    });
    assert_eq!(victim.comm, "daemon");
    let rss = rss.unwrap();
    assert!((LIMIT / 4..4 * LIMIT).contains(&rss), "{rss} bytes");
    assert_eq!(
        watch.exit_of(pid).0,
        ExitStatus::Signal {
            signal: Signal::KILL,
            core: false
        }
    );
    child.0.wait().unwrap();
}
