//! Control groups of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::clock::until;

/// A control group, removed when its processes are gone.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A new one in the unified hierarchy. `None`: there is none here.
    pub fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("a control group's file");
        let mount = mounts.lines().find_map(|l| {
            let mut words = l.split(' ');
            let (place, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        });
        let Some(mount) = mount else {
            println!("skipped: no unified control group hierarchy is mounted");
            return None;
        };
        Some(Self::at(&mount, name))
    }

    /// In the freezer of the first hierarchy.
    pub fn freezer() -> Option<Self> {
        let mount = Path::new("/sys/fs/cgroup/freezer");
        if !mount.join("cgroup.procs").exists() {
            println!("skipped: no freezer of the first control group hierarchy is mounted");
            return None;
        }
        Some(Self::at(mount, "frozen"))
    }

    fn at(mount: &Path, name: &str) -> Self {
        let own = format!(
            "probe-test-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let dir = mount.join(own.replace(['(', ')'], "")).join(name);
        fs::create_dir_all(&dir).expect("a control group's file");
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    #[track_caller]
    pub fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a control group's file");
    }

    pub fn freeze(&self, frozen: bool) {
        let state = if frozen { "FROZEN" } else { "THAWED" };
        fs::write(self.0.join("freezer.state"), state).expect("a control group's file");
        until("it froze or thawed", || {
            fs::read_to_string(self.0.join("freezer.state"))
                .expect("a control group's file")
                .trim()
                == state
        });
    }

    pub fn is_empty(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.procs"))
            .expect("a control group's file")
            .is_empty()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if self.0.join("freezer.state").exists() {
            let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        }
        let mut dir = self.0.as_path();
        // The kernel empties a group a moment after its last process was reaped.
        for _ in 0..500 {
            while dir.to_string_lossy().contains("probe-test-") && fs::remove_dir(dir).is_ok() {
                dir = dir.parent().expect("a control group's file");
            }
            if !dir.to_string_lossy().contains("probe-test-") {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
