//! `cargo xtask protections`: what stands between probe, the host and those who want to misuse either, each with the test that
//! fails without it.

mod without;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only print the table, run nothing
    #[arg(long)]
    list: bool,
    /// Take protections out of a copy of the sources, one after the other: the test of each must fail
    #[arg(long, conflicts_with = "list")]
    without: bool,
    /// With --without: only those whose name contains this
    #[arg(value_name = "FILTER", requires = "without")]
    filter: Option<String>,
}

/// Building, mostly.
const LIMIT: Duration = Duration::from_secs(1800);
const UNIT: &str = "packaging/systemd/probe.service";

/// What is run to hold a protection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tests {
    /// Of the library.
    Unit,
    /// A test program of the crate of end-to-end tests.
    E2e(&'static str),
    Xtask,
}

impl Tests {
    /// Names the program to cargo.
    fn of(self, cargo: &mut Command) {
        match self {
            Self::Unit => cargo.args(["--package", "probe-user", "--lib"]),
            Self::Xtask => cargo.args(["--package", "xtask", "--bins"]),
            Self::E2e(program) => cargo.args(["--package", "probe-tests", "--test", program]),
        };
    }
}

struct Protection {
    what: &'static str,
    tests: Tests,
    test: &'static str,
}

const fn p(what: &'static str, tests: Tests, test: &'static str) -> Protection {
    Protection { what, tests, test }
}

const DAEMON: Tests = Tests::E2e("daemon");
const RECLAIM: Tests = Tests::E2e("reclaim");

#[rustfmt::skip]
const TABLE: &[Protection] = &[
    p("eight capabilities in every thread, the bounding set too", DAEMON, "privileges::every_thread_has_the_named_capabilities_no_new_privileges_and_a_filter"),
    p("no new privileges in every thread", DAEMON, "privileges::every_thread_has_the_named_capabilities_no_new_privileges_and_a_filter"),
    p("a filter of system calls in every thread", DAEMON, "privileges::every_thread_has_the_named_capabilities_no_new_privileges_and_a_filter"),
    p("what the filter denies: executing, processes, ptrace, mounts, modules, clock, identity", Tests::Unit, "daemon::sandbox::tests::what_is_denied_is_denied_and_threads_still_begin"),
    p("the unit grants what is kept", Tests::Unit, "daemon::sandbox::tests::the_unit_allows_what_is_kept_and_says_each_once"),
    p("hooks run from the spawner, as their own user, with none of probe's descriptors", DAEMON, "privileges::a_hook_is_the_spawner_s_child_and_its_own_user_s"),
    p("the spawner and what it runs end with the daemon", DAEMON, "privileges::the_spawner_outlives_stop_signals_but_not_the_daemon"),
    p("the daemon says that its spawner has ended, and ends", DAEMON, "privileges::a_daemon_without_its_spawner_says_so_and_ends"),
    p("a spawner that hangs hangs nobody", DAEMON, "privileges::a_spawner_that_hangs_makes_a_hook_fail_and_hangs_nobody"),
    p("a program that a spawner never ends is not waited for", Tests::Unit, "spawner::tests::a_spawner_that_answers_nothing_is_not_waited_for"),
    p("nothing in the unit hides what is watched", Tests::Xtask, "protections::tests::the_unit_hides_nothing_and_is_as_closed_as_it_can_be"),
    p("only root acts through the API, only root and the group read", DAEMON, "privileges::who_is_not_root_reads_at_most_and_never_acts"),
    p("a question to the API has limits: its body, its headers, its head", DAEMON, "hostile::a_question_beyond_its_limits_is_refused"),
    p("clients of the API are few, and those that ask nothing are let go", DAEMON, "hostile::clients_that_ask_nothing_are_few_and_let_go"),
    p("the TCP port is asked by loopback names only", Tests::Unit, "api::guard::tests::a_foreign_name_for_the_port_is_refused"),
    p("names of processes, paths and arguments steer no terminal, line, hook, metric or log", DAEMON, "hostile::names_that_steer_terminals_reach_nobody_as_they_are"),
    p("names of processes and paths begin no field of the journal", Tests::Unit, "hooks::journal::tests::names_that_steer_terminals_make_no_field_and_no_control_character"),
    p("a planted PID file (link, FIFO, socket) is neither followed nor waited for", Tests::Unit, "sources::pid_file::tests::planted_files_are_neither_followed_nor_waited_for"),
    p("a planted lock of the daemon is refused", Tests::Unit, "daemon::lock::tests::planted_files_are_refused"),
    p("a planted lock of a service is refused", Tests::Unit, "lock::tests::a_planted_lock_file_is_none"),
    p("a planted state directory is refused", Tests::Unit, "history::tests::planted::a_link_in_the_directory_s_place"),
    p("planted files in the state directory are refused", Tests::Unit, "history::tests::planted::links_and_devices_in_the_place_of_a_file"),
    p("a planted heartbeat FIFO is never opened", Tests::Unit, "sources::heartbeat::tests::file::a_fifo_is_never_opened"),
    p("links in a container lead nowhere outside", Tests::Unit, "sources::root::tests::links_inside_another_root_lead_nowhere_outside"),
    p("reclaim follows no link that somebody else planted on the way", RECLAIM, "refusals::a_link_on_the_way_that_somebody_else_planted"),
    p("reclaim removes nothing in a directory that others may write to", RECLAIM, "refusals::a_directory_of_another_owner_that_others_may_write_to"),
    p("reclaim removes no file that is no socket, hard links included", RECLAIM, "refusals::a_path_that_is_no_socket"),
    p("reclaim believes no PID file that others may write to", RECLAIM, "files::a_pid_file_that_others_may_write_to_tells_nothing"),
    p("a user's PID file speaks only for that user's processes", RECLAIM, "files::a_pid_file_of_another_user_speaks_only_for_his_processes"),
    p("a pid that was given away anew ends nobody", RECLAIM, "files::a_number_that_was_given_away_after_the_file_was_written_means_nobody"),
    p("no live socket is removed and no stranger signalled, whatever races", RECLAIM, "race::no_live_socket_is_removed_and_no_stranger_is_signalled"),
    p("records of the kernel", Tests::Unit, "fuzz::tests::ring"),
    p("netlink answers", Tests::Unit, "fuzz::tests::netlink"),
    p("questions to the API", Tests::Unit, "fuzz::tests::api_request"),
    p("texts of /proc", Tests::Unit, "fuzz::tests::proc"),
    p("recordings", Tests::Unit, "fuzz::tests::trace"),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.without {
        return without::run(args.filter.as_deref().unwrap_or_default());
    }
    let mut results = BTreeMap::new();
    if !args.list {
        child::show(
            workspace::cargo().args(["build", "--package", "probe-user"]),
            LIMIT,
        )?;
        let mut programs: Vec<_> = TABLE.iter().map(|p| p.tests).collect();
        programs.sort_unstable();
        programs.dedup();
        for tests in programs {
            let names = TABLE.iter().filter(|p| p.tests == tests).map(|p| p.test);
            let names: BTreeSet<_> = names.collect();
            run_tests(workspace::cargo().arg("test"), tests, &names, &mut results)?;
        }
    }
    println!("\n{:<92} {:<8} held by", "protection", "");
    let mut all = true;
    for p in TABLE {
        let held = match results.get(p.test) {
            _ if args.list => "",
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "not run",
        };
        all &= args.list || held == "ok";
        println!("{:<92} {held:<8} {}", p.what, p.test);
    }
    println!("\n{}", exposure()?);
    ensure!(all, "a protection does not hold");
    Ok(())
}

/// Runs tests of one program; `cargo` is to run tests.
fn run_tests<'t>(
    cargo: &mut Command,
    tests: Tests,
    names: &BTreeSet<&'t str>,
    results: &mut BTreeMap<&'t str, bool>,
) -> anyhow::Result<()> {
    cargo.arg("--no-fail-fast");
    tests.of(cargo);
    cargo.args(["--", "--exact", "--test-threads=1"]).args(names);
    // A failed test fails cargo, too: what each said is what counts. A test that prints has its verdict lines below its name;
    // what failed is listed at the end.
    let (mut begun, mut failed, mut finished) = (Vec::new(), Vec::new(), false);
    child::run(cargo, LIMIT, |line| {
        for name in names.iter().copied() {
            if line.starts_with(&format!("test {name} ... ")) {
                begun.push(name);
            }
            if line == format!("    {name}") || line == format!("test {name} ... FAILED") {
                failed.push(name);
            }
        }
        finished |= line.starts_with("test result: ");
        child::print(line);
    })?;
    results.extend(
        begun
            .into_iter()
            .map(|name| (name, finished && !failed.contains(&name))),
    );
    Ok(())
}

/// systemd's own measure of the unit, from 0 (closed) to 10.
fn exposure() -> anyhow::Result<String> {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(workspace::root().join(UNIT));
    match child::capture(&mut analyze, Duration::from_secs(60)) {
        Ok(text) => text
            .lines()
            .find(|line| line.contains("Overall exposure"))
            .map(|line| {
                format!(
                    "systemd-analyze security: {}",
                    line.trim_start_matches(['→', ' '])
                )
            })
            .context("systemd-analyze names no exposure"),
        Err(e) => Ok(format!("systemd-analyze security: skipped: {e:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The unit's settings.
    fn settings() -> anyhow::Result<Vec<(String, String)>> {
        let path = workspace::root().join(UNIT);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }

    /// Each gives the unit a mount name space of its own, or hides processes, devices, users or priorities.
    const HIDING: [&str; 24] = [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateNetwork",
        "PrivateUsers",
        "PrivateIPC",
        "PrivatePIDs",
        "ProtectHome",
        "ProtectSystem",
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "RestrictRealtime",
        "RootDirectory",
        "RootImage",
        "InaccessiblePaths",
        "ReadOnlyPaths",
        "TemporaryFileSystem",
        "BindPaths",
        "NetworkNamespacePath",
        "DynamicUser",
    ];
    /// What systemd 252 says of it.
    const EXPOSURE: f64 = 5.9;

    #[test]
    fn the_unit_hides_nothing_and_is_as_closed_as_it_can_be() {
        let settings = settings().unwrap();
        for (key, value) in &settings {
            assert!(
                !HIDING.contains(&key.as_str()),
                "{key}={value} hides what is watched"
            );
        }
        let has = |key: &str| settings.iter().any(|(k, _)| k == key);
        for key in [
            "CapabilityBoundingSet",
            "SystemCallFilter",
            "SystemCallArchitectures",
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictSUIDSGID",
            "LockPersonality",
            "ProtectClock",
            "DevicePolicy",
            "KeyringMode",
        ] {
            assert!(has(key), "{key} is missing");
        }
        let said = exposure().unwrap();
        println!("{said}");
        if said.contains("skipped") {
            return;
        }
        let number = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        assert!(
            number.is_some_and(|n| n <= EXPOSURE),
            "more open than {EXPOSURE}: {said}"
        );
    }

    #[test]
    fn each_protection_names_a_test_that_there_is() {
        for p in TABLE {
            let place = match p.tests {
                Tests::Unit => "probe-user/src".to_owned(),
                Tests::Xtask => "xtask/src".to_owned(),
                Tests::E2e(program) => format!("tests/tests/{program}"),
            };
            let (_, name) = p.test.rsplit_once("::").unwrap();
            let wanted = [format!("fn {name}("), format!(" {name} ")];
            assert!(
                contains(&workspace::root().join(&place), &wanted),
                "{place} has no test {name}"
            );
        }
    }

    #[test]
    fn unsafe_is_only_where_security_md_says() {
        let listed = fs::read_to_string(workspace::root().join("SECURITY.md")).unwrap();
        let (_, listed) = listed.split_once("## Where `unsafe` is").unwrap();
        let (listed, _) = listed.split_once("\n## ").unwrap();
        let mut listed: Vec<_> = listed
            .lines()
            .filter(|line| line.starts_with("| `"))
            .flat_map(|line| line.split('|').nth(1).unwrap_or_default().split(','))
            .map(|name| name.trim().trim_matches('`').to_owned())
            .collect();
        listed.sort();
        listed.dedup();
        let sources = workspace::root().join("probe-user/src");
        let mut found = Vec::new();
        unsafe_files(&sources, &sources, &mut found);
        found.sort();
        assert_eq!(found, listed);
    }

    fn unsafe_files(top: &std::path::Path, directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Tests may do what they like.
            if matches!(name.as_str(), "tests" | "tests.rs" | "testing.rs") {
                continue;
            }
            if path.is_dir() {
                unsafe_files(top, &path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let is_unsafe = |line: &str| !line.trim_start().starts_with("//") && line.contains("unsafe ");
            if code.lines().any(is_unsafe) {
                found.push(path.strip_prefix(top).unwrap().display().to_string());
            }
        }
    }

    fn contains(directory: &std::path::Path, wanted: &[String]) -> bool {
        fs::read_dir(directory).unwrap().flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return contains(&path, wanted);
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            wanted.iter().any(|w| text.contains(w.as_str()))
        })
    }
}
