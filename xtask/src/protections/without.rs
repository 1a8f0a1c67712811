//! `cargo xtask protections --without`: takes one protection after the other out of a copy of the sources, and runs the test that
//! holds it, which must fail.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{DAEMON, Tests};
use crate::{child, workspace};

/// One change of the sources, and who notices it.
pub(super) struct Without {
    what: &'static str,
    file: &'static str,
    /// Stands there once, and is replaced.
    from: &'static str,
    to: &'static str,
    tests: Tests,
    test: &'static str,
}

const fn w(
    what: &'static str,
    file: &'static str,
    (from, to): (&'static str, &'static str),
    tests: Tests,
    test: &'static str,
) -> Without {
    Without {
        what,
        file,
        from,
        to,
        tests,
        test,
    }
}

const ROBUST: Tests = Tests::E2e("robust");
const THREADS: &str = "privileges::every_thread_has_the_named_capabilities_no_new_privileges_and_a_filter";

#[rustfmt::skip]
const TABLE: &[Without] = &[
    w("what is pinned is gone on with", "probe-user/src/kernel/pins.rs", ("Ok(()) => pins.adopted = true,", "Ok(()) => _ = pins.directory.remove(&pins.generation)?,"), ROBUST, "restart::after_kill_9_in_a_storm_the_next_one_tells_what_happened_meanwhile"),
    w("a pinned map's sizes are compared", "probe-user/src/kernel/pins.rs", ("if found != expected {", "if found == u32::MAX {"), ROBUST, "restart::a_map_of_another_size_is_never_used"),
    w("one reader for one ring", "probe-user/src/kernel/pins/directory.rs", ("libc::LOCK_EX | libc::LOCK_NB", "libc::LOCK_UN"), ROBUST, "restart::two_daemons_never_read_one_ring"),
    w("keep_pinned = false leaves nothing", "probe-user/src/kernel/pins.rs", ("            self.directory.remove(&self.generation)?;\n            return Ok(());", "            return Ok(());"), ROBUST, "restart::turning_keep_pinned_off_takes_over_and_then_leaves_nothing"),
    w("a loss is settled by a snapshot", "probe-user/src/engine.rs", ("        self.effects.push(Effect::Resync(SnapshotReason::Loss));\n        let at = self.at;", "        let at = self.at;"), ROBUST, "loss::a_flooded_ring_of_64_kib_is_counted_exactly_and_settled"),
    w("after a loss verdicts are unknown", "probe-user/src/engine.rs", ("        let at = self.at;\n        let blind", "        let at = self.at;\n        if count > 0 {\n            return;\n        }\n        let blind"), ROBUST, "loss::a_flooded_ring_of_64_kib_is_counted_exactly_and_settled"),
    w("everything is pinned again when bpffs is back", "probe-user/src/kernel/pins.rs", ("if !path.exists() {", "if path.as_os_str().is_empty() {"), ROBUST, "faults::bpffs_that_is_unmounted_is_named_and_pinned_to_again"),
    w("a directory that was made again is watched again", "probe-user/src/sources/directory_watch.rs", ("            if structure {\n                self.reconcile();", "            if structure && queued.capacity() == usize::MAX {\n                self.reconcile();"), ROBUST, "faults::a_socket_directory_that_is_removed_and_made_again_is_watched_again"),
    w("a removed API socket is made again", "probe-user/src/api/socket_file.rs", ("if self.own.is_there() {", "if !complained {"), ROBUST, "faults::a_removed_api_socket_is_made_again"),
    w("a list of sockets that changed is asked for again", "probe-user/src/sources/sock_diag.rs", ("libc::NLMSG_DONE if *interrupted => return Ok(Some(Ended::Again)),", ""), Tests::Unit, "sources::sock_diag::tests::a_list_that_changed_under_the_reader_is_asked_for_again"),
    w("an overrun of netlink's buffer is no end", "probe-user/src/sources/sock_diag.rs", ("Err(nix::Error::ENOBUFS) => return Ok(Ended::Again),", ""), Tests::Unit, "sources::sock_diag::tests::an_overrun_of_the_reader_s_buffer_begins_the_list_anew"),
    w("a clock that is set changes no age", "probe-user/src/clock/eras.rs", ("if began && at <= until + SLACK {", "if began || at <= until + SLACK {"), Tests::Unit, "clock::eras::tests::a_file_s_time_stays_what_it_was_when_the_clock_is_set"),
    w("capabilities are given up", "probe-user/src/daemon/sandbox.rs", ("let left = has.permitted & kept();", "let left = has.permitted;"), DAEMON, THREADS),
    w("the bounding set is cut", "probe-user/src/daemon/sandbox.rs", ("_ = rustix::thread::remove_capability_from_bounding_set(capability);", "_ = capability;"), DAEMON, THREADS),
    // The filter is only let in with them: with it they are given up in two places.
    w("no new privileges, which the filter gives up too", "probe-user/src/daemon/sandbox.rs", ("    rustix::thread::set_no_new_privs(true)\n        .map_err(|e| kernel(\"new privileges cannot be given up\")(e.into()))?;\n    let names: Vec<_> = KEPT.iter().map(|(_, name, _)| *name).collect();\n    let names = names.join(\", \");\n    match filter() {", "    Ok::<(), rustix::io::Errno>(())\n        .map_err(|e| kernel(\"new privileges cannot be given up\")(e.into()))?;\n    let names: Vec<_> = KEPT.iter().map(|(_, name, _)| *name).collect();\n    let names = names.join(\", \");\n    match Ok::<(), Filter>(()) {"), DAEMON, THREADS),
    w("system calls are filtered", "probe-user/src/daemon/sandbox.rs", ("    match filter() {", "    match Ok::<(), Filter>(()) {"), DAEMON, THREADS),
    w("hooks run as their own user", "probe-user/src/hooks/exec/user.rs", ("done(unsafe { libc::setuid(self.uid.as_raw()) })", "done(unsafe { libc::setuid(0) })"), DAEMON, "privileges::a_hook_is_the_spawner_s_child_and_its_own_user_s"),
    w("only root acts through the API", "probe-user/src/api/guard.rs", ("if !reads && !peer.may_act() {", "if !reads && peer.may_act() && false {"), DAEMON, "privileges::who_is_not_root_reads_at_most_and_never_acts"),
    w("what steers a terminal is escaped", "probe-user/src/report/escape.rs", ("    c.is_control()\n        || matches!", "    c == '\\0' && c.is_control()\n        || c == '\\0' && matches!"), DAEMON, "hostile::names_that_steer_terminals_reach_nobody_as_they_are"),
    w("no name begins a field of the journal", "probe-user/src/hooks/journal.rs", ("&report::plain(value)", "&report::plain(value).replace(\"\\\\n\", \"\\n\")"), Tests::Unit, "hooks::journal::tests::names_that_steer_terminals_make_no_field_and_no_control_character"),
    w("whom an earlier daemon followed is told first", "probe-user/src/runtime.rs", ("self.queue.push_back(observed(What::Followed { process }));", "drop(process);"), Tests::E2e("soak"), SOAK),
    w("what is kept for late readers is bounded", "probe-user/src/stream/kept.rs", ("lines: 1 << 16,", "lines: 1 << 30,"), Tests::E2e("soak"), SOAK),
];

const SOAK: &str = "everything_true_is_found_nothing_else_and_probe_stays_as_large_as_it_is";
/// One build, mostly.
const LIMIT: Duration = Duration::from_secs(1800);
/// A test that goes on for longer has not passed.
const TEST: Duration = Duration::from_secs(400);

/// Those whose names contain `filter`.
pub(super) fn run(filter: &str) -> anyhow::Result<()> {
    let chosen: Vec<_> = TABLE
        .iter()
        .filter(|w| w.what.contains(filter) || w.test.contains(filter))
        .collect();
    ensure!(!chosen.is_empty(), "no protection has {filter:?} in its name");
    let place = workspace::target_dir()?.join("without");
    let copy = place.join("sources");
    copy_sources(&copy)?;
    let mut rows = Vec::new();
    let mut all = true;
    for w in chosen {
        let caught = without(w, &copy, &place.join("target"))?;
        all &= caught;
        let word = if caught { "fails" } else { "PASSES" };
        rows.push(format!("{:<52} {word:<7} {}", w.what, w.test));
        println!("\n== without {:?} the test {word}\n", w.what);
        if child::interrupted() {
            break;
        }
    }
    println!("\n{:<52} {:<7} test\n{}", "without", "", rows.join("\n"));
    ensure!(all, "a protection can be taken out, and no test notices");
    Ok(())
}

/// Whether the test fails without it.
fn without(w: &Without, copy: &Path, target: &Path) -> anyhow::Result<bool> {
    let path = copy.join(w.file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    fs::write(&path, text.replacen(w.from, w.to, 1)).with_context(|| format!("write {}", path.display()))?;
    let outcome = test(w, copy, target);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    outcome
}

fn test(w: &Without, copy: &Path, target: &Path) -> anyhow::Result<bool> {
    let cargo = |verb: &str| {
        let mut cargo = workspace::cargo();
        cargo.current_dir(copy).env("CARGO_TARGET_DIR", target).arg(verb);
        cargo
    };
    let mut tests = cargo("test");
    match w.tests {
        Tests::Unit => tests.args(["--package", "probe-user", "--lib"]),
        Tests::Xtask => tests.args(["--package", "xtask", "--bins"]),
        Tests::E2e(name) => {
            child::show(cargo("build").args(["--package", "probe-user"]), LIMIT)?;
            tests.args(["--package", "probe-tests", "--test", name])
        }
    };
    child::show(tests.arg("--no-run"), LIMIT).context("it does not compile any more")?;
    let mut tests = again(&tests);
    tests.args(["--", "--exact", w.test]);
    println!("$ {}", child::describe(&tests));
    let (mut ran, mut lines) = (false, Vec::new());
    let status = child::run(&mut tests, TEST, |line| {
        ran |= line == "running 1 test";
        lines.push(line.to_owned());
    });
    ensure!(ran, "there is no test {}:\n{}", w.test, lines.join("\n"));
    Ok(!status.is_ok_and(|s| s.success()))
}

/// The command without its last argument.
fn again(of: &Command) -> Command {
    let mut command = Command::new(of.get_program());
    let arguments: Vec<_> = of.get_args().collect();
    command.args(&arguments[..arguments.len() - 1]);
    for (name, value) in of.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(directory) = of.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// Everything that git knows or would take. What is the same stays as it is, so that it is not built anew.
fn copy_sources(to: &Path) -> anyhow::Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root());
    let names = child::capture(&mut git, Duration::from_secs(60))?;
    for name in names.lines() {
        let (from, to) = (workspace::root().join(name), to.join(name));
        // A file that was removed is still known.
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        let parent = to.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&to, bytes).with_context(|| format!("write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protection_stands_where_it_is_taken_out() {
        for w in TABLE {
            let text = fs::read_to_string(workspace::root().join(w.file)).unwrap();
            assert_eq!(text.matches(w.from).count(), 1, "{}: {}", w.file, w.from);
            assert_ne!(w.from, w.to);
        }
    }
}
