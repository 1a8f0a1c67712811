//! The eBPF programs of probe. Built for `bpfel-unknown-none` by `cargo xtask build-ebpf`; for any other target this is an
//! empty program, so that the workspace builds and is linted with a plain stable compiler.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
