//! Compilers that can build `core` for `bpfel-unknown-none`: those whose standard library's sources are there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::child;

/// Where Debian's rustc-web puts its compiler.
const DISTRIBUTION: &str = "/usr";
const LIMIT: Duration = Duration::from_secs(60);

/// Variables with these beginnings redirect cargo or change what the compiler does.
const SPOILERS: [&str; 8] = [
    "CARGO_BUILD_",
    "CARGO_ENCODED_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "RUSTC",
    "RUSTUP_TOOLCHAIN",
];

#[derive(Debug)]
pub(crate) struct Toolchain {
    /// For people: where it comes from.
    pub(crate) origin: String,
    pub(crate) sysroot: PathBuf,
    pub(crate) version: RustcVersion,
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq)]
pub(crate) struct RustcVersion {
    /// The first line.
    pub(crate) text: String,
    pub(crate) release: String,
    pub(crate) host: String,
    pub(crate) llvm: String,
}

impl RustcVersion {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(|v| v.trim().to_owned())
        };
        Some(Self {
            text: text
                .lines()
                .next()
                .filter(|line| line.starts_with("rustc "))?
                .trim()
                .to_owned(),
            release: field("release")?,
            host: field("host")?,
            llvm: field("LLVM version")?,
        })
    }

    /// The number in the names of LLVM's packages and directories.
    pub(crate) fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or(&self.llvm)
    }
}

/// Major and minor number of a version like `1.96.0-nightly` or `1.95`.
pub(crate) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

impl Toolchain {
    fn at(origin: String, sysroot: PathBuf) -> anyhow::Result<Self> {
        let mut rustc = Command::new(sysroot.join("bin/rustc"));
        clean(&mut rustc);
        let text = child::capture(rustc.arg("-vV"), LIMIT)?;
        let version =
            RustcVersion::parse(&text).with_context(|| format!("understand `rustc -vV` of {origin}"))?;
        Ok(Self {
            origin,
            sysroot,
            version,
        })
    }

    /// The compiler's own sources, where rust-src puts them (on Debian a link).
    pub(crate) fn sources(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// Why this one can't be used, if it can't.
    fn unfit(&self, minimum: (u32, u32)) -> Option<String> {
        if !self.sources().join("library/core").is_dir() {
            return Some("has no sources of the standard library (rust-src)".to_owned());
        }
        if !self.sysroot.join("bin/cargo").exists() {
            return Some("has no cargo".to_owned());
        }
        if major_minor(&self.version.release).is_none_or(|version| version < minimum) {
            let (major, minor) = minimum;
            return Some(format!("is {}, older than {major}.{minor}", self.version.release));
        }
        None
    }

    /// This toolchain's cargo, for eBPF.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(self.sysroot.join("bin/cargo"));
        clean(&mut cargo);
        // A released compiler refuses `-Z build-std` otherwise.
        cargo
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", self.sysroot.join("bin/rustc"));
        cargo
    }
}

/// Every compiler that will do, rustup's first, and why each of the others won't.
pub(crate) fn find(minimum: (u32, u32)) -> (Vec<Toolchain>, Vec<String>) {
    let mut fit = Vec::new();
    let mut reasons = Vec::new();
    let mut judge = |origin: String, sysroot: anyhow::Result<PathBuf>| match sysroot
        .and_then(|sysroot| Toolchain::at(origin.clone(), sysroot))
    {
        Ok(toolchain) => match toolchain.unfit(minimum) {
            None => fit.push(toolchain),
            Some(reason) => reasons.push(format!("{origin} {reason}")),
        },
        Err(error) => reasons.push(format!("{origin}: {error:#}")),
    };
    for name in rustup_toolchains() {
        let sysroot = rustup_sysroot(&name);
        judge(format!("rustup's {name}"), sysroot);
    }
    if distribution_has_rustc() {
        judge(
            "the distribution's compiler".to_owned(),
            Ok(PathBuf::from(DISTRIBUTION)),
        );
    } else {
        reasons.push("the distribution's compiler is not installed".to_owned());
    }
    (fit, reasons)
}

fn distribution_has_rustc() -> bool {
    let rustc = Path::new(DISTRIBUTION).join("bin/rustc");
    // Some distributions package rustup: then this is its proxy, not a compiler.
    rustc
        .canonicalize()
        .is_ok_and(|real| real.file_name().is_some_and(|name| name != "rustup"))
}

fn rustup_toolchains() -> Vec<String> {
    let mut rustup = Command::new("rustup");
    clean(&mut rustup);
    // No rustup: no toolchains of its.
    let text = child::capture(rustup.args(["toolchain", "list"]), LIMIT).unwrap_or_default();
    parse_toolchain_list(&text)
}

/// The names in `rustup toolchain list`, without their `(active, default)`.
fn parse_toolchain_list(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with("no installed toolchains"))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn rustup_sysroot(toolchain: &str) -> anyhow::Result<PathBuf> {
    let mut rustup = Command::new("rustup");
    clean(&mut rustup);
    let text = child::capture(
        rustup.args(["run", toolchain, "rustc", "--print", "sysroot"]),
        LIMIT,
    )?;
    Ok(PathBuf::from(text.trim()))
}

/// Takes out of the environment what would bend a build; where cargo finds its registry stays.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        // `cargo run` points LD_LIBRARY_PATH at its own compiler's libraries.
        let exact = ["CARGO", "RUSTFLAGS", "LD_LIBRARY_PATH"].contains(&text.as_ref());
        if exact || SPOILERS.iter().any(|beginning| text.starts_with(beginning)) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchain_lists_of_old_and_new_rustup() {
        let new =
            "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\nsystem\n";
        assert_eq!(
            parse_toolchain_list(new),
            [
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu",
                "system"
            ]
        );
        assert_eq!(
            parse_toolchain_list("1.95.0-x86_64-unknown-linux-gnu (default)\n"),
            ["1.95.0-x86_64-unknown-linux-gnu"]
        );
        assert!(parse_toolchain_list("no installed toolchains\n").is_empty());
        assert!(parse_toolchain_list("").is_empty());
    }

    #[test]
    fn the_version_of_the_distributions_compiler() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                    commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\ncommit-date: 2026-05-25\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let version = RustcVersion::parse(text).unwrap();
        assert_eq!(
            version.text,
            "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"
        );
        assert_eq!(version.release, "1.96.0");
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert_eq!(version.llvm, "22.1.8");
        assert_eq!(version.llvm_major(), "22");
        assert_eq!(RustcVersion::parse("error: no such command"), None);
        assert_eq!(RustcVersion::parse("rustc 1.96.0\nrelease: 1.96.0\n"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(major_minor("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(major_minor("1.95"), Some((1, 95)));
        assert!(major_minor("1.100.0") > major_minor("1.95.0"));
        assert_eq!(major_minor("one"), None);
        assert_eq!(major_minor("1"), None);
    }
}
