//! Becoming another user.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// All that a process is of a user. Looked up before the fork: a child of a process with threads must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) home: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
}

impl Identity {
    /// Asks the name service, which may take long.
    pub(super) fn of(name: &str) -> Result<Self, String> {
        let user = User::from_name(name)
            .map_err(|e| format!("cannot look up the user {name:?}: {e}"))?
            .ok_or_else(|| format!("there is no user {name:?}"))?;
        let groups = CString::new(name)
            .map_err(|e| e.to_string())
            .and_then(|name| getgrouplist(&name, user.gid).map_err(|e| e.to_string()))
            .map_err(|e| format!("cannot look up the groups of {name:?}: {e}"))?;
        Ok(Self {
            name: name.to_owned(),
            home: user.dir.to_string_lossy().into_owned(),
            uid: user.uid,
            gid: user.gid,
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        })
    }

    /// Groups first: whoever has given up root can't change them any more. Only system calls, as is right between fork
    /// and exec.
    pub(super) fn assume(&self) -> std::io::Result<()> {
        let done = |r: libc::c_int| match r {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: the pointer and the length are those of a living vector.
        done(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: no memory is involved.
        done(unsafe { libc::setgid(self.gid.as_raw()) })?;
        // SAFETY: no memory is involved.
        done(unsafe { libc::setuid(self.uid.as_raw()) })
    }
}
