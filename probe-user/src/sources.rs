//! What is read from the kernel without eBPF: socket diagnosis, file-system notifications, `/proc`, PID files.
//! Nothing here judges; everything here answers with types of [`crate::event`].

pub mod close_watch;
pub mod declared_paths;
pub mod directory_watch;
pub mod file_watch;
pub mod heartbeat;
pub mod interpreter;
pub mod namespace;
pub mod observer;
pub mod path;
pub mod pid_file;
mod pid_namespace;
pub mod process;
pub mod process_state;
pub mod root;
pub mod sock_diag;
pub mod socket_names;
#[cfg(feature = "systemd")]
pub mod systemd;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;
