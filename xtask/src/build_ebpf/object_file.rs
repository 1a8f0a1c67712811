//! What an eBPF object must and must not contain.

use std::{os::unix::ffi::OsStrExt, path::Path};

use anyhow::{Context, bail, ensure};
use object::{Object, ObjectSection, read::elf::ElfFile64};

/// The kernel reads it at load; helpers for GPL programs are refused with another text.
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

/// Fails, naming what is wrong, unless the object can be loaded and was built reproducibly.
///
/// `places` are directories of this machine, none of which may be named in it.
pub(crate) fn verify(bytes: &[u8], places: &[&Path]) -> anyhow::Result<()> {
    let elf: ElfFile64<'_> = ElfFile64::parse(bytes).context("parse the eBPF object")?;
    ensure!(
        elf.architecture() == object::Architecture::Bpf,
        "the object is for {:?}",
        elf.architecture()
    );
    let mut names = Vec::new();
    for section in elf.sections() {
        let name = section.name().context("read a section's name")?.to_owned();
        // The compiler's way out of a panic; the verifier refuses it as code that never returns.
        if name.starts_with(".text.unlikely") {
            bail!("section {name}: a panic is left in the programs; look for indexing, division or unwrap");
        }
        if name.starts_with(".debug_") {
            bail!("section {name}: DWARF was not stripped");
        }
        if name == "license" {
            let found = section.data().context("read the licence")?;
            ensure!(
                found == LICENSE,
                "section license: found \"{}\", expected \"{}\"",
                found.escape_ascii(),
                LICENSE.escape_ascii()
            );
        }
        names.push(name);
    }
    for wanted in ["license", ".BTF", ".BTF.ext"] {
        ensure!(
            names.iter().any(|name| name == wanted),
            "section {wanted} is missing"
        );
    }
    for place in places {
        let place_bytes = place.as_os_str().as_bytes();
        ensure!(
            !bytes
                .windows(place_bytes.len())
                .any(|window| window == place_bytes),
            "the object names {}: a path was not remapped",
            place.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF file for eBPF with these sections.
    fn elf(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut body = Vec::new();
        let mut headers = vec![0; 64];
        let mut push = |name: &str, kind: u32, data: &[u8], names: &mut Vec<u8>| {
            let at = names.len() as u32;
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            let data = if name == ".shstrtab" {
                names.clone()
            } else {
                data.to_vec()
            };
            headers.extend_from_slice(&at.to_le_bytes());
            headers.extend_from_slice(&kind.to_le_bytes());
            for field in [0, 0, 64 + body.len() as u64, data.len() as u64, 0, 1, 0] {
                // sh_link and sh_info are one word together here, both nought.
                headers.extend_from_slice(&field.to_le_bytes());
            }
            body.extend_from_slice(&data);
        };
        for (name, data) in sections {
            push(name, 1, data, &mut names);
        }
        push(".shstrtab", 3, &[], &mut names);
        let count = sections.len() as u16 + 2;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend_from_slice(&1u16.to_le_bytes());
        file.extend_from_slice(&247u16.to_le_bytes());
        file.extend_from_slice(&1u32.to_le_bytes());
        for field in [0, 0, 64 + body.len() as u64] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&0u32.to_le_bytes());
        for field in [64, 0, 0, 64, count, count - 1] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend(body);
        file.extend(headers);
        file
    }

    const GOOD: [(&str, &[u8]); 3] = [("license", LICENSE), (".BTF", b"x"), (".BTF.ext", b"/probe/src")];

    fn error(sections: &[(&str, &[u8])], places: &[&Path]) -> String {
        format!("{:#}", verify(&elf(sections), places).unwrap_err())
    }

    #[test]
    fn a_good_object_passes() {
        verify(&elf(&GOOD), &[Path::new("/somewhere")]).unwrap();
    }

    #[test]
    fn panics_dwarf_and_machine_paths_are_refused() {
        assert!(error(&[GOOD[0], GOOD[1], GOOD[2], (".text.unlikely.", b"x")], &[]).contains("panic"));
        assert!(error(&[GOOD[0], GOOD[1], GOOD[2], (".debug_info", b"x")], &[]).contains("DWARF"));
        assert!(error(&GOOD, &[Path::new("/probe/src")]).contains("remapped"));
    }

    #[test]
    fn the_licence_and_btf_must_be_there() {
        assert!(error(&GOOD[1..], &[]).contains("license is missing"));
        assert!(error(&[GOOD[0], GOOD[1]], &[]).contains(".BTF.ext is missing"));
        assert!(error(&[GOOD[0], GOOD[2]], &[]).contains(".BTF is missing"));
        for license in [&b"GPL\0"[..], b"Dual MIT/GPL", b"Dual MIT/GPL\0\0"] {
            assert!(error(&[("license", license), GOOD[1], GOOD[2]], &[]).contains("expected"));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(verify(b"", &[]).is_err());
        assert!(verify(&elf(&GOOD)[..100], &[]).is_err());
    }
}
