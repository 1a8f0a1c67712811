//! `cargo xtask protections --without`: shows that the tests are ones. A copy of the sources is built once, in which each protection
//! asks whether it is there; each test passes with all of them, and fails as soon as the one that it holds is taken out.

mod rules;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use self::{rules::RULES, table::TABLE};
use super::Tests;
use crate::{child, workspace};

/// A change of the sources, and who notices it.
struct Without {
    what: &'static str,
    file: &'static str,
    /// Each stands there once, and is replaced. [`GONE`] in what takes its place is whether the protection is taken out; where that
    /// stands in none of them, all is changed for the tests of this one alone. What is held in several files stands several times.
    edits: &'static [(&'static str, &'static str)],
    tests: &'static [(Tests, &'static str)],
}

const GONE: &str = "GONE";
/// Names the protection that is taken out, to the test, probe, its spawner, and whoever runs it as somebody else.
const SWITCH: &str = "/run/probe-without";
/// One build, mostly.
const LIMIT: Duration = Duration::from_secs(1800);
/// Seconds that a test waits: a failure is to mean something on a busy machine too, where a daemon is not ready at once.
const PATIENCE: (&str, &str) = ("PROBE_TEST_PATIENCE", "30");
/// A test that goes on for longer has not passed: some wait for ever. None that fails takes three minutes.
const TEST: Duration = Duration::from_secs(240);

/// What the copy's library has more.
const ASKS: &str = "
/// Whether a protection is taken out.
pub fn is_gone(what: &str) -> bool {
    static GONE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    GONE.get_or_init(|| std::fs::read_to_string(\"SWITCH\").unwrap_or_default()) == what
}
";

type Test = (Tests, &'static str);

impl Without {
    /// Whether it can be taken out of what is built with all of them.
    fn is_switched(&self) -> bool {
        self.edits.iter().any(|(_, to)| to.contains(GONE))
    }

    /// Changes the copy.
    fn edit(&self, copy: &Path) -> anyhow::Result<()> {
        let path = copy.join(self.file);
        let mut text = read(&path)?;
        for (from, to) in self.edits {
            ensure!(
                text.matches(from).count() == 1,
                "{}: not once: {from}",
                path.display()
            );
            text = text.replacen(
                from,
                &to.replace(GONE, &format!("crate::is_gone({:?})", self.what)),
                1,
            );
        }
        write(&path, &text)
    }
}

fn all() -> impl Iterator<Item = &'static Without> {
    TABLE.iter().chain(RULES)
}

/// Those whose names contain `filter`.
pub(super) fn run(filter: &str) -> anyhow::Result<()> {
    let named = |w: &Without, test: &Test| w.what.contains(filter) || test.1.contains(filter);
    let chosen: Vec<(&Without, Test)> = all()
        .flat_map(|w| w.tests.iter().map(move |test| (w, *test)))
        .filter(|(w, test)| named(w, test))
        .collect();
    ensure!(!chosen.is_empty(), "no protection has {filter:?} in its name");
    let place = workspace::target_dir()?.join("without");
    let copy = Copy {
        sources: place.join("sources"),
        target: place.join("target"),
    };
    copy.make()?;
    copy.share()?;
    let _switch = Switch;
    let (switched, alone): (Vec<_>, Vec<_>) = chosen.iter().partition(|(w, _)| w.is_switched());
    let mut rows = Vec::new();
    let mut all = true;
    let mut judge = |w: &Without, test: Test, with: bool, without: &Outcome| {
        let word = match (with, without.passed) {
            (false, _) => "FAILS ALSO WITH IT",
            (true, true) => "PASSES",
            (true, false) => "fails",
        };
        all &= word == "fails";
        let row = format!("{:<52} {word:<7} {}", w.what, test.1);
        println!("\n== without {row}\n{}", without.why);
        rows.push(row);
    };
    let with = copy.with_all(switched.iter().map(|(_, test)| *test))?;
    for (w, test) in &switched {
        if child::interrupted() {
            break;
        }
        Switch::set(w.what)?;
        judge(w, *test, with[test.1], &copy.test(*test)?);
    }
    Switch::set("")?;
    for (w, test) in &alone {
        if child::interrupted() {
            break;
        }
        let with = copy.with_all([*test].into_iter())?;
        let path = copy.sources.join(w.file);
        let text = read(&path)?;
        w.edit(&copy.sources)?;
        let without = copy.build(test.0).and_then(|()| copy.test(*test));
        write(&path, &text)?;
        judge(w, *test, with[test.1], &without?);
    }
    println!("\n{:<52} {:<7} test\n{}", "without", "", rows.join("\n"));
    ensure!(all, "a protection can be taken out, and no test notices");
    Ok(())
}

/// Says which protection is taken out, and none at the end.
struct Switch;

impl Switch {
    fn set(what: &str) -> anyhow::Result<()> {
        write(Path::new(SWITCH), what)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        _ = fs::remove_file(SWITCH);
    }
}

struct Outcome {
    passed: bool,
    /// The line that says what was wrong.
    why: String,
}

/// The sources in which protections can be taken out, and what is built of them.
struct Copy {
    sources: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Everything that git knows or would take, changed. What is the same stays as it is, so that it is not built anew.
    fn make(&self) -> anyhow::Result<()> {
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace::root());
        let names = child::capture(&mut git, Duration::from_secs(60))?;
        let new = self.sources.with_extension("new");
        for name in names.lines() {
            // A file that was removed is still known.
            let Ok(bytes) = fs::read(workspace::root().join(name)) else {
                continue;
            };
            write(&new.join(name), &bytes)?;
        }
        for w in all().filter(|w| w.is_switched()) {
            w.edit(&new)?;
        }
        let library = new.join("probe-user/src/lib.rs");
        write(&library, &(read(&library)? + &ASKS.replace("SWITCH", SWITCH)))?;
        for name in names.lines() {
            let Ok(bytes) = fs::read(new.join(name)) else {
                continue;
            };
            let to = self.sources.join(name);
            if !fs::read(&to).is_ok_and(|old| old == bytes) {
                write(&to, &bytes)?;
            }
        }
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))
    }

    /// Takes over what is built of others' crates: it has the same names there. Links cost no room.
    fn share(&self) -> anyhow::Result<()> {
        let (from, to) = (workspace::target_dir()?.join("debug"), self.target.join("debug"));
        if to.exists() {
            return Ok(());
        }
        fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
        for part in ["deps", "build", ".fingerprint"] {
            if from.join(part).exists() {
                let mut cp = Command::new("cp");
                cp.args(["--archive", "--link"]).arg(from.join(part)).arg(&to);
                child::show(&mut cp, LIMIT)?;
            }
        }
        Ok(())
    }

    fn cargo(&self, verb: &str) -> Command {
        let mut cargo = workspace::cargo();
        cargo
            .current_dir(&self.sources)
            .env("CARGO_TARGET_DIR", &self.target)
            .arg(verb);
        cargo
    }

    fn build(&self, tests: Tests) -> anyhow::Result<()> {
        if let Tests::E2e(_) = tests {
            child::show(self.cargo("build").args(["--package", "probe-user"]), LIMIT)?;
        }
        let mut build = self.cargo("test");
        tests.of(build.arg("--no-run"));
        child::show(&mut build, LIMIT).context("it does not compile any more")
    }

    /// Which of these pass while nothing is taken out.
    fn with_all(&self, tests: impl Iterator<Item = Test>) -> anyhow::Result<BTreeMap<&'static str, bool>> {
        let mut programs: BTreeMap<Tests, BTreeSet<&'static str>> = BTreeMap::new();
        for (program, name) in tests {
            programs.entry(program).or_default().insert(name);
        }
        let mut passed: BTreeMap<_, _> = programs.values().flatten().map(|name| (*name, false)).collect();
        for (program, names) in programs {
            self.build(program)?;
            let mut test = self.cargo("test");
            super::run_tests(test.env(PATIENCE.0, PATIENCE.1), program, &names, &mut passed)?;
        }
        Ok(passed)
    }

    /// Runs one test that is built.
    fn test(&self, (tests, name): Test) -> anyhow::Result<Outcome> {
        let mut test = self.cargo("test");
        tests.of(&mut test);
        test.args(["--", "--exact", name]).env(PATIENCE.0, PATIENCE.1);
        println!("$ {}", child::describe(&test));
        let (mut ran, mut lines) = (false, Vec::new());
        let status = child::run(&mut test, TEST, |line| {
            ran |= line == "running 1 test";
            lines.push(line.to_owned());
        });
        ensure!(ran, "there is no test {name}:\n{}", lines.join("\n"));
        let panicked = lines.iter().position(|l| l.contains("panicked at"));
        let said = panicked.map_or(&lines[lines.len()..], |at| &lines[at..lines.len().min(at + 3)]);
        Ok(Outcome {
            passed: status.as_ref().is_ok_and(|s| s.success()),
            why: match &status {
                Ok(_) => said.join("\n"),
                Err(error) => format!("{error:#}"),
            },
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let parent = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protection_stands_where_it_is_taken_out() {
        let mut texts = BTreeMap::new();
        for w in all() {
            let text = texts
                .entry(w.file)
                .or_insert_with(|| fs::read_to_string(workspace::root().join(w.file)).unwrap());
            for (from, to) in w.edits {
                assert_eq!(text.matches(from).count(), 1, "{}: {from}", w.file);
                // As the copy has it, where all are changed.
                if w.is_switched() {
                    *text = text.replacen(from, to, 1);
                }
            }
            let held = all().any(|other| other.what == w.what && !other.tests.is_empty());
            assert!(!w.edits.is_empty() && held, "{}", w.what);
        }
    }
}
