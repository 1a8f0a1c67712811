//! The control group of a unit: what is in it belongs to the unit, whatever became of its parents.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
    sync::OnceLock,
};

use crate::sources::process::unit_of_cgroup;

/// Processes of a control group that are looked at.
const MOST: usize = 4096;
/// Sub-groups of a control group.
const MOST_GROUPS: usize = 256;

/// A control group of the unified hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// From the root of the hierarchy, without a slash at its end.
    path: String,
}

impl Cgroup {
    /// The control group of the unit that the process is in, which may be in a sub-group of it. `user`: whose service
    /// manager the unit belongs to, by user id; a unit of that name in somebody's own service manager is another one.
    ///
    /// `proc`: the process's directory in `/proc`.
    pub fn of_unit(proc: &str, unit: &str, user: Option<u32>) -> Option<Self> {
        let path = path_of(proc)?;
        let end = path
            .match_indices(unit)
            .map(|(at, _)| (at, at + unit.len()))
            .find(|(at, end)| {
                path[..*at].ends_with('/') && matches!(path.as_bytes().get(*end), None | Some(b'/'))
            })?
            .1;
        let manager = |uid: u32| format!("/user@{uid}.service/");
        let is_meant = match user {
            Some(uid) => path[..end].contains(&manager(uid)),
            None => !path[..end].contains("/user@"),
        };
        (is_meant && unit_of_cgroup(&path[..end]).is_some()).then(|| Self {
            path: path[..end].to_owned(),
        })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a process is in it or in one of its sub-groups.
    pub fn contains(&self, proc: &str) -> bool {
        path_of(proc).is_some_and(|path| {
            path.strip_prefix(&self.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The processes in it and its sub-groups, as pids: each must be taken hold of and asked again.
    ///
    /// # Errors
    /// When the group can't be read; a group that is gone has none.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let Some(directory) = self.directory() else {
            return Ok(Vec::new());
        };
        let mut pids = Vec::new();
        let mut groups = vec![directory];
        let mut seen = 0;
        while let Some(group) = groups.pop() {
            seen += 1;
            match fs::read_to_string(group.join("cgroup.procs")) {
                // 0: a process of another pid namespace.
                Ok(text) => pids.extend(
                    text.lines()
                        .filter_map(|l| l.parse::<u32>().ok())
                        .filter(|p| *p != 0),
                ),
                Err(e) if is_gone(&e) => continue,
                Err(e) => return Err(e),
            }
            if pids.len() > MOST || seen > MOST_GROUPS {
                return Err(io::Error::other(format!(
                    "{} has more than {MOST} processes or {MOST_GROUPS} groups",
                    self.path
                )));
            }
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    groups.push(entry.path());
                }
            }
        }
        Ok(pids)
    }

    /// Kills everything in it, forks under way included (`cgroup.kill`, Linux 5.14). `false`: the kernel has no such file.
    ///
    /// # Errors
    /// When it may not be written.
    pub fn kill(&self) -> io::Result<bool> {
        let Some(directory) = self.directory() else {
            return Ok(false);
        };
        let file = fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(directory.join("cgroup.kill"));
        match file {
            Ok(mut file) => file.write_all(b"1").map(|()| true),
            Err(e) if is_gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(mount()?.join(self.path.trim_start_matches('/')))
    }
}

/// The path of a process's control group in the unified hierarchy. `None`: the root group, which is nobody's own, or one
/// outside of our control group namespace.
fn path_of(proc: &str) -> Option<String> {
    let text = fs::read_to_string(format!("{proc}/cgroup")).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let plain = Path::new(path)
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    (plain && path != "/").then(|| path.to_owned())
}

/// The freezer of the first hierarchy that holds a process still, which no signal ends before it is thawed.
pub fn frozen_by(proc: &str) -> Option<String> {
    let text = fs::read_to_string(format!("{proc}/cgroup")).ok()?;
    let path = text.lines().find_map(|l| {
        let (controllers, path) = l.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|c| c == "freezer").then_some(path)
    })?;
    let state = Path::new("/sys/fs/cgroup/freezer")
        .join(path.trim_start_matches('/'))
        .join("freezer.state");
    let frozen = fs::read_to_string(state).is_ok_and(|s| s.trim() != "THAWED");
    frozen.then(|| path.to_owned())
}

/// Where the unified hierarchy is mounted.
fn mount() -> Option<&'static Path> {
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    MOUNT
        .get_or_init(|| {
            let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
            table.lines().find_map(|line| {
                let (mount, file_system) = line.split_once(" - ")?;
                let mut fields = mount.split(' ');
                // The root of the hierarchy only, or of our control group namespace.
                let (root, place) = (fields.nth(3)?, fields.next()?);
                let is_it = file_system.starts_with("cgroup2 ") && root == "/";
                is_it.then(|| PathBuf::from(OsStr::new(place)))
            })
        })
        .as_deref()
}

fn is_gone(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn a_unit_s_group_is_found_by_its_whole_name() {
        let dir = TempDir::new("cgroup");
        let proc = dir.path().to_str().unwrap();
        let of = |path: &str, user| {
            fs::write(dir.path().join("cgroup"), format!("4:memory:/x\n0::{path}\n")).unwrap();
            Cgroup::of_unit(proc, "a.service", user).map(|c| c.path)
        };
        assert_eq!(
            of("/system.slice/a.service", None).as_deref(),
            Some("/system.slice/a.service")
        );
        assert_eq!(
            of("/system.slice/a.service/sub/deep", None).as_deref(),
            Some("/system.slice/a.service")
        );
        for other in [
            "/",
            "/system.slice",
            "/system.slice/aa.service",
            "/system.slice/a.service.d",
            "/../a.service",
        ] {
            assert_eq!(of(other, None), None, "{other}");
        }
        let users = "/user.slice/user-7.slice/user@7.service/app.slice/a.service";
        assert_eq!(of(users, None), None, "anybody may call a unit of his own so");
        assert_eq!(of(users, Some(8)), None);
        assert_eq!(of(users, Some(7)).as_deref(), Some(users));
        assert_eq!(of("/system.slice/a.service", Some(7)), None);
    }
}
