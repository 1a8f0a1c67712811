//! Whether sockets can be bound through io_uring here.

use ::io_uring::{IoUring, Probe, opcode};

/// # Errors
/// Why they cannot: the kernel is older than 6.11, or refuses io_uring.
pub fn io_uring() -> Result<(), String> {
    let ring = IoUring::new(1).map_err(|e| format!("io_uring_setup: {e}"))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|e| format!("io_uring_register: {e}"))?;
    match probe.is_supported(opcode::Bind::CODE) && probe.is_supported(opcode::Listen::CODE) {
        true => Ok(()),
        false => Err("this kernel's io_uring has no bind".to_owned()),
    }
}
