//! What the programs must know about this kernel's structures, read from its type information.

use probe_abi::{ABSENT, Offsets, Settings};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::btf::Btf;

/// Where the kernel shows its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets of every member that the kernel has; [`ABSENT`] for the others.
pub fn offsets(btf: &Btf<'_>) -> Offsets {
    let found: Vec<u32> = Offsets::FIELDS
        .iter()
        .map(|(_, structure, path)| btf.member(structure, path).map_or(ABSENT, |m| m.offset))
        .collect();
    // The fields and the structure come from one list, so the sizes are equal.
    Offsets::read_from_bytes(found.as_bytes()).unwrap_or(Offsets::ALL_ABSENT)
}

/// The facts that are no member offsets.
pub fn settings(btf: &Btf<'_>) -> Settings {
    // From 6.2 an array of percpu_counter, before that `struct mm_rss_stat { atomic_long_t count[]; }`.
    let per_cpu = btf
        .member("mm_struct", "rss_stat")
        .is_some_and(|m| btf.is_array(m));
    let (rss_stride, rss_count) = if per_cpu {
        (
            btf.struct_size("percpu_counter"),
            btf.member("percpu_counter", "count").map(|m| m.offset),
        )
    } else {
        (Some(8), Some(0))
    };
    Settings {
        sigaction_size: btf.struct_size("k_sigaction").unwrap_or(0),
        // Not a matter of types: the loader says.
        spares: 0,
        oom_arg_is_task: u32::from(btf.tracepoint_takes_pointer("mark_victim").unwrap_or(false)),
        rss_stride: rss_stride.unwrap_or(8),
        rss_count: rss_count.unwrap_or(0),
    }
}

/// Which of the named fields this kernel lacks, as `structure.member`.
pub fn missing(offsets: &Offsets, fields: &[&str]) -> Vec<String> {
    let words = Offsets::FIELDS.iter().zip(offsets.as_bytes().chunks_exact(4));
    words
        .filter(|((field, ..), word)| fields.contains(field) && *word == ABSENT.as_bytes())
        .map(|((_, structure, path), _)| format!("{structure}.{path}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_member() {
        let Ok(bytes) = std::fs::read(VMLINUX) else {
            eprintln!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        let found = offsets(&btf);
        let all: Vec<&str> = Offsets::FIELDS.iter().map(|(field, ..)| *field).collect();
        assert_eq!(missing(&found, &all), Vec::<String>::new());
        // struct sock_common and dentry have kept these for as long as there is BTF.
        assert_eq!(
            (found.sock_family, found.sock_state, found.sock_num),
            (16, 18, 14)
        );
        assert_eq!(found.dentry_d_name, 40);
        assert_eq!(settings(&btf).sigaction_size % 8, 0);
        assert_ne!(settings(&btf).sigaction_size, 0);
    }

    #[test]
    fn a_cut_kernel_blob_is_an_error() {
        let Ok(bytes) = std::fs::read(VMLINUX) else {
            eprintln!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        for len in [0, 1, 23, 24, 4096, bytes.len() / 2, bytes.len() - 1] {
            assert!(Btf::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_missing_is_named_as_the_kernel_names_it() {
        assert_eq!(
            missing(&Offsets::ALL_ABSENT, &["task_tgid"]),
            ["task_struct.tgid"]
        );
    }
}
