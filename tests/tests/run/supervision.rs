//! Restarts, readiness, logs.

use std::{fs, os::unix::net::UnixDatagram, process::Stdio};

use probe_tests::{Daemon, Proc, run, until};
use probe_user::run::store::Phase;

use crate::{Site, none_lives, until_living};

/// Its table, with short pauses.
fn job(more: &str) -> String {
    format!(
        "[[service]]\nname = \"job\"\nheal = {{ reclaim = true, backoff = \"20ms..100ms\" }}\nscript = \"/nonexistent/job\"\n{more}\n"
    )
}

#[test]
fn it_is_started_again_until_it_ends_well_and_every_log_is_kept() {
    let site = Site::new(|_| job(""));
    let script = r#"echo x >> "$1/starts"; n=$(wc -l < "$1/starts"); echo "life $n"; [ "$n" -ge 4 ]"#;
    let output = run(&mut site.script(&["--restart", "on-failure", "--keep-logs", "2"], script));
    assert_eq!(output.code, Some(0), "{output:?}");
    let row = site.row();
    assert_eq!((row.restart_count, row.phase), (3, Phase::Ended));
    assert_eq!(site.log(""), "life 4\n");
    assert_eq!(site.log(".1"), "life 3\n");
    assert_eq!(site.log(".2"), "life 2\n");
    assert_eq!(site.log(".3"), "", "no more than two earlier ones");
}

#[test]
fn pauses_grow_and_it_gives_up_where_that_is_declared() {
    let site = Site::new(|_| {
        "[[service]]\nname = \"job\"\nscript = \"/nonexistent/job\"\n\
         heal = { reclaim = true, backoff = \"20ms..100ms\", give_up_after = 3 }\n"
            .to_owned()
    });
    let mut command = site.script(&["--restart", "always"], r#"echo x >> "$1/starts"; exit 8"#);
    let output = run(&mut command);
    assert_eq!(output.code, Some(8), "{output:?}");
    assert!(output.stderr.contains("give_up_after"), "{output:?}");
    assert_eq!(site.read("starts").lines().count(), 3);
}

#[test]
fn a_clean_end_is_no_failure_and_never_means_never() {
    let site = Site::new(|_| job("clean_exit = [0, 3]"));
    let script = r#"echo x >> "$1/starts"; exit 3"#;
    assert_eq!(
        run(&mut site.script(&["--restart", "on-failure"], script)).code,
        Some(3)
    );
    assert_eq!(site.read("starts").lines().count(), 1);
    assert_eq!(
        run(&mut site.script(&[], r#"echo x >> "$1/starts"; exit 1"#)).code,
        Some(1)
    );
    assert_eq!(site.read("starts").lines().count(), 2);
}

/// What the child writes reaches the log although nobody passes it on any more.
#[test]
fn the_child_writes_its_log_itself() {
    let site = Site::bare();
    let script = r#"echo before; : > "$1/ready"; while [ ! -e "$1/go" ]; do sleep 0.02; done; echo after"#;
    let run = Proc::spawn(&mut site.script(&[], script));
    until("it runs", || site.sandbox.path("ready").exists());
    crate::crash(run);
    fs::write(site.sandbox.path("go"), "").unwrap();
    until("the rest is written", || site.log("") == "before\nafter\n");
}

/// The service manager is told only when the declared address is served, and by whom this run started.
#[test]
fn it_is_ready_when_it_serves_its_address() {
    let site = Site::new(|sandbox| {
        format!(
            "[[service]]\nname = \"job\"\nexe = {:?}\nlisten = [\"unix:{}\"]\n",
            sandbox.path("annad"),
            sandbox.path("annad.sock").display()
        )
    });
    let exe = site.install_daemon();
    let manager = UnixDatagram::bind(site.sandbox.path("manager")).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    let mut command = site.run(&["job", "--"]);
    command
        .arg(&exe)
        .arg("serve")
        .env("NOTIFY_SOCKET", site.sandbox.path("manager"));
    let mut run = Proc::spawn(command.stdin(Stdio::piped()).stderr(Stdio::null()));
    until_living(&exe, 1);
    // It runs, and serves nothing. Another one that serves the path does not count, and is not ended either.
    manager.set_nonblocking(true).unwrap();
    let stranger = Daemon::at(&Daemon::install(&site.sandbox, "other"))
        .unix(&site.sandbox.path("annad.sock"))
        .start();
    let mut word = [0; 256];
    until("the run has asked at least once more", || {
        site.log("").contains("ready pid=")
    });
    assert!(manager.recv(&mut word).is_err(), "nobody has said READY");
    drop(stranger);
    let _ = fs::remove_file(site.sandbox.path("annad.sock"));
    manager.set_nonblocking(false).unwrap();
    use std::io::Write;
    let line = format!("listen unix:{}\n", site.sandbox.path("annad.sock").display());
    run.child()
        .stdin
        .as_mut()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    let n = manager.recv(&mut word).expect("READY=1");
    assert_eq!(std::str::from_utf8(&word[..n]).unwrap().trim(), "READY=1");
    run.signal(rustix::process::Signal::TERM);
    run.wait();
    none_lives(&exe);
}

/// With --notify the child's own word counts.
#[test]
fn the_child_s_words_reach_the_service_manager() {
    let site = Site::bare();
    let manager = UnixDatagram::bind(site.sandbox.path("manager")).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    let script = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1\nSTATUS=warm")
sys.stdin.read()
"#;
    let mut command = site.run(&["--notify", "job", "--", "python3", "-c", script]);
    command.env("NOTIFY_SOCKET", site.sandbox.path("manager"));
    let mut run = Proc::spawn(command.stdin(Stdio::piped()).stderr(Stdio::null()));
    let words = [(); 2].map(|()| {
        let mut word = [0; 256];
        let n = manager.recv(&mut word).expect("the child's words");
        String::from_utf8_lossy(&word[..n]).trim().to_owned()
    });
    assert_eq!(words, ["READY=1", "STATUS=warm"]);
    drop(run.child().stdin.take());
    assert_eq!(run.wait().code(), Some(0));
}

/// One that lives is no obstacle to be removed where nobody said so.
#[test]
fn a_predecessor_is_ended_only_where_that_was_declared() {
    for singleton in [false, true] {
        let site = Site::new(|sandbox| {
            format!(
                "[[service]]\nname = \"job\"\nexe = {:?}\nlisten = [\"unix:{}\"]\nsingleton = {singleton}\n",
                sandbox.path("annad"),
                sandbox.path("annad.sock").display()
            )
        });
        let exe = site.install_daemon();
        let socket = site.sandbox.path("annad.sock");
        let before = Daemon::at(&exe).unix(&socket).start();
        let (mut run, input) = site.daemon(&[], &exe, &["--unix", socket.to_str().unwrap()]);
        if singleton {
            before.wait_gone();
            until("the new one serves", || {
                std::os::unix::net::UnixStream::connect(&socket).is_ok()
            });
            run.signal(rustix::process::Signal::TERM);
            run.wait();
        } else {
            assert_eq!(run.wait().code(), Some(125));
            assert!(before.process().is_alive(), "it was left alone");
            assert!(
                std::os::unix::net::UnixStream::connect(&socket).is_ok(),
                "and so was its socket"
            );
        }
        drop(input);
    }
}
