//! README, the book and the other pages: links lead somewhere, every finding has its section, and what is shown is what happens.
//!
//! - `console` blocks are run, each in a shell and a directory of its own, where `tests` and `packaging` are those of the repository. Lines
//!   that begin with `# ` or `$ ` are commands, `> ` continues one, `? N` is its exit code where that is not 0, everything else is its
//!   output. `…` stands for anything, alone in a line for any lines. Numbers and names of temporary directories may differ.
//! - `sh` blocks are parsed by the shell, and the options of each `probe` in them must exist.
//! - `toml` blocks are configurations, and valid; `json` blocks are JSON.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Output, Sandbox, patience, probe, probe_binary, run, run_within};
use probe_user::engine::finding::Kind;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages: Vec<PathBuf> = [
        "README",
        "ARCHITECTURE",
        "CHANGELOG",
        "CONTRIBUTING",
        "SECURITY",
        "tests/README",
    ]
    .iter()
    .map(|name| root.join(format!("{name}.md")))
    .collect();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("docs").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// A fenced block: where it begins, what it is, its lines.
#[derive(Debug)]
struct Block {
    line: usize,
    kind: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (i, line) in page.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            if !open {
                blocks.push(Block {
                    line: i + 1,
                    kind: kind.trim().to_owned(),
                    text: String::new(),
                });
            }
            open = !open;
        } else if open && let Some(block) = blocks.last_mut() {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    assert!(!open, "a block has no end");
    blocks
}

/// Everything but fenced blocks.
fn prose(page: &str) -> String {
    let mut open = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            open = !open;
        } else if !open {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// As the forges and mdbook name a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|l| l.starts_with('#'));
    headings.map(|l| anchor(l.trim_start_matches('#'))).collect()
}

/// Targets of `[text](target)`, without what stands in backquotes.
fn links(page: &str) -> Vec<String> {
    let prose: String = prose(page).split('`').step_by(2).collect();
    let after = prose.split("](").skip(1);
    after
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    let mut count = 0;
    for path in pages() {
        let page = read(&path);
        for link in links(&page).into_iter().filter(|l| !l.contains("://")) {
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().expect("a directory").join(file),
            };
            // The book is made of that directory alone.
            if path.starts_with(root().join("docs")) && link.starts_with("../") && link.contains(".md") {
                problems.push(format!("{}: {link}: it leads out of the book", path.display()));
            }
            if !target.exists() {
                problems.push(format!("{}: {link}: there is no such file", path.display()));
            } else if !heading.is_empty() && !anchors(&read(&target)).contains(heading) {
                problems.push(format!("{}: {link}: there is no such heading", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let summary = read(&docs.join("SUMMARY.md"));
    let listed: BTreeSet<PathBuf> = links(&summary).into_iter().map(|l| docs.join(l)).collect();
    for page in pages().into_iter().filter(|p| p.starts_with(&docs)) {
        assert!(
            listed.contains(&page) || page.ends_with("SUMMARY.md"),
            "SUMMARY.md does not list {}",
            page.display()
        );
    }
}

#[test]
fn every_finding_has_its_section() {
    let page = read(&root().join("docs/findings.md"));
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    let named: Vec<&str> = sections
        .iter()
        .map(|s| s.lines().next().unwrap_or_default().trim_matches('`'))
        .collect();
    let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
    assert_eq!(named, kinds);
    for section in sections {
        assert!(section.contains("\n**What to do.** "), "{section}");
        assert!(section.contains("```"), "no example: {section}");
    }
    let readme = read(&root().join("README.md"));
    for kind in kinds {
        assert!(readme.contains(&format!("| `{kind}` | ")), "README: {kind}");
    }
}

#[test]
fn configurations_and_json_are_valid() {
    let sandbox = Sandbox::new();
    let mut count = 0;
    let mut check = |what: &str, text: &str| {
        let file = sandbox.write("page.toml", text);
        let output = run(probe(&["config", "check", "--config"]).arg(file));
        assert_eq!(output.code, Some(0), "{what}: {output:?}");
        count += 1;
    };
    for path in pages() {
        for block in blocks(&read(&path)) {
            let what = format!("{}:{}", path.display(), block.line);
            match block.kind.as_str() {
                "toml" => check(&what, &block.text),
                "json" if !block.text.contains('…') => {
                    for line in
                        serde_json::Deserializer::from_str(&block.text).into_iter::<serde_json::Value>()
                    {
                        line.unwrap_or_else(|e| panic!("{what}: {e}"));
                    }
                }
                _ => {}
            }
        }
    }
    // The file that the package installs, and what it has in comments.
    let shipped = read(&root().join("packaging/etc/probe.toml"));
    check("packaging/etc/probe.toml", &shipped);
    let (_, examples) = shipped.split_once("\n# [[service]]").expect("examples");
    let examples: Vec<&str> = examples.lines().map(|l| l.trim_start_matches("# ")).collect();
    let examples = examples.join("\n").replace("/usr/local/bin/page", "/bin/true");
    check(
        "the comments of packaging/etc/probe.toml",
        &format!("[[service]]{examples}"),
    );
    assert!(count > 5, "only {count} configurations were found");
}

#[test]
fn shell_blocks_name_options_that_exist() {
    let mut problems = Vec::new();
    for path in pages() {
        for block in blocks(&read(&path)).into_iter().filter(|b| b.kind == "sh") {
            let what = format!("{}:{}", path.display(), block.line);
            let parsed = run(Command::new("bash").args(["-n", "-c", &block.text]));
            if parsed.code != Some(0) {
                problems.push(format!("{what}: {parsed:?}"));
            }
            for line in block.text.lines() {
                let words: Vec<&str> = line
                    .split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect();
                let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
                let Some(arguments) = words.strip_prefix(&["probe"]) else {
                    continue;
                };
                let end = arguments
                    .iter()
                    .position(|w| matches!(*w, "|" | ">" | "&&" | ";" | "&" | "--"));
                // With this last, options are parsed and nothing is done.
                let mut command = probe(&arguments[..end.unwrap_or(arguments.len())]);
                let output = run(command.arg("--help"));
                if output.code != Some(0) {
                    problems.push(format!("{what}: {line}: {output:?}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// A command of a `console` block, and what it must print.
#[derive(Debug)]
struct Step {
    command: String,
    output: String,
    code: i32,
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // A line of output may begin with `# ` too: the one that `probe config discover` prints.
    for line in block.text.lines() {
        let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        let is_output = line.starts_with("# Found by ");
        match (command.filter(|_| !is_output), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                output: String::new(),
                code: 0,
            }),
            (None, None) => panic!("a block begins with output: {line}"),
            (None, Some(step)) => {
                if let Some(more) = line.strip_prefix("> ").or_else(|| (line == ">").then_some("")) {
                    step.command = format!("{}\n{more}", step.command);
                } else if let Some(code) = line.strip_prefix("? ") {
                    step.code = code.parse().expect("an exit code");
                } else {
                    step.output.push_str(line);
                    step.output.push('\n');
                }
            }
        }
    }
    steps
}

const MARK: &str = "--- end of step";

/// Runs all steps in one shell; what each printed, and its exit code.
fn play(sandbox: &Sandbox, steps: &[Step]) -> Vec<(String, i32)> {
    let home = sandbox.path("session");
    fs::create_dir_all(&home).expect("a directory");
    for name in ["tests", "packaging"] {
        std::os::unix::fs::symlink(root().join(name), home.join(name)).expect("a link");
    }
    let mut script = String::from("exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    for step in steps {
        script.push_str(&format!("{}\necho \"{MARK} $?\"\n", step.command));
    }
    let file = sandbox.write("session.sh", &script);
    let path = format!(
        "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        probe_binary().parent().expect("a directory").display()
    );
    let mut bash = Command::new("bash");
    bash.arg(file).current_dir(&home).env_clear();
    bash.env("PATH", path).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    let limit = patience() * u32::try_from(steps.len()).expect("few steps");
    let Output { stdout, .. } = run_within(limit, &mut bash);
    let mut results = Vec::new();
    let mut printed = String::new();
    for line in stdout.lines() {
        match line.strip_prefix(MARK) {
            Some(code) => results.push((std::mem::take(&mut printed), code.trim().parse().expect("a code"))),
            None => {
                printed.push_str(line);
                printed.push('\n');
            }
        }
    }
    assert_eq!(results.len(), steps.len(), "the shell ended early: {stdout}");
    results
}

/// Without what differs from run to run: numbers, and names of temporary directories.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (i, part) in text.split("/probe-test-").enumerate() {
        let part = match i {
            0 => part,
            _ => {
                plain.push_str("/probe-test-*");
                part.trim_start_matches(|c: char| c.is_ascii_alphanumeric())
            }
        };
        for c in part.chars() {
            if !c.is_ascii_digit() {
                plain.push(c);
            } else if !plain.ends_with('0') {
                plain.push('0');
            }
        }
    }
    plain
}

fn line_fits(wanted: &str, line: &str) -> bool {
    let mut rest = line;
    let parts: Vec<&str> = wanted.split('…').collect();
    for (i, part) in parts.iter().enumerate() {
        let at = match i {
            0 => rest.starts_with(part).then_some(0),
            _ if i + 1 == parts.len() => rest.ends_with(part).then(|| rest.len() - part.len()),
            _ => rest.find(part),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    parts.len() > 1 || rest.is_empty()
}

fn fits(wanted: &[&str], lines: &[&str]) -> bool {
    match (wanted, lines) {
        ([], lines) => lines.is_empty(),
        (["…", wanted @ ..], lines) => (0..=lines.len()).any(|n| fits(wanted, &lines[n..])),
        (_, []) => false,
        ([wanted, more @ ..], [line, lines @ ..]) => line_fits(wanted, line) && fits(more, lines),
    }
}

#[test]
fn what_is_shown_is_what_happens() {
    let mut problems = Vec::new();
    let mut count = 0;
    for path in pages() {
        for block in blocks(&read(&path)).into_iter().filter(|b| b.kind == "console") {
            let sandbox = Sandbox::new();
            let steps = steps(&block);
            for (step, (printed, code)) in steps.iter().zip(play(&sandbox, &steps)) {
                count += 1;
                let (wanted, got) = (plain(&step.output), plain(&printed));
                let (wanted, got): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), got.lines().collect());
                if code != step.code || !fits(&wanted, &got) {
                    problems.push(format!(
                        "{}:{}: {}\nexit code {code}, expected {}; it printed\n{printed}expected\n{}",
                        path.display(),
                        block.line,
                        step.command,
                        step.code,
                        step.output
                    ));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn the_judge_of_output_is_strict() {
    assert!(fits(&["a 0 …", "…", "z"], &["a 0 b", "c", "d", "z"]));
    assert!(fits(&["…"], &[]));
    assert!(!fits(&["a"], &["a", "b"]));
    assert!(!fits(&["a…c"], &["a b"]));
    assert!(!fits(&["a"], &[]));
    assert_eq!(
        plain("12:30 /tmp/probe-test-aB3/x (77)"),
        "0:0 /tmp/probe-test-*/x (0)"
    );
}
