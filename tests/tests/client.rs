//! Daemons that hang, each in its way: whoever asks is told in time, and by the exit code.

use std::{
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use probe_tests::{Output, Sandbox, probe, run};

/// Limits that are told apart by how long a command took.
const LIMITS: &str = "timeouts = { connect = \"300ms\", write = \"300ms\", read = \"700ms\" }";

#[expect(clippy::disallowed_methods, reason = "what a person waits is real time")]
fn timed(f: impl FnOnce() -> Output) -> (Output, Duration) {
    let began = Instant::now();
    let output = f();
    (output, began.elapsed())
}

struct Place {
    sandbox: Sandbox,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let socket = sandbox.path("probe.sock");
        sandbox.write("probe.toml", &format!("[probe]\nsocket = {socket:?}\n{LIMITS}\n"));
        Self { sandbox, socket }
    }

    fn ask(&self, args: &[&str]) -> Output {
        run(probe(args).arg("--config").arg(self.sandbox.path("probe.toml")))
    }

    /// Whoever connects is treated by `talk`, after the head of the question was read.
    fn serve(&self, talk: impl Fn(UnixStream) + Send + Sync + Clone + 'static) {
        let listener = UnixListener::bind(&self.socket).expect("bind");
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let talk = talk.clone();
                thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                        head.extend(byte);
                    }
                    talk(stream);
                });
            }
        });
    }

    /// Every command that asks the daemon ends after `limit`, says in which phase, and has exit code 7.
    #[track_caller]
    fn assert_late(&self, phase: &str, limit: Duration) {
        for args in [
            &["status"][..],
            &["wait", "annad", "--ready"],
            &["silence", "--list"],
        ] {
            let (output, took) = timed(|| self.ask(args));
            assert_eq!(output.code, Some(7), "{args:?}: {output:?}");
            let first = output.stderr.lines().next();
            assert_eq!(
                first,
                Some(format!("WARN: timeout ({phase})").as_str()),
                "{args:?}: {output:?}"
            );
            assert_eq!(output.stdout, "", "{args:?}");
            assert!(took >= limit, "{args:?}: {took:?}");
            println!("{args:?}: timeout ({phase}) after {took:?}, limit {limit:?}");
        }
    }
}

/// Until the other side hangs up.
fn say_no_more(mut stream: UnixStream) {
    _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn one_that_accepts_and_never_answers() {
    let place = Place::new();
    place.serve(say_no_more);
    place.assert_late("read", Duration::from_millis(700));
}

#[test]
fn one_that_answers_half() {
    let place = Place::new();
    place.serve(|mut stream| {
        let half =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"v\":1,";
        _ = stream.write_all(half);
        say_no_more(stream);
    });
    // The lines of a stream may take as long as they like; what is asked for beside it may not.
    place.assert_late("read", Duration::from_millis(700));
}

#[test]
fn one_that_hangs_up_in_the_middle() {
    let place = Place::new();
    place.serve(|mut stream| _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"));
    let output = place.ask(&["status"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("broke off its answer"), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
}

#[test]
fn one_whose_queue_is_full() {
    let place = Place::new();
    let waiting = fill(&place.socket);
    assert!(!waiting.1.is_empty());
    place.assert_late("connect", Duration::from_millis(300));
}

/// A listener whose queue has no room, and who stands in it.
fn fill(path: &Path) -> (std::os::fd::OwnedFd, Vec<std::os::fd::OwnedFd>) {
    let address = UnixAddr::new(path).expect("a short path");
    let unix = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("socket");
    let listener = unix(SockFlag::SOCK_CLOEXEC);
    bind(listener.as_raw_fd(), &address).expect("bind");
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("listen");
    let mut waiting = Vec::new();
    loop {
        let client = unix(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => waiting.push(client),
            Err(nix::Error::EAGAIN) => return (listener, waiting),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn without_a_configuration_the_limits_are_those_that_are_promised() {
    let place = Place::new();
    place.serve(say_no_more);
    let (output, took) = timed(|| run(probe(&["status", "--socket"]).arg(&place.socket)));
    assert_eq!(output.code, Some(7), "{output:?}");
    assert!(output.stderr.starts_with("WARN: timeout (read)\n"), "{output:?}");
    assert!(took >= Duration::from_secs(5), "{took:?}");
    println!("timeout (read) after {took:?}, limit 5s");
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let place = Place::new();
    for args in [
        &["status"][..],
        &["wait", "annad", "--stopped"],
        &["silence", "--list"],
    ] {
        let output = place.ask(args);
        assert_eq!(output.code, Some(1), "{args:?}: {output:?}");
        assert!(
            output.stderr.contains("start `probe daemon`"),
            "{args:?}: {output:?}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "{args:?}: {output:?}");
    }
    // A socket file that outlived its daemon is no daemon either.
    drop(UnixListener::bind(&place.socket).expect("bind"));
    let output = place.ask(&["status"]);
    assert_eq!(output.code, Some(1), "{output:?}");
}
