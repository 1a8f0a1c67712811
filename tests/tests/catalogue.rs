//! The tables of `tests/README.md`: each kind of finding, and each rule that healthy daemons force, names its tests, and
//! they exist.

use std::{collections::BTreeSet, fs, path::Path};

use probe_user::engine::finding::Kind;

const RULES: usize = 15;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table under a heading, as cells without blanks and quotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let readme = read(&here().join("README.md"));
    let section = readme.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("there is no section {heading:?}"));
    section
        .lines()
        .skip_while(|l| !l.starts_with('|'))
        .take_while(|l| l.starts_with('|'))
        .skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|c| c.trim().replace('`', "")).collect()
        })
        .collect()
}

/// The names in a cell, which are separated by commas.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    let names = cell.split(',').map(str::trim);
    names.inspect(move |name| assert!(!name.is_empty(), "an empty name in {cell:?}"))
}

/// Fails unless `FILE::FUNCTION` is a test in that directory.
fn assert_is_test(dir: &Path, name: &str) {
    let (file, function) = name
        .split_once("::")
        .unwrap_or_else(|| panic!("{name:?} is not FILE::FUNCTION"));
    let source = read(&dir.join(format!("{file}.rs")));
    assert!(
        source.contains(&format!("#[test]\nfn {function}()")),
        "{name} is no test in {}",
        dir.display()
    );
}

#[test]
fn every_kind_has_its_tests() {
    let rows = table("Finding → tests");
    let listed: Vec<&str> = rows.iter().map(|r| r[0].as_str()).collect();
    let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
    assert_eq!(listed, kinds, "left: the table; right: the kinds");

    let (e2e, unit) = (
        here().join("tests"),
        here().join("../probe-user/src/engine/tests"),
    );
    for row in &rows {
        let [kind, units, traces, tests] = &row[..] else {
            panic!("a row has four cells: {row:?}");
        };
        names(units).for_each(|name| assert_is_test(&unit, name));
        names(tests).for_each(|name| assert_is_test(&e2e, name));
        for name in names(traces) {
            let expected = read(&here().join(format!("traces/{name}.expected.jsonl")));
            assert!(here().join(format!("traces/{name}.jsonl")).is_file(), "{name}");
            assert!(
                expected.contains(&format!("\"kind\":\"{kind}\"")),
                "the recording {name} has no {kind}"
            );
        }
    }
}

#[test]
fn every_daemon_has_its_life_and_its_failure() {
    let rows = table("Daemon → tests");
    let listed: Vec<&str> = rows.iter().map(|r| r[0].as_str()).collect();
    let directory = here().join("../packaging/examples");
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let examples: BTreeSet<String> = entries
        .map(|e| {
            e.expect("entry")
                .file_name()
                .to_string_lossy()
                .replace(".toml", "")
        })
        .collect();
    assert_eq!(
        listed,
        examples.iter().map(String::as_str).collect::<Vec<_>>(),
        "left: the table; right: the starter configurations"
    );

    let dir = here().join("tests/daemons");
    for row in &rows {
        let [daemon, lives, failures, kinds] = &row[..] else {
            panic!("a row has four cells: {row:?}");
        };
        for name in names(lives).chain(names(failures)) {
            assert_is_test(&dir, name);
        }
        let (file, _) = names(failures)
            .next()
            .and_then(|name| name.split_once("::"))
            .expect("FILE::FUNCTION");
        let source = read(&dir.join(format!("{file}.rs")));
        assert!(
            source.contains(&format!("Site::new(\"{daemon}\"")) || source.contains(&format!("\"{daemon}\",")),
            "{file}.rs does not use the example {daemon}"
        );
        for kind in names(kinds) {
            assert!(Kind::ALL.iter().any(|k| k.name() == kind), "{kind} is no kind");
            assert!(
                source.contains(&format!("\"{kind}\"")),
                "{file}.rs does not expect {kind}"
            );
        }
    }
}

#[test]
fn every_rule_of_healthy_daemons_has_its_counterpart() {
    let rows = table("Healthy daemons");
    let numbers: BTreeSet<usize> = rows
        .iter()
        .map(|r| {
            r[0].split('.')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("a number")
        })
        .collect();
    assert_eq!(numbers, (1..=RULES).collect());

    for row in &rows {
        let [_, healthy, counterpart] = &row[..] else {
            panic!("a row has three cells: {row:?}");
        };
        for name in names(healthy).chain(names(counterpart)) {
            assert_is_test(&here().join("tests"), name);
        }
    }
}
