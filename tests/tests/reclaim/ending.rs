//! Processes: who is ended with whom, who is left alone, and who cannot be ended.

use std::{fs, process::Command, time::Duration};

use probe_tests::{ControlGroup, Daemon, Proc, free_port, kill, run, state, until};

use crate::{Reclaimed, Site};

/// Tests run side by side, and a unit's name is all that its processes are told by.
pub(crate) fn unit(name: &str) -> String {
    format!("probe-test-{name}-{}.service", std::process::id())
}

fn pids(text: &str) -> Vec<Proc> {
    text.split(' ')
        .map(|p| Proc::adopt("a child", p.parse().unwrap()))
        .collect()
}

#[test]
fn a_predecessor_is_ended_with_all_that_descends_from_it() {
    let site = Site::new("singleton = true\nstop_within = \"500ms\"").without_first_stop_within();
    let mut daemon = site.starter().on("TERM=clean").start();
    // They have the same handler, and do nothing about it.
    let children = pids(&daemon.tell("fork 5"));

    let reclaimed = site.reclaim(&[]);

    reclaimed.is_clear().ended(6).killed(5);
    assert!(!daemon.process().is_alive());
    assert!(children.iter().all(|c| !c.is_alive()));
}

#[test]
fn without_singleton_nobody_is_ended() {
    let site = Site::new("");
    let mut daemon = site.start();
    let children = pids(&daemon.tell("fork 2"));

    let reclaimed = site.reclaim(&[]);

    reclaimed
        .is_blocked_by(&["lives", &daemon.pid().to_string()])
        .ended(0);
    reclaimed.says("leave", "neither `singleton` nor `kill_other`");
    daemon.tell("ping");
    assert!(children.iter().all(Proc::is_alive));
}

#[test]
fn who_ignores_term_is_killed_after_stop_within() {
    let site = Site::new("singleton = true\nstop_within = \"400ms\"").without_first_stop_within();
    let daemon = site.starter().on("TERM=ignore").start();
    let began = std::time::Instant::elapsed;
    let from = now();

    site.reclaim(&[])
        .is_clear()
        .ended(1)
        .killed(1)
        .says("signal", "within 400ms");

    assert!(began(&from) >= Duration::from_millis(400));
    assert!(!daemon.process().is_alive());
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn a_stopped_one_hears_of_it() {
    let site = Site::new("singleton = true");
    let daemon = site.starter().on("TERM=clean").start();
    kill("STOP", daemon.pid());
    until("it is stopped", || state(daemon.pid()) == Some('T'));

    site.reclaim(&[]).is_clear().ended(1).killed(0);

    assert!(!daemon.process().is_alive());
}

#[test]
fn one_whose_first_thread_has_ended() {
    let site = Site::new("singleton = true\nstop_within = \"300ms\"").without_first_stop_within();
    let mut daemon = site.start();
    daemon.tell("main-exit");
    until("its first thread is gone", || state(daemon.pid()) == Some('Z'));
    assert!(daemon.process().is_alive());

    site.reclaim(&[])
        .is_clear()
        .ended(1)
        .says("end", &format!("{}", site.exe.display()));

    assert!(!daemon.process().is_alive());
}

#[test]
fn one_whose_first_thread_has_ended_is_in_the_way() {
    let site = Site::new("");
    let mut daemon = site.start();
    fs::remove_file(&site.pid_file).unwrap();
    daemon.tell("main-exit");
    until("its first thread is gone", || state(daemon.pid()) == Some('Z'));

    site.reclaim(&[])
        .is_blocked_by(&[&daemon.pid().to_string(), "it holds unix:"])
        .ended(0);

    assert!(daemon.process().is_alive());
}

#[test]
fn one_that_nothing_ends_is_told() {
    let Some(freezer) = ControlGroup::freezer() else {
        return;
    };
    let site = Site::new("singleton = true\nstop_within = \"200ms\"").without_first_stop_within();
    let daemon = site.start();
    freezer.add(daemon.pid());
    freezer.freeze(true);

    let reclaimed = site.reclaim(&["--kill-within", "300ms"]);

    reclaimed
        .is_blocked_by(&["lives on", "frozen by the control group"])
        .ended(0)
        .removed(&[]);
    assert!(site.socket.exists() && site.pid_file.exists() && daemon.process().is_alive());
    freezer.freeze(false);
    // The signal was pending all the time.
    daemon.wait_gone();
    site.reclaim(&[])
        .is_clear()
        .removed(&[&site.socket, &site.pid_file]);
}

#[test]
fn an_orphan_in_a_session_of_its_own_is_found_by_the_unit() {
    let unit = unit("session");
    let Some(group) = ControlGroup::new(&unit) else {
        return;
    };
    let site = Site::new(&format!("unit = {unit:?}\nsingleton = true"));
    let mut daemon = site.start();
    group.add(daemon.pid());
    let orphan = pids(&daemon.tell("fork-away"));
    let grandchildren = pids(&daemon.tell("fork 3"));

    site.reclaim(&[]).is_clear().ended(5);

    assert!(!daemon.process().is_alive() && !orphan[0].is_alive());
    assert!(grandchildren.iter().all(|c| !c.is_alive()) && group.is_empty());
}

#[test]
fn an_orphan_that_ignores_term_goes_with_its_group() {
    let unit = unit("ignorant");
    let Some(group) = ControlGroup::new(&unit) else {
        return;
    };
    let site = Site::new(&format!(
        "unit = {unit:?}\nsingleton = true\nstop_within = \"300ms\""
    ))
    .without_first_stop_within();
    let mut daemon = site.starter().on("TERM=ignore").start();
    group.add(daemon.pid());
    let orphan = pids(&daemon.tell("fork-away"));

    site.reclaim(&[])
        .is_clear()
        .ended(2)
        .killed(2)
        .says("kill-group", &unit);

    assert!(!daemon.process().is_alive() && !orphan[0].is_alive());
}

#[test]
fn a_group_that_holds_ourselves_is_not_killed_as_a_whole() {
    let unit = unit("own");
    let Some(group) = ControlGroup::new(&unit) else {
        return;
    };
    let site = Site::new(&format!(
        "unit = {unit:?}\nsingleton = true\nstop_within = \"300ms\""
    ))
    .without_first_stop_within();
    let mut daemon = site.starter().on("TERM=ignore").start();
    group.add(daemon.pid());
    let orphan = pids(&daemon.tell("fork-away"));
    // As systemd runs ExecStartPre=: in the unit's own group, in a session of its own, here with a companion.
    let script = format!(
        "echo $$ > {}/cgroup.procs && {{ {} reclaim --json --config {} annad; echo $? >&2; }} | cat",
        group.path().display(),
        probe_tests::probe_binary().display(),
        site.config.display()
    );

    let output = run(Command::new("setsid").args(["--wait", "sh", "-c", &script]));

    assert_eq!(output.stderr.trim(), "0", "{output:?}");
    let reclaimed = Reclaimed::of(probe_tests::Output {
        stderr: String::new(),
        ..output
    });
    reclaimed.is_clear().ended(2).killed(2);
    assert!(!daemon.process().is_alive() && !orphan[0].is_alive());
}

#[test]
fn an_orphan_without_a_group_is_told_and_left() {
    let site = Site::new("singleton = true");
    let mut daemon = site.start();
    let orphan = pids(&daemon.tell("fork-away"));

    let reclaimed = site.reclaim(&[]);

    reclaimed.is_clear().ended(1);
    reclaimed.says("leave", &format!("process {}", orphan[0].pid()));
    assert!(!daemon.process().is_alive() && orphan[0].is_alive());
}

#[test]
fn orphaned_workers_that_hold_the_address() {
    let site = Site::new("singleton = true");
    let mut daemon = site.start();
    let workers = pids(&daemon.tell("fork 3"));
    kill("KILL", daemon.pid());
    daemon.wait_gone();

    site.reclaim(&[])
        .is_clear()
        .ended(3)
        .removed(&[&site.socket, &site.pid_file]);

    assert!(workers.iter().all(|w| !w.is_alive()));
}

#[test]
fn the_same_executable_as_a_tool_is_no_predecessor() {
    let site = Site::new("singleton = true");
    let tool = Daemon::at(&site.exe).start();

    site.reclaim(&[])
        .is_clear()
        .ended(0)
        .says("leave", "holds no declared address");

    assert!(tool.process().is_alive());
}

#[test]
fn a_stranger_at_the_port_goes_only_where_that_was_declared() {
    for (key, goes) in [
        ("", false),
        ("singleton = true", true),
        ("kill_other = true", true),
    ] {
        let port = free_port();
        let site = Site::new(&format!("{key}\nlisten = [\"tcp:127.0.0.1:{port}\"]")).replace_listen();
        let other = Daemon::install(&site.sandbox, "other");
        let mut stranger = Daemon::at(&other).tcp(port).start();
        // It shares the port with nobody who is not to be ended.
        let idle = Proc::spawn(Command::new("sleep").arg("1000"));

        let reclaimed = site.reclaim(&[]);

        if goes {
            reclaimed.is_clear().ended(1).says("end", "holds tcp:127.0.0.1");
            assert!(!stranger.process().is_alive());
        } else {
            reclaimed
                .is_blocked_by(&[&stranger.pid().to_string(), "holds tcp:127.0.0.1"])
                .ended(0);
            stranger.tell("ping");
        }
        assert!(idle.is_alive());
    }
}

#[test]
fn two_instances_may_live_side_by_side() {
    let site = Site::new("max_instances = 2\nlisten = []").replace_listen();
    let first = Daemon::at(&site.exe).pid_file(&site.pid_file).start();
    site.reclaim(&[]).is_clear().ended(0);
    assert!(first.process().is_alive());
}

#[test]
fn a_script_is_told_by_its_exact_argument() {
    let site = Site::new("");
    let script = site.sandbox.write("agent.sh", "#!/bin/bash\nread\n");
    let text = fs::read_to_string(&site.config).unwrap();
    let selector = format!("script = {script:?}\nsingleton = true");
    fs::write(
        &site.config,
        text.replace(&format!("exe = {:?}", site.exe), &selector),
    )
    .unwrap();
    let start = |command: &mut Command| Proc::spawn(command.stdin(std::process::Stdio::piped()));
    let first = start(Command::new("/bin/bash").arg(&script));
    let second = start(Command::new("/bin/bash").arg(&script));
    let reader = start(Command::new("tail").arg("-f").arg(&script));
    let talker = start(
        Command::new("/bin/bash")
            .arg("-c")
            .arg(format!("read # {}", script.display())),
    );
    until("all run", || {
        [&first, &second, &talker]
            .iter()
            .all(|p| state(p.pid()) == Some('S'))
    });

    site.reclaim(&[]).is_clear().ended(2);

    assert!(!first.is_alive() && !second.is_alive());
    assert!(reader.is_alive() && talker.is_alive());
}
