//! Installs, upgrades, removes and purges the package in a Debian of its own, and compares the whole tree with what it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::unistd::geteuid;

use crate::{apt, child, vm, workspace};

const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What dpkg and apt keep books in; what dpkg knows of probe is asked below.
const BOOKS: [&str; 6] = [
    "var/lib/dpkg/",
    "var/lib/apt/",
    "var/log/",
    "var/cache/",
    // The group files' predecessors, which groupadd and groupdel write.
    "etc/group-",
    "etc/gshadow-",
];

/// What makes systemd start it.
const WANTED: &str = "etc/systemd/system/multi-user.target.wants/probe.service";

/// # Errors
/// Names what does not work, or what is left.
pub(super) fn test(package: &Path, later: &Path) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "only root can make a Debian to test in");
    let root = Root::make()?;
    let before = root.tree()?;
    for deb in [package, later] {
        let to = root
            .path()
            .join("tmp")
            .join(deb.file_name().context("a package has a name")?);
        fs::copy(deb, &to).with_context(|| format!("copy {}", deb.display()))?;
    }
    let named = |deb: &Path| format!("/tmp/{}", deb.file_name().unwrap_or_default().to_string_lossy());

    root.run(&[
        "apt-get",
        "-q",
        "-y",
        "install",
        "--no-install-recommends",
        &named(package),
    ])?;
    root.check_installed()?;
    // What an administrator has changed stays.
    let file = root.path().join("etc/probe/probe.toml");
    let mut text = fs::read_to_string(&file).context("read the default configuration")?;
    text.push_str("\n[[service]]\nname = \"ours\"\nlisten = [\"tcp:8080\"]\n");
    fs::write(&file, &text)?;
    for (path, text) in [
        ("etc/probe/probe.d/more.toml", ""),
        ("var/lib/probe/probe.db", "history"),
    ] {
        fs::write(root.path().join(path), text).with_context(|| format!("write /{path}"))?;
    }
    ensure!(root.is_enabled(), "the installation did not enable the unit");
    // As `systemctl disable` does it.
    fs::remove_file(root.path().join(WANTED)).context("disable the unit")?;
    root.run(&["dpkg", "--install", &named(later)])?;
    root.check_installed()?;
    ensure!(
        fs::read_to_string(&file)? == text,
        "the upgrade changed probe.toml"
    );
    ensure!(!root.is_enabled(), "the upgrade enabled a unit that was disabled");
    println!("package: upgraded; a changed configuration and a disabled unit stay as they are");

    root.run(&["dpkg", "--remove", "probe"])?;
    ensure!(
        fs::read_to_string(&file)? == text,
        "the removal took the configuration along"
    );
    ensure!(
        !root.path().join("usr/bin/probe").exists(),
        "the program is still there"
    );
    root.run(&["dpkg", "--install", &named(later)])?;
    root.run(&["dpkg", "--purge", "probe"])?;
    for deb in [package, later] {
        fs::remove_file(root.path().join(named(deb).trim_start_matches('/')))?;
    }
    let left = difference(&before, &root.tree()?);
    ensure!(left.is_empty(), "after the purge:\n  {}", left.join("\n  "));
    println!("package: installed, upgraded, removed, installed again, purged; left behind: nothing");
    Ok(())
}

/// A Debian of this machine's suite, gone with this value.
struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    fn make() -> anyhow::Result<Self> {
        apt::install(&["debootstrap"])?;
        let home = workspace::cache()?.join("package");
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let archive = home.join(format!("{}.tar", vm::own_suite()?));
        let directory = tempfile::tempdir_in(&home).context("make a directory in the cache")?;
        let root = Self { directory };
        if !archive.is_file() {
            println!("package: making a {}", vm::own_suite()?);
            vm::bootstrap(&root.path(), &["init-system-helpers"])?;
            let mut tar = Command::new("tar");
            let new = home.join("new.tar");
            tar.arg("-C").arg(root.path()).arg("-cf").arg(&new).arg(".");
            child::capture(&mut tar, LIMIT)?;
            fs::rename(&new, &archive)?;
        } else {
            fs::create_dir_all(root.path())?;
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(root.path()).arg("-xf").arg(&archive);
            child::capture(&mut tar, LIMIT)?;
        }
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Runs a command in it. What it mounts and starts goes with its name spaces.
    fn run(&self, command: &[&str]) -> anyhow::Result<String> {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--pid", "--fork", "--kill-child", "--root"])
            .arg(self.path())
            .args(["--wd", "/", "--mount-proc"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        child::capture(&mut unshare, LIMIT)
    }

    fn is_enabled(&self) -> bool {
        self.path().join(WANTED).is_symlink()
    }

    /// The program runs there, its group and its directories exist, and so do its pages.
    fn check_installed(&self) -> anyhow::Result<()> {
        let version = self.run(&["probe", "--version"])?;
        let wanted = format!("probe {}", env!("CARGO_PKG_VERSION"));
        ensure!(version.trim() == wanted, "{wanted} says that it is {version}");
        self.run(&["probe", "config", "check"])?;
        self.run(&["getent", "group", "probe"])?;
        for path in [
            "etc/probe/probe.toml",
            "usr/lib/systemd/system/probe.service",
            "usr/lib/systemd/system/probe.socket",
            "usr/lib/sysusers.d/probe.conf",
            "usr/lib/tmpfiles.d/probe.conf",
            "usr/share/bash-completion/completions/probe",
            "usr/share/zsh/vendor-completions/_probe",
            "usr/share/fish/vendor_completions.d/probe.fish",
            "usr/share/man/man1/probe.1.gz",
            "usr/share/man/man1/probe-watch.1.gz",
            "usr/share/man/man5/probe.toml.5.gz",
            "usr/share/probe/prometheus/probe.rules.yml",
            "usr/share/probe/grafana/probe.json",
            "usr/share/doc/probe/changelog.Debian.gz",
            "usr/share/doc/probe/copyright",
        ] {
            ensure!(self.path().join(path).is_file(), "the package has no /{path}");
        }
        Ok(())
    }

    /// Every path but what dpkg keeps books in, and what it is: type, mode, owner, and the content's size and time.
    fn tree(&self) -> anyhow::Result<BTreeMap<PathBuf, String>> {
        let mut tree = BTreeMap::new();
        let root = self.path();
        walk(&root, &root, &mut tree)?;
        // The books of accounts: their content, because they are written anew.
        for book in ["etc/group", "etc/gshadow"] {
            tree.insert(PathBuf::from(book), fs::read_to_string(root.join(book))?);
        }
        let known = self.run(&["dpkg-query", "--show", "--showformat=${Package} ${Status}\\n"])?;
        let of_probe: Vec<&str> = known.lines().filter(|l| l.starts_with("probe ")).collect();
        tree.insert(PathBuf::from("(dpkg)"), of_probe.join(", "));
        Ok(tree)
    }
}

fn walk(root: &Path, directory: &Path, tree: &mut BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        let text = name.to_string_lossy();
        if BOOKS.iter().any(|b| text.starts_with(b)) || text == "etc/group" || text == "etc/gshadow" {
            continue;
        }
        let is = fs::symlink_metadata(&path)?;
        if is.is_dir() {
            tree.insert(
                name,
                format!("directory {:o} {}:{}", is.mode(), is.uid(), is.gid()),
            );
            walk(root, &path, tree)?;
        } else {
            let content = format!(
                "{:o} {}:{} {} {}",
                is.mode(),
                is.uid(),
                is.gid(),
                is.size(),
                is.mtime()
            );
            tree.insert(name, content);
        }
    }
    Ok(())
}

fn difference(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, is) in after {
        match before.get(path) {
            None => lines.push(format!("new: /{}", path.display())),
            Some(was) if was != is => lines.push(format!("changed: /{}: was {was}, is {is}", path.display())),
            Some(_) => {}
        }
    }
    for path in before.keys().filter(|p| !after.contains_key(*p)) {
        lines.push(format!("gone: /{}", path.display()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_changed_or_gone_is_told() {
        let tree = |of: &[(&str, &str)]| {
            of.iter()
                .map(|(p, t)| (PathBuf::from(p), (*t).to_owned()))
                .collect()
        };
        let before = tree(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = tree(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(
            difference(&before, &after),
            ["changed: /b: was 1, is 2", "new: /d", "gone: /c"]
        );
    }
}
