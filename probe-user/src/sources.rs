//! What is read from the kernel without eBPF: socket diagnosis, file-system notifications, `/proc`, PID files.
//! Nothing here judges; everything here answers with types of [`crate::event`].

pub mod close_watch;
pub mod directory_watch;
pub mod observer;
pub mod path;
pub mod pid_file;
pub mod process;
pub mod sock_diag;
#[cfg(feature = "systemd")]
pub mod systemd;
