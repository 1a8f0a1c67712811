//! What the committed object was built from: `probe-user/bpf/probe-ebpf.toml`.

use std::{fmt, fs, io::ErrorKind, path::Path};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::digest;

/// Where the object and its record are committed.
pub(crate) const DIRECTORY: &str = "probe-user/bpf";
pub(crate) const OBJECT: &str = "probe-ebpf.o";
pub(crate) const RECORD: &str = "probe-ebpf.toml";

const HEADER: &str = "# Written by `cargo xtask build-ebpf`, together with the object. Do not edit.\n\n";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) object: Sha256,
    pub(crate) sources: Sha256,
    pub(crate) tools: Versions,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sha256 {
    pub(crate) sha256: String,
}

/// With all of these equal, the same sources give the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    /// The first line of `rustc -vV`: two builds of one release can differ.
    pub(crate) rustc: String,
    /// The LLVM inside the compiler.
    pub(crate) rustc_llvm: String,
    /// The LLVM that bpf-linker and llvm-objcopy use.
    pub(crate) llvm: String,
    pub(crate) bpf_linker: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            rustc_llvm,
            llvm,
            bpf_linker,
        } = self;
        write!(
            f,
            "  {rustc}, with LLVM {rustc_llvm}\n  bpf-linker {bpf_linker}, with LLVM {llvm}"
        )
    }
}

impl Record {
    pub(crate) fn new(object: &[u8], sources: String, tools: Versions) -> Self {
        Self {
            object: Sha256 {
                sha256: digest::hex(object),
            },
            sources: Sha256 { sha256: sources },
            tools,
        }
    }

    pub(crate) fn to_text(&self) -> anyhow::Result<String> {
        let body = toml::to_string(self).context("write the record of the eBPF object")?;
        Ok(format!("{HEADER}{body}"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("parse the record of the eBPF object")
    }

    /// The committed record; `None` where there is none yet.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Option<Self>> {
        let path = root.join(DIRECTORY).join(RECORD);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text)
                .with_context(|| path.display().to_string())
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// The committed record, once the committed object and the sources here are shown to be the ones it names.
pub(crate) fn verify_committed(root: &Path) -> anyhow::Result<Record> {
    let record = Record::read(root)?
        .with_context(|| format!("{DIRECTORY}/{RECORD} is missing: run `cargo xtask build-ebpf`"))?;
    let path = root.join(DIRECTORY).join(OBJECT);
    let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let found = digest::hex(&object);
    ensure!(
        found == record.object.sha256,
        "{DIRECTORY}/{OBJECT} is not the recorded one (sha256 {found}, recorded {}): run `cargo xtask build-ebpf`",
        record.object.sha256
    );
    let found = digest::of_sources(root)?;
    ensure!(
        found == record.sources.sha256,
        "the eBPF sources changed and the committed object did not (sha256 {found}, recorded {}): \
         run `cargo xtask build-ebpf` and commit {DIRECTORY}",
        record.sources.sha256
    );
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let tools = Versions {
            rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            rustc_llvm: "22.1.8".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
        };
        Record::new(b"object", "ab".repeat(32), tools)
    }

    #[test]
    fn a_record_survives_its_text() {
        let text = record().to_text().unwrap();
        assert!(text.starts_with(HEADER));
        assert_eq!(Record::parse(&text).unwrap(), record());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = record().to_text().unwrap().replace("rustc_llvm", "rust_llvm");
        assert!(Record::parse(&text).is_err());
    }

    /// The one that fails when somebody changes the programs and forgets to build them.
    #[test]
    fn the_committed_object_was_built_from_these_sources() {
        verify_committed(&crate::workspace::root()).unwrap();
    }
}
