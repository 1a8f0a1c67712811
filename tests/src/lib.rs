//! End-to-end tests: real daemons, really signalled and killed, on the running kernel, beside the real `probe`.
//!
//! A test arranges daemons in a [`Sandbox`], starts a [`Watch`], causes something, and expects findings. Nothing sleeps for
//! a fixed time: every wait is for a condition and has a [`Deadline`].

mod ask;
mod attached;
mod binaries;
mod bpf;
mod bpffs;
mod clock;
mod control_group;
mod daemon;
pub mod faulty;
pub mod http;
mod io_uring;
mod log;
mod memory_group;
mod network;
mod nginx;
mod probed;
mod process;
mod redis;
mod restarts;
mod sandbox;
mod scene;
pub mod schema;
mod sentinel;
mod stage;
pub mod table;
mod unit;
mod watch;

pub use ask::{Output, probe, run, run_within};
pub use attached::Attached;
pub use binaries::{faulty_binary, probe_binary};
pub use bpf::{BpfObjects, bpf_objects};
pub use bpffs::{Bpffs, Objects};
pub use clock::{Deadline, patience, until, until_within};
pub use control_group::ControlGroup;
pub use daemon::{Daemon, Starter};
pub use io_uring::io_uring;
pub use log::{Actor, Finding, Line};
pub use memory_group::MemoryGroup;
pub use network::Network;
pub use nginx::{Master, Nginx};
pub use probed::{Managed, Probed};
pub use process::{Proc, children, kill, state};
pub use redis::Redis;
pub use restarts::Restarts;
pub use sandbox::{Sandbox, free_port, unassigned_port};
pub use scene::Scene;
pub use sentinel::others_within;
pub use stage::Stage;
pub use unit::{Manager, Unit, UnitFile};
pub use watch::{Watch, finding_lines, replay};
