//! The rules of the engine: without one of them, the unit test of its finding fails.

use super::{super::Tests, Without, table::SOAK};

/// A rule that finds nothing.
macro_rules! rule {
    ($kind:literal, $file:literal, $test:literal $(, $more:expr)?) => {
        Without {
            what: concat!("the rule ", $kind),
            file: concat!("probe-user/src/engine/rules/", $file, ".rs"),
            edits: &[(
                "pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {",
                "pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {\nif GONE {\nreturn;\n}",
            )],
            tests: &[(Tests::Unit, concat!("engine::tests::", $test)) $(, $more)?],
        }
    };
}

/// Of each kind of finding. The tests are those of the table in `tests/README.md`.
pub(super) const RULES: &[Without] = &[
    rule!(
        "stale-socket",
        "stale_socket",
        "processes::kill_9_is_a_crash_that_leaves_a_dead_socket_and_pid_file"
    ),
    rule!(
        "orphaned-listener",
        "orphaned_listener",
        "sockets::an_rm_orphans_the_listener_at_once",
        // One finding less, of which the soak says that it was missed.
        SOAK
    ),
    rule!(
        "address-taken",
        "address_taken",
        "sockets::an_address_held_by_a_stranger_is_taken"
    ),
    rule!(
        "bind-refused",
        "bind_refused",
        "binds::a_refused_bind_is_found_at_once_and_says_who_holds_the_address"
    ),
    rule!(
        "not-listening",
        "not_listening",
        "sockets::one_that_never_listens_is_found_after_ready_within"
    ),
    rule!(
        "not-running",
        "not_running",
        "healthy::a_tool_run_does_not_count_as_running"
    ),
    rule!(
        "accept-stall",
        "accept_stall",
        "sockets::the_same_head_of_the_queue_twice_is_a_stall"
    ),
    rule!(
        "duplicate-instance",
        "duplicate_instance",
        "processes::two_instances_are_duplicates_after_overlap"
    ),
    rule!(
        "stale-pid-file",
        "stale_pid_file",
        "processes::a_pid_file_that_names_a_stranger_is_stale"
    ),
    rule!(
        "pid-file-mismatch",
        "pid_file_mismatch",
        "processes::a_pid_file_of_an_instance_that_holds_nothing_is_a_mismatch"
    ),
    rule!(
        "crash-loop",
        "crash_loop",
        "processes::five_ends_in_a_minute_are_a_crash_loop"
    ),
    rule!("oom-killed", "oom_killed", "processes::the_oom_killer_is_named"),
    rule!(
        "crashed",
        "crashed",
        "asked_stops::exit_0_with_the_listener_open_is_a_crash"
    ),
    rule!(
        "stopped",
        "stopped",
        "asked_stops::a_stopped_main_process_names_who_stopped_it"
    ),
    rule!(
        "unhandled-signal",
        "unhandled_signal",
        "processes::a_signal_without_a_handler_names_its_sender"
    ),
    rule!(
        "unhandled-signal-risk",
        "unhandled_signal_risk",
        "healthy::signals_that_are_waited_for_are_handled"
    ),
    rule!(
        "signal-ignored",
        "signal_ignored",
        "asked_stops::a_declared_signal_that_is_ignored_is_found_until_it_is_caught"
    ),
    rule!(
        "signal-blocked",
        "signal_blocked",
        "asked_stops::a_blocked_signal_is_found_while_it_stays_pending"
    ),
    rule!(
        "slow-stop",
        "slow_stop",
        "asked_stops::half_of_stop_within_is_a_slow_stop"
    ),
    rule!(
        "killed-while-stopping",
        "killed_while_stopping",
        "asked_stops::kill_after_term_names_both_and_the_time_between"
    ),
    rule!(
        "stale-heartbeat",
        "stale_heartbeat",
        "processes::a_heartbeat_that_stops_says_what_the_process_does"
    ),
    Without {
        what: "the rule blind",
        file: "probe-user/src/engine/verdict.rs",
        edits: &[(
            "        self.judge_blind();",
            "        if !GONE {\nself.judge_blind();\n}",
        )],
        tests: &[(
            Tests::Unit,
            "engine::tests::processes::a_loss_is_blind_until_a_snapshot_settles_it",
        )],
    },
];
