//! Real programs on the running kernel.

use std::{fs, path::PathBuf};

use super::*;

fn script(text: &str) -> Run {
    Run {
        argv: vec!["/bin/sh".into(), "-c".into(), text.into()],
        environment: vec![("PROBE_KIND".into(), "crashed".into())],
        user: None,
        input: b"{}\n".to_vec(),
        limit: Duration::from_secs(30),
        rest: Rest::End,
    }
}

fn on_runtime<T>(f: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(f);
    runtime.shutdown_background();
    result
}

fn run(run: Run) -> Ran {
    on_runtime(Runner::default().run(run))
}

/// Whether a process runs; a zombie does not.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(
        stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]),
        None | Some("Z" | "X")
    )
}

fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain until {what}");
}

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("probe-exec-{name}-{}", std::process::id())))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_environment_is_small_and_nothing_is_inherited() {
    // A descriptor without the flag that closes it.
    // SAFETY: descriptor 2 is open in a test.
    let leak = unsafe { libc::fcntl(2, libc::F_DUPFD, 400) };
    let ran = run(script(
        "env | sort; pwd; ls /proc/$$/fd; ps -o pgid= -p $$ | tr -d ' '; echo $$",
    ));
    // SAFETY: it was opened above, and nobody else knows it.
    unsafe { libc::close(leak) };
    assert_eq!(ran.end, End::Exited(0), "{}", ran.output);
    let lines: Vec<&str> = ran.output.split("\\n").collect();
    let (environment, rest) = lines.split_at(lines.iter().position(|l| *l == "/").unwrap());
    let names: Vec<&str> = environment.iter().map(|l| l.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        ["HOME", "LANG", "PATH", "PROBE_KIND", "PWD"],
        "{}",
        ran.output
    );
    // The shell may have a descriptor of its own open for its script.
    assert!(!rest.contains(&leak.to_string().as_str()), "{}", ran.output);
    assert_eq!(
        rest[rest.len() - 2],
        rest[rest.len() - 1],
        "it leads a group of its own"
    );
}

#[test]
fn it_becomes_the_user_with_the_users_groups() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    // A group of probe's own that must not go with it.
    let own = nix::unistd::getgroups().unwrap();
    let adm = nix::unistd::Gid::from_raw(4);
    nix::unistd::setgroups(&[adm]).unwrap();
    let ran = run(Run {
        user: Some("nobody".into()),
        ..script("id -u; id -g; id -G; echo $HOME $USER $LOGNAME")
    });
    nix::unistd::setgroups(&own).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let expected = format!(
        "{0}\\n{1}\\n{1}\\n{2} nobody nobody",
        nobody.uid,
        nobody.gid,
        nobody.dir.display()
    );
    assert_eq!(ran.output, expected);
    let ran = run(Run {
        user: Some("no-such-user".into()),
        ..script("id")
    });
    assert_eq!(
        ran.end,
        End::NotStarted("there is no user \"no-such-user\"".into())
    );
}

#[test]
fn the_input_is_there_and_need_not_be_read() {
    assert_eq!(run(script("cat")).output, "{}");
    let ran = run(Run {
        input: vec![b'x'; 1 << 20],
        ..script("exit 3")
    });
    assert_eq!(ran.end, End::Exited(3));
}

#[test]
fn only_the_end_of_what_it_writes_is_kept() {
    let ran = run(script("yes | head -c 1000000; printf 'last\\033[2J' >&2"));
    assert!(ran.output.starts_with("(995"), "{}", ran.output);
    assert!(ran.output.ends_with("last\\x1b[2J"), "{}", ran.output);
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut none = script("");
    none.argv = vec!["/no/such/program".into()];
    let ran = run(none);
    assert_eq!(ran.end.code(), 125);
    assert_eq!(
        ran.end.to_string(),
        "cannot run /no/such/program: No such file or directory (os error 2)"
    );
    assert_eq!(run(script("kill -9 $$")).end.to_string(), "killed by KILL");
}

#[test]
fn a_group_that_ignores_sigterm_is_killed_when_its_time_is_over() {
    let pids = File::new("ignores");
    let path = pids.0.display();
    let ran = run(Run {
        limit: Duration::from_millis(500),
        ..script(&format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $$ $! > {path}; while :; do sleep 1; done"
        ))
    });
    assert_eq!(ran.end.code(), 124);
    assert_eq!(ran.end.to_string(), "time-out after 500ms, exit code 124");
    let pids = pids.text();
    assert_eq!(pids.split(' ').count(), 2, "{pids}");
    for pid in pids.split(' ') {
        until("the group is gone", || !lives(pid));
    }
}

#[test]
fn a_group_is_asked_to_end_first_and_given_time() {
    let ran = run(Run {
        limit: Duration::from_millis(500),
        ..script("trap 'sleep 0.3; echo bye; exit 0' TERM; while :; do sleep 0.1; done")
    });
    assert_eq!(ran.end.code(), 124, "that it ended well then changes nothing");
    assert!(ran.output.ends_with("bye"), "{}", ran.output);
    // Who is stopped could not even be asked.
    let ran = run(Run {
        limit: Duration::from_millis(500),
        ..script("trap 'echo bye; exit 0' TERM; kill -STOP $$; sleep 100")
    });
    assert!(ran.end.code() == 124 && ran.output.ends_with("bye"), "{ran:?}");
}

#[test]
fn what_it_leaves_behind_ends_with_it_unless_it_starts_a_daemon() {
    let pid = File::new("leaves");
    let text = format!("sleep 1000 & echo $! > {}", pid.0.display());
    assert_eq!(run(script(&text)).end, End::Exited(0));
    let left = pid.text();
    until("it is gone", || !lives(&left));
    let ran = run(Run {
        rest: Rest::Leave,
        ..script(&text)
    });
    assert_eq!(ran.end, End::Exited(0));
    let left = pid.text();
    assert!(lives(&left), "a daemon goes on");
    let left = rustix::process::Pid::from_raw(left.parse().unwrap()).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn it_is_killed_when_nobody_waits_for_it_any_more() {
    let pids = File::new("dropped");
    let run = script(&format!("sleep 1000 & echo $$ $! > {}; wait", pids.0.display()));
    on_runtime(async {
        let runner = Runner::default();
        let running = tokio::spawn(async move { runner.run(run).await });
        while pids.text().split(' ').count() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    });
    for pid in pids.text().split(' ') {
        until("the group is gone", || !lives(pid));
    }
}
