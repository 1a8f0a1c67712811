//! What this process may look at.

use std::{fs, io, path::Path};

use crate::sources::process;

/// `include/uapi/linux/capability.h`
const CAP_SYS_PTRACE: u32 = 19;

/// What other processes keep from this one. For root on a host there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sight {
    /// Processes whose descriptors can't be read.
    descriptors: usize,
    /// Processes whose network namespace can't be told.
    namespaces: usize,
    /// `/proc` does not show other users' processes.
    hidden: bool,
    /// It may look into other users' processes. Some keep it out all the same: a container's first process, which
    /// belongs to the host.
    able: bool,
}

impl Sight {
    /// Asks about every process.
    pub(crate) fn read() -> Self {
        let mut sight = Self {
            hidden: !Path::new("/proc/1").exists(),
            able: able(),
            ..Self::default()
        };
        for pid in process::all_pids().unwrap_or_default() {
            sight.namespaces += usize::from(is_denied(Path::new(&format!("/proc/{pid}/ns/net"))));
            // The directory may be open to this process, and what stands in it not.
            sight.descriptors += usize::from(match fs::read_dir(format!("/proc/{pid}/fd")) {
                Ok(mut entries) => entries
                    .next()
                    .is_some_and(|e| e.is_ok_and(|e| is_denied(&e.path()))),
                Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
            });
        }
        sight
    }

    pub(crate) fn sees_descriptors(&self) -> bool {
        self.descriptors == 0 && !self.hidden
    }

    /// Other users' processes can be told apart. A single one that keeps out whoever may look is none of them.
    pub(crate) fn sees_processes(&self) -> bool {
        !self.hidden && (self.able || self.descriptors == 0)
    }

    /// Nothing can be said about sockets of other network namespaces.
    pub(crate) fn is_blind_to_namespaces(&self) -> bool {
        self.hidden || self.namespaces > 0 && !self.able
    }

    /// Why descriptors are missing.
    pub(crate) fn descriptors(&self) -> Option<String> {
        if self.hidden {
            return Some(format!(
                "what processes of other users hold, which /proc hides{HIDDEN}"
            ));
        }
        let n = self.descriptors;
        (n > 0).then(|| format!("what {} hold{}", processes(n), self.remedy()))
    }

    /// Why sockets of other network namespaces are missing.
    pub(crate) fn namespaces(&self) -> Option<String> {
        if self.hidden {
            return Some(format!(
                "sockets of other network namespaces, whose processes /proc hides{HIDDEN}"
            ));
        }
        let n = self.namespaces;
        (n > 0).then(|| {
            let remedy = self.remedy();
            format!(
                "sockets of other network namespaces, should {} live in one{remedy}",
                processes(n)
            )
        })
    }

    fn remedy(&self) -> &'static str {
        if self.able { "" } else { ": ask as root" }
    }
}

const HIDDEN: &str = " (hidepid): ask as root";

fn processes(n: usize) -> String {
    match n {
        1 => "1 process that keeps others out".to_owned(),
        n => format!("{n} processes that keep others out"),
    }
}

fn is_denied(link: &Path) -> bool {
    fs::read_link(link).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether the kernel lets it read other users' descriptors and namespaces.
fn able() -> bool {
    procfs::process::Process::myself()
        .and_then(|p| p.status())
        .is_ok_and(|status| status.capeff >> CAP_SYS_PTRACE & 1 == 1)
}
