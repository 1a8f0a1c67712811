//! The digest of everything that decides what the eBPF object is, tools aside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// The eBPF crate and the ABI that it shares with user space.
const SOURCES: &str = "probe-ebpf";
/// Crates whose code ends up in the object, by the beginning of their names.
const LINKED: [&str; 3] = ["aya-ebpf", "aya-log-", "zerocopy"];

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Digest over every file of the eBPF crate, the locked versions of what it links, and how it is built.
pub(crate) fn of_sources(root: &Path) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    for path in files(&root.join(SOURCES))? {
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        parts.push((
            name,
            fs::read(&path).with_context(|| format!("read {}", path.display()))?,
        ));
    }
    let lock = read(&root.join("Cargo.lock"))?;
    parts.push(("Cargo.lock".to_owned(), linked_packages(&lock)?.into_bytes()));
    let manifest = read(&root.join("Cargo.toml"))?;
    parts.push(("Cargo.toml".to_owned(), build_settings(&manifest)?.into_bytes()));
    Ok(of_parts(&parts))
}

/// Lengths go in too, so that moving text from one file to the next changes the digest.
fn of_parts(parts: &[(String, Vec<u8>)]) -> String {
    let mut bytes = Vec::new();
    for (name, content) in parts {
        for field in [name.as_bytes(), content] {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field);
        }
    }
    hex(&bytes)
}

/// Every file below `directory` in the order of its path; hidden ones belong to editors.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || name == "target" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                directories.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Name, version and checksum of each linked package, one a line.
fn linked_packages(lock: &str) -> anyhow::Result<String> {
    let lock: toml::Table = lock.parse().context("parse Cargo.lock")?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .context("Cargo.lock has no packages")?;
    let mut lines = Vec::new();
    for package in packages {
        let field = |name| {
            package
                .get(name)
                .and_then(toml::Value::as_str)
                .unwrap_or_default()
        };
        if LINKED.iter().any(|prefix| field("name").starts_with(prefix)) {
            lines.push(format!(
                "{} {} {}\n",
                field("name"),
                field("version"),
                field("checksum")
            ));
        }
    }
    lines.sort();
    Ok(lines.concat())
}

/// The `bpf` profile and the features asked of the linked crates.
fn build_settings(manifest: &str) -> anyhow::Result<String> {
    let manifest: toml::Table = manifest.parse().context("parse Cargo.toml")?;
    let profile = manifest
        .get("profile")
        .and_then(|profiles| profiles.get("bpf"))
        .context("Cargo.toml has no [profile.bpf]")?;
    let dependencies = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(toml::Value::as_table)
        .context("Cargo.toml has no [workspace.dependencies]")?;
    let mut settings = toml::Table::new();
    settings.insert("profile".to_owned(), profile.clone());
    for (name, value) in dependencies {
        if LINKED.iter().any(|prefix| name.starts_with(prefix)) {
            settings.insert(name.clone(), value.clone());
        }
    }
    // Tables are sorted by key, so neither order nor comments of the manifest matter.
    toml::to_string(&settings).context("write the build settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[workspace.dependencies]\naya-ebpf = \"=0.2.1\"\nserde = \"1\"\n[profile.bpf]\nlto = true\ndebug = 2\n";
    const LOCK: &str = "[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\nchecksum = \"ab\"\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n";

    fn workspace() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("probe-ebpf/src/bpf")).unwrap();
        fs::write(root.join("Cargo.toml"), MANIFEST).unwrap();
        fs::write(root.join("Cargo.lock"), LOCK).unwrap();
        fs::write(root.join("probe-ebpf/Cargo.toml"), "[package]").unwrap();
        fs::write(root.join("probe-ebpf/src/main.rs"), "fn main() {}").unwrap();
        fs::write(root.join("probe-ebpf/src/bpf/maps.rs"), "").unwrap();
        directory
    }

    #[test]
    fn sha256_of_a_known_text() {
        assert_eq!(
            hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_folder_and_unrelated_changes_do_not_matter() {
        let (one, two) = (workspace(), workspace());
        let digest = of_sources(one.path()).unwrap();
        assert_eq!(digest, of_sources(two.path()).unwrap());

        let root = two.path();
        fs::write(root.join("probe-ebpf/src/.main.rs.swp"), "editor").unwrap();
        fs::write(
            root.join("Cargo.toml"),
            MANIFEST.replace("serde = \"1\"", "serde = \"2\" # note"),
        )
        .unwrap();
        fs::write(root.join("Cargo.lock"), LOCK.replace("1.0.1", "1.0.2")).unwrap();
        assert_eq!(digest, of_sources(root).unwrap());
    }

    #[test]
    fn each_thing_that_decides_the_object_matters() {
        let changes: [(&str, String); 6] = [
            ("probe-ebpf/src/main.rs", "fn main() { }".to_owned()),
            ("probe-ebpf/src/bpf/maps.rs", " ".to_owned()),
            ("probe-ebpf/src/bpf/new.rs", String::new()),
            ("Cargo.lock", LOCK.replace("0.2.1", "0.2.2")),
            ("Cargo.toml", MANIFEST.replace("debug = 2", "debug = 1")),
            (
                "Cargo.toml",
                MANIFEST.replace("\"=0.2.1\"", "{ version = \"=0.2.1\", features = [\"x\"] }"),
            ),
        ];
        for (file, content) in changes {
            let directory = workspace();
            let before = of_sources(directory.path()).unwrap();
            fs::write(directory.path().join(file), content).unwrap();
            assert_ne!(before, of_sources(directory.path()).unwrap(), "{file}");
        }
    }

    #[test]
    fn text_that_moves_between_files_changes_the_digest() {
        let part = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        assert_ne!(
            of_parts(&[part("a", "xy"), part("b", "z")]),
            of_parts(&[part("a", "x"), part("b", "yz")])
        );
        assert_ne!(of_parts(&[part("a", "b")]), of_parts(&[part("ab", "")]));
    }
}
