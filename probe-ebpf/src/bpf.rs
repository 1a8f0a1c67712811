//! One file a subject. Every program returns early where nobody declared the process, the port or the inode.

mod emit;
mod inet_socket;
mod iter;
mod maps;
mod path;
mod process;
mod read;
mod signal;
mod task;
mod unix_socket;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an endless loop: a panic that the compiler did not remove fails the load, never the kernel.
    loop {}
}

/// `bpf_probe_read_kernel` and others used here are open only to programs under a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
