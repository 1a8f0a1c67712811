//! Packages of another Debian suite, from the mirror that this machine's apt is configured with. apt keeps a state of its own
//! for that under the cache directory: what the machine has installed and which lists it has stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::kernel::Arch;
use crate::child;

const LIMIT: Duration = Duration::from_secs(600);
/// Where the package debian-archive-keyring keeps the keys of all living suites.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of the mirror.
pub(super) struct Suite {
    name: String,
    arch: Arch,
    /// apt's own directory for it.
    home: PathBuf,
}

impl Suite {
    /// Reads the suite's package lists, verified by apt.
    ///
    /// # Errors
    /// If no mirror of this machine has the suite.
    pub(super) fn open(name: &str, arch: Arch, home: PathBuf) -> anyhow::Result<Self> {
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            let directory = home.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        }
        fs::write(home.join("status"), "").context("create apt's state")?;
        let suite = Self {
            name: name.to_owned(),
            arch,
            home,
        };
        let mut problem = anyhow::anyhow!("apt is configured with no mirror of this distribution");
        for mirror in mirrors()? {
            match suite.update(&mirror) {
                Ok(()) => return Ok(suite),
                Err(error) => problem = error,
            }
        }
        Err(problem.context(format!("the suite {name} can't be had")))
    }

    fn update(&self, mirror: &str) -> anyhow::Result<()> {
        let keyring = match Path::new(KEYRING).is_file() {
            true => format!("[signed-by={KEYRING}] "),
            false => String::new(),
        };
        let line = format!("deb {keyring}{mirror} {} main\n", self.name);
        fs::write(self.home.join("sources.list"), line).context("write a list of sources")?;
        // Without this a failed download is only a warning.
        child::capture(
            self.apt("apt-get")
                .args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]),
            LIMIT,
        )?;
        Ok(())
    }

    /// The names of `package` and of everything that it needs.
    pub(super) fn needs(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let text = child::capture(
            self.apt("apt-cache").args([
                "depends",
                "--recurse",
                "--no-recommends",
                "--no-suggests",
                "--no-conflicts",
                "--no-breaks",
                "--no-replaces",
                "--no-enhances",
                package,
            ]),
            LIMIT,
        )?;
        Ok(text
            .lines()
            .filter(|l| !l.starts_with([' ', '<', '|']))
            .map(str::to_owned)
            .collect())
    }

    /// Downloads packages into `directory`.
    pub(super) fn download(&self, packages: &[String], directory: &Path) -> anyhow::Result<()> {
        child::capture(
            self.apt("apt-get")
                .args(["-q", "download"])
                .args(packages)
                .current_dir(directory),
            LIMIT,
        )?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |path: &str| self.home.join(path).display().to_string();
        for option in [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // apt's own user may not enter this user's cache.
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// The mirrors from which this machine gets its own suite.
pub(super) fn mirrors() -> anyhow::Result<Vec<String>> {
    let own = own_suite()?;
    let text = child::capture(
        Command::new("apt-get").args(["--print-uris", "update"]),
        Duration::from_secs(60),
    )?;
    Ok(own_mirrors(&text, &own))
}

/// The suite that this machine has.
pub(crate) fn own_suite() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let Some(own) = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME=")) else {
        bail!("/etc/os-release names no suite");
    };
    Ok(own.trim_matches('"').to_owned())
}

/// From lines such as `'http://HOST/debian/dists/SUITE/InRelease' FILE 0`.
fn own_mirrors(uris: &str, suite: &str) -> Vec<String> {
    let end = format!("/dists/{suite}/InRelease'");
    uris.lines()
        .filter_map(|l| {
            l.strip_prefix('\'')?
                .split_whitespace()
                .next()?
                .strip_suffix(&end)
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mirror_of_the_own_suite_counts() {
        let uris = "\
'http://a.example/debian/dists/bookworm/InRelease' a_InRelease 0 
'http://a.example/debian/dists/bookworm-updates/InRelease' b_InRelease 0 
'https://b.example/apt/dists/other/InRelease' c_InRelease 0 
";
        assert_eq!(own_mirrors(uris, "bookworm"), ["http://a.example/debian"]);
        assert_eq!(own_mirrors(uris, "trixie"), Vec::<String>::new());
    }
}
