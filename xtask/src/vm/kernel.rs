//! Kernels of Debian's suites, unpacked into the cache directory.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::mirror::Suite;
use crate::{child, workspace};

const LIMIT: Duration = Duration::from_secs(600);
/// How long a kernel is used before a newer one is asked for.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// What probe asks the kernel through, and Debian builds as modules; in the order of their needs.
const MODULES: [&str; 4] = ["unix_diag.ko", "inet_diag.ko", "tcp_diag.ko", "udp_diag.ko"];

/// A kernel by the suite that has it; the newest one moves on with Debian's development.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Release {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "7.2", alias = "newest")]
    V7_2,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        })
    }
}

impl Release {
    /// bind and listen came to io_uring with Linux 6.11.
    pub(super) fn binds_by_io_uring(self) -> bool {
        self >= Self::V6_12
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "sid",
        }
    }
}

/// What Debian calls the kind of processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arch {
    #[default]
    Amd64,
    Arm64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) release: Release,
    pub(super) arch: Arch,
    pub(super) image: PathBuf,
    /// In the order in which they are to be loaded.
    pub(super) modules: Vec<PathBuf>,
}

/// The kernel of a suite, from the cache or from the mirror.
///
/// # Errors
/// If the suite is gone and none is cached.
pub(super) fn fetch(release: Release) -> anyhow::Result<Kernel> {
    fetch_for(release, Arch::Amd64)
}

/// The same for another kind of processor.
pub(super) fn fetch_for(release: Release, arch: Arch) -> anyhow::Result<Kernel> {
    let home = home(release.suite(), arch)?;
    let kept = home.join("kernel");
    let open = |release, kept: &Path| open(release, arch, kept);
    if age(&kept).is_some_and(|age| age < FRESH) {
        return open(release, &kept);
    }
    match renew(release, arch, &home, &kept) {
        Ok(()) => open(release, &kept),
        Err(error) if kept.is_dir() => {
            eprintln!("warning: the cached kernel {release} is used: {error:#}");
            open(release, &kept)
        }
        Err(error) => Err(error),
    }
}

/// Where the downloads from a suite are kept.
pub(super) fn home(suite: &str, arch: Arch) -> anyhow::Result<PathBuf> {
    let name = match arch {
        Arch::Amd64 => suite.to_owned(),
        Arch::Arm64 => format!("{suite}-{arch}"),
    };
    Ok(workspace::cache()?.join("vm").join(name))
}

#[expect(clippy::disallowed_methods, reason = "the age of a download")]
pub(super) fn age(path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).ok()?.modified().ok()?;
    // A time in the future is as good as now.
    Some(SystemTime::now().duration_since(written).unwrap_or_default())
}

fn renew(release: Release, arch: Arch, home: &Path, kept: &Path) -> anyhow::Result<()> {
    println!("{release}: looking for the kernel of {}", release.suite());
    let suite = Suite::open(release.suite(), arch, home.join("apt"))?;
    let packages: Vec<String> = suite
        .needs(&format!("linux-image-{arch}"))?
        .into_iter()
        .filter(|p| is_kernel(p, arch))
        .collect();
    ensure!(
        !packages.is_empty(),
        "the suite {} has no kernel package",
        release.suite()
    );
    let work = tempfile::tempdir_in(home).context("make a directory in the cache")?;
    let (downloads, unpacked, new) = (
        work.path().join("deb"),
        work.path().join("root"),
        work.path().join("kernel"),
    );
    for directory in [&downloads, &unpacked, &new] {
        fs::create_dir(directory)?;
    }
    println!("{release}: {}", packages.join(" "));
    suite.download(&packages, &downloads)?;
    unpack(&downloads, &unpacked)?;
    let files = walk(&unpacked)?;
    let image = files
        .iter()
        .find(|p| name(p).starts_with("vmlinuz"))
        .context("the packages hold no kernel image")?;
    fs::rename(image, new.join("vmlinuz"))?;
    for module in MODULES {
        let file = files
            .iter()
            .find(|p| {
                name(p)
                    .strip_prefix(module)
                    .is_some_and(|rest| !rest.contains('/'))
            })
            .with_context(|| format!("the packages hold no module {module}"))?;
        let to = new.join(name(file));
        fs::rename(file, &to)?;
        if name(file).ends_with(".xz") {
            child::capture(Command::new("xz").arg("-d").arg(&to), LIMIT)?;
        }
        ensure!(
            new.join(module).is_file(),
            "{} is compressed in a way that is not known",
            name(file)
        );
    }
    if kept.exists() {
        fs::remove_dir_all(kept)?;
    }
    fs::rename(&new, kept).context("keep the kernel")
}

/// Unpacks all packages of a directory, and installs none.
pub(super) fn unpack(packages: &Path, to: &Path) -> anyhow::Result<()> {
    for package in fs::read_dir(packages)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(package?.path()).arg(to);
        child::capture(&mut unpack, LIMIT)?;
    }
    Ok(())
}

/// The packages with the image and the modules, not those that only lead to them.
fn is_kernel(package: &str, arch: Arch) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .filter_map(|p| package.strip_prefix(p))
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.ends_with(&format!("-{arch}")))
}

fn open(release: Release, arch: Arch, kept: &Path) -> anyhow::Result<Kernel> {
    let kernel = Kernel {
        release,
        arch,
        image: kept.join("vmlinuz"),
        modules: MODULES.iter().map(|m| kept.join(m)).collect(),
    };
    for file in kernel.modules.iter().chain([&kernel.image]) {
        ensure!(
            file.is_file(),
            "{} is missing: remove {}",
            file.display(),
            kept.display()
        );
    }
    Ok(kernel)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// All regular files below a directory.
fn walk(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => left.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_only_lead_to_a_kernel_are_left_out() {
        for package in [
            "linux-image-6.1.0-50-amd64",
            "linux-binary-7.2.13+deb14-amd64",
            "linux-modules-7.2.13+deb14-amd64",
        ] {
            assert!(is_kernel(package, Arch::Amd64), "{package}");
        }
        for package in [
            "linux-image-amd64",
            "linux-base",
            "linux-image-6.1.0-50-rt-amd64-dbg",
            "linux-image-6.1.0-50-arm64",
        ] {
            assert!(!is_kernel(package, Arch::Amd64), "{package}");
        }
    }
}
