//! Socket files and PID files.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::Command,
};

use probe_tests::{Daemon, Proc, kill, run};

use crate::{Site, leave_stale};

#[test]
fn what_a_crash_leaves_is_removed() {
    let site = Site::new("");
    let daemon = site.start();
    kill("KILL", daemon.pid());
    daemon.wait_gone();
    assert!(site.socket.exists() && site.pid_file.exists());

    let reclaimed = site.reclaim(&[]);

    reclaimed
        .is_clear()
        .removed(&[&site.socket, &site.pid_file])
        .ended(0);
    assert!(!site.socket.exists() && !site.pid_file.exists());
    // There is nothing left to do, and that is no mistake.
    site.reclaim(&[]).is_clear().removed(&[]);
    site.start();
}

#[test]
fn a_dry_run_does_nothing() {
    let site = Site::new("singleton = true");
    let first = site.start();
    fs::remove_file(&site.socket).unwrap();
    leave_stale(&site.socket);

    let reclaimed = site.reclaim(&["--dry-run"]);

    reclaimed
        .is_clear()
        .removed(&[&site.socket, &site.pid_file])
        .ended(0);
    reclaimed.says("end", &first.pid().to_string());
    assert!(first.process().is_alive());
    assert!(site.socket.exists() && site.pid_file.exists());
}

#[test]
fn a_live_socket_is_never_removed() {
    let site = Site::new("");
    let daemon = site.start();

    let reclaimed = site.reclaim(&[]);

    reclaimed
        .is_blocked_by(&[&daemon.pid().to_string(), "annad.pid"])
        .removed(&[])
        .ended(0);
    UnixStream::connect(&site.socket).expect("it is served as before");
    assert!(daemon.process().is_alive() && site.pid_file.exists());
}

#[test]
fn bound_sockets_are_live_whatever_their_type() {
    let site = Site::new("");
    let mut daemon = site.starter().start();
    fs::remove_file(&site.socket).unwrap();
    fs::remove_file(&site.pid_file).unwrap();
    // Bound and not listening.
    let address = format!("unix:{}", site.socket.display());
    daemon.tell(&format!("close {address}"));
    daemon.tell(&format!("bind {address}"));
    site.reclaim(&[]).is_blocked_by(&["holds unix:"]).removed(&[]);
    assert!(site.socket.exists());
    drop(daemon);
    site.reclaim(&[]).is_clear().removed(&[&site.socket]);
    // Held by the one who starts us: no obstacle, and no target.
    let datagrams = UnixDatagram::bind(&site.socket).unwrap();
    site.reclaim(&[]).is_clear().removed(&[]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"x", &site.socket)
        .unwrap();
    drop(datagrams);
    site.reclaim(&[]).is_clear().removed(&[&site.socket]);
}

/// Incident 1: one path, three processes. `lsof` names the first and says "in use".
#[test]
fn the_trap_of_a_path_that_was_taken_over() {
    let site = Site::new("max_instances = 2");
    let first = site.start();
    let second = site.starter().arg("--take-over").start();
    kill("KILL", second.pid());
    second.wait_gone();
    let lsof = run(Command::new("/usr/bin/lsof").arg("-t").arg(&site.socket));
    assert_eq!(
        lsof.stdout.trim(),
        first.pid().to_string(),
        "lsof says that it is in use"
    );

    let reclaimed = site.reclaim(&[]);

    // The file is nobody's. The first one still listens, where nobody finds it, and is not ours to end.
    reclaimed
        .is_clear()
        .removed(&[&site.socket, &site.pid_file])
        .ended(0);
    assert!(first.process().is_alive());
    let third = site.start();
    UnixStream::connect(&site.socket).expect("the new one is reached");
    drop(third);
}

#[test]
fn an_orphaned_listener_is_a_predecessor_of_a_singleton() {
    let site = Site::new("singleton = true");
    let first = site.start();
    fs::remove_file(&site.socket).unwrap();
    fs::remove_file(&site.pid_file).unwrap();

    site.reclaim(&[])
        .is_clear()
        .ended(1)
        .says("end", "it holds unix:");

    assert!(!first.process().is_alive());
}

#[test]
fn a_pid_file_that_names_a_stranger_is_stale_and_the_stranger_is_left_alone() {
    let site = Site::new("singleton = true");
    let stranger = Proc::spawn(Command::new("sleep").arg("1000"));
    fs::write(&site.pid_file, stranger.pid().to_string()).unwrap();

    let reclaimed = site.reclaim(&[]);

    reclaimed.is_clear().removed(&[&site.pid_file]).ended(0);
    reclaimed.says("leave", "another program");
    assert!(stranger.is_alive());
}

#[test]
fn a_number_that_was_given_away_after_the_file_was_written_means_nobody() {
    let site = Site::without_selector("singleton = true");
    fs::write(&site.pid_file, "1").unwrap();
    let stranger = Proc::spawn(Command::new("sleep").arg("1000"));
    // The content is of before the process; only its number is of now.
    let hour_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::write(&site.pid_file, stranger.pid().to_string()).unwrap();
    fs::File::options()
        .write(true)
        .open(&site.pid_file)
        .unwrap()
        .set_modified(hour_ago)
        .unwrap();

    let reclaimed = site.reclaim(&[]);

    reclaimed.is_clear().removed(&[&site.pid_file]).ended(0);
    reclaimed.says("leave", "started after the file was last written");
    assert!(stranger.is_alive());
}

#[test]
fn without_a_selector_the_pid_file_tells_whom_to_end() {
    let site = Site::without_selector("singleton = true");
    let daemon = site.start();
    site.reclaim(&[])
        .is_clear()
        .ended(1)
        .removed(&[&site.socket, &site.pid_file]);
    assert!(!daemon.process().is_alive());
}

#[test]
fn a_pid_file_that_others_may_write_to_tells_nothing() {
    let site = Site::without_selector("singleton = true\nlisten = []").replace_listen();
    let daemon = Daemon::at(&site.exe).pid_file(&site.pid_file).start();
    fs::set_permissions(&site.pid_file, fs::Permissions::from_mode(0o666)).unwrap();

    let reclaimed = site.reclaim(&[]);
    reclaimed
        .ended(0)
        .removed(&[])
        .says("refuse", "others than its owner may write");
    assert!(daemon.process().is_alive() && site.pid_file.exists());

    site.reclaim(&["--trust-pid-file"]).is_clear().ended(1);
    assert!(!daemon.process().is_alive() && !site.pid_file.exists());
}

#[test]
fn a_pid_file_of_another_user_speaks_only_for_his_processes() {
    let site = Site::without_selector("singleton = true");
    let ours = Proc::spawn(Command::new("sleep").arg("1000"));
    fs::write(&site.pid_file, ours.pid().to_string()).unwrap();
    std::os::unix::fs::chown(&site.pid_file, Some(65534), Some(65534)).unwrap();

    site.reclaim(&[]).ended(0).says("leave", "belongs to user 65534");

    assert!(ours.is_alive());
}

#[test]
fn a_locked_pid_file_stays() {
    let site = Site::new("");
    fs::write(&site.pid_file, "4194304").unwrap();
    let file = fs::File::open(&site.pid_file).unwrap();
    file.lock().unwrap();
    site.reclaim(&[]).is_clear().removed(&[]).says("leave", "locked");
    assert!(site.pid_file.exists());
    file.unlock().unwrap();
    site.reclaim(&[]).is_clear().removed(&[&site.pid_file]);
}

#[test]
fn an_empty_pid_file_may_just_be_written() {
    let site = Site::new("");
    fs::write(&site.pid_file, "").unwrap();
    site.reclaim(&[])
        .is_clear()
        .removed(&[])
        .says("leave", "about to write");
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::options()
        .write(true)
        .open(&site.pid_file)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    site.reclaim(&[]).is_clear().removed(&[&site.pid_file]);
    fs::write(&site.pid_file, "pid: 12").unwrap();
    site.reclaim(&[])
        .is_clear()
        .removed(&[])
        .says("leave", "may be no PID file");
}

#[test]
fn what_an_interrupted_reclaim_had_moved_aside_comes_back() {
    let site = Site::new("");
    let mut daemon = site.start();
    let aside = site.socket.with_file_name(".annad.sock.probe-reclaim");
    fs::rename(&site.socket, &aside).unwrap();

    site.reclaim(&[]).is_blocked_by(&["lives"]);

    UnixStream::connect(&site.socket).expect("it is where it was");
    fs::rename(&site.socket, &aside).unwrap();
    daemon.send("exit 0");
    daemon.wait_gone();
    site.reclaim(&[]).is_clear();
    assert!(!aside.exists());
}

#[test]
fn one_at_a_time() {
    let site = Site::new("");
    leave_stale(&site.socket);
    // What a reclaim holds.
    let locks = site.sandbox.path("state").join("locks");
    fs::create_dir_all(&locks).unwrap();
    let path = locks.join("annad.reclaim.lock");
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    fs::write(&path, "{\"pid\":812,\"command\":\"reclaim\",\"since_boot_ns\":1}").unwrap();

    let refused = run(&mut site.command(&["--wait", "50ms"]));

    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("held by probe reclaim (812)"),
        "{refused:?}"
    );
    assert!(site.socket.exists());
    let mut waits = Proc::spawn(&mut site.command(&[]));
    lock.unlock().unwrap();
    assert!(waits.wait().success());
    assert!(!site.socket.exists());
    drop(UnixListener::bind(&site.socket).unwrap());
}
