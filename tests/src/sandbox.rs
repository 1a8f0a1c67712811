//! A directory, executables and ports of a test's own, so that tests run side by side.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;

/// A temporary directory, removed when nobody needs it any more; a clone means the same one.
#[derive(Debug, Clone)]
pub struct Sandbox {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir(TempDir);

/// Workers of a master that a test killed go on by themselves. Whatever runs an executable of this directory is the
/// test's.
impl Drop for Dir {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir("/proc") else {
            return;
        };
        for pid in entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        {
            let is_own = || {
                let exe = fs::read_link(format!("/proc/{pid}/exe"));
                exe.is_ok_and(|exe| exe.starts_with(self.0.path()))
            };
            let process = rustix::process::Pid::from_raw(pid).filter(|_| is_own());
            let opened = process
                .and_then(|p| rustix::process::pidfd_open(p, rustix::process::PidfdFlags::empty()).ok());
            // Asked again, because the pid could have become another process's before it was opened.
            if let Some(fd) = opened.filter(|_| is_own()) {
                let _ = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL);
            }
        }
    }
}

impl Sandbox {
    /// Fails unless root runs the test.
    #[expect(clippy::new_without_default, reason = "it has effects and may fail")]
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "end-to-end tests load eBPF programs and need root: run them with `sudo`, or through `cargo xtask test`"
        );
        let dir = tempfile::Builder::new()
            .prefix("probe-test-")
            .tempdir()
            .expect("temporary directory");
        // Daemons may change their user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))
            .expect("permissions of the directory");
        Self {
            dir: Arc::new(Dir(dir)),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.0.path()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.0.path().join(name)
    }

    /// Copies an executable here, because probe tells daemons by their executable's inode: what another test, or the host
    /// itself, runs from the original is not this test's.
    pub fn install(&self, program: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        // By a process of its own: a descriptor open for writing here could be inherited by a child that another
        // thread is just forking, and then the kernel refuses to run the copy (ETXTBSY).
        let status = Command::new("cp")
            .arg("-L")
            .arg("--")
            .args([program, &to])
            .status()
            .expect("run cp");
        assert!(
            status.success(),
            "cannot copy {} to {}",
            program.display(),
            to.display()
        );
        to
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }
}

/// A TCP port of the loopback interface that nobody uses.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port()
}

/// One that the kernel gives to nobody who asks for any port. Whoever tries to connect to a free one again and again may be given
/// that very port, and be connected to itself.
pub fn unassigned_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or_default();
    (first..32_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
