//! Processes, paths and arguments that are named to do harm to whoever reads of them: none of it gets through, anywhere.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use probe_tests::{Attached, Daemon, Probed, Sandbox, patience, probe, run, until};

/// Sets a window's title, clears the screen, ends a line, turns text around.
const NAME: &str = "e\u{1b}]0;x\u{7}\u{1b}[2J\n\"'{kind}\u{202e}\u{9b}\\";
/// What no name in a configuration can be, and any file's can.
const NO_TEXT: &[u8] = b"k\x1b[2J\n\xff\xfe\"`$(id)";

#[test]
fn names_that_steer_terminals_reach_nobody_as_they_are() {
    let sandbox = Sandbox::new();
    let exe = sandbox.path(NAME);
    fs::rename(Daemon::install(&sandbox, "plain"), &exe).unwrap();
    let socket = sandbox.path(&format!("{NAME}.sock"));
    let heard = sandbox.path("heard");
    let killer = sandbox.dir().join(OsStr::from_bytes(NO_TEXT));
    fs::copy("/bin/kill", &killer).unwrap();
    let hook = format!(
        "\n[[hook]]\nname = \"n\"\nseverity = \"warning\"\nstates = [\"opened\"]\ngroup_wait = \"0s\"\n\
         exec = [\"/bin/sh\", \"-c\", \"printf '%s\\\\0' \\\"$@\\\" > $0.$$; env -0 >> $0.$$; printf '\\\\0\\\\0' >> $0.$$; cat >> $0.$$; \
         mv $0.$$ $0.heard\", {heard:?}, \"{{service}}\", \"{{subject}}\", \"{{kind}}\", \"{{summary}}\"]\n"
    );
    let config = format!(
        "[[service]]\nname = \"evil\"\nexe = {}\nlisten = [{}]\nready_within = \"700ms\"\n{hook}",
        toml(&exe),
        toml(&PathBuf::from(format!("unix:{}", socket.display()))),
    );
    let probed = Probed::start(&sandbox, &config);
    let people = Attached::for_people(probed.socket(), &[]);
    let program = Attached::to(probed.socket(), &[]);

    let daemon = Daemon::at(&exe).unix(&socket).start();
    until("it is ready", || probed.service("evil")["ready"] == true);
    let killed = Command::new(&killer)
        .arg0(OsStr::from_bytes(&[NO_TEXT, &b"\x1b".repeat(4096)].concat()))
        .args(["-KILL", &daemon.pid().to_string()])
        .stdin(Stdio::null())
        .status();
    assert!(killed.unwrap().success());
    daemon.wait_gone();

    program.expect("who did it", |l| {
        let l = &l.value;
        l["type"] == "finding" && l["kind"] == "crashed" && !l["actor"].is_null()
    });
    until("people are told", || said(&people).contains("stale-socket"));
    until("the hook has heard of it", || {
        sandbox.path("heard.heard").exists()
    });
    until("the history has it", || {
        probed.ask(&["history", "--json"]).stdout.contains("stale-socket")
    });

    let for_people = [
        ("watch", said(&people)),
        ("status", probed.ask(&["status"]).stdout),
        ("history", probed.ask(&["history"]).stdout),
        (
            "who",
            probed.ask(&["who", &format!("unix:{}", socket.display())]).stdout,
        ),
        (
            "check",
            run(&mut probe(&[
                "check",
                "--config",
                &probed.config().display().to_string(),
            ]))
            .stdout,
        ),
        ("the log", probed.log()),
    ];
    for (what, text) in for_people {
        assert!(
            text.contains("evil") || text.contains("sock"),
            "{what} says nothing: {text:?}"
        );
        plain(what, &text);
    }
    let for_programs = [
        ("watch --json", said(&program)),
        ("status --json", probed.ask(&["status", "--json"]).stdout),
        ("history --json", probed.ask(&["history", "--json"]).stdout),
    ];
    for (what, text) in for_programs {
        assert!(!text.is_empty(), "{what} says nothing");
        for line in text.lines() {
            json(what, line);
        }
    }
    let metrics = probed.http("GET", "/metrics").body;
    assert!(metrics.contains("evil"));
    plain("/metrics", &metrics);
    for line in metrics.lines().filter(|l| !l.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "a metric without a value: {line:?}");
    }

    let heard = fs::read(sandbox.path("heard.heard")).unwrap();
    let (words, input) = heard
        .windows(2)
        .position(|w| w == b"\0\0")
        .map(|at| (&heard[..at], &heard[at..]))
        .unwrap();
    let words: Vec<_> = words
        .split(|b| *b == 0)
        .map(|w| String::from_utf8(w.to_vec()).unwrap())
        .collect();
    let (arguments, environment) = words.split_at(4);
    assert_eq!(arguments[0], "evil");
    assert!(
        ["crashed", "stale-socket", "not-running"].contains(&&*arguments[2]),
        "{arguments:?}"
    );
    for word in arguments {
        plain("an argument of the hook", word);
        assert!(!word.contains('\n') && word.len() < 8192, "{word:?}");
    }
    assert!(
        environment.iter().any(|v| v.starts_with("PROBE_SUMMARY=")),
        "{environment:?}"
    );
    for variable in environment {
        plain("the hook's environment", variable);
        assert!(!variable.contains('\n') && variable.contains('='), "{variable:?}");
    }
    let input = String::from_utf8(input.to_vec()).unwrap();
    json("the hook's input", input.trim_matches(['\0', '\n']));
}

/// All lines until now.
fn said(watch: &Attached) -> String {
    watch.lines().iter().map(|l| format!("{}\n", l.raw)).collect()
}

/// A TOML string.
fn toml(path: &Path) -> String {
    let escaped: String = path
        .to_str()
        .expect("a path of this test is text")
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Nothing in it steers a terminal or turns text around.
#[track_caller]
fn plain(what: &str, text: &str) {
    let hostile = |c: char| {
        c != '\n' && (c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'))
    };
    let line = text.lines().find(|l| l.contains(hostile));
    assert!(line.is_none(), "{what}: {line:?}");
    // The name would end a line in its middle.
    assert!(
        !text.lines().any(|l| l.starts_with("\"'{kind}")),
        "{what} ends a line where the name does: {text:?}"
    );
}

#[track_caller]
fn json(what: &str, line: &str) {
    let steers = line.chars().any(char::is_control);
    assert!(!steers, "{what}: {line:?}");
    let value = serde_json::from_str::<serde_json::Value>(line);
    assert!(
        value.is_ok_and(|v| v.is_object()),
        "{what} is no object: {line:?}"
    );
}

/// The code of the answer to these bytes.
fn answered(probed: &Probed, question: &str) -> Option<u16> {
    let mut stream = UnixStream::connect(probed.socket()).expect("it listens");
    stream.set_read_timeout(Some(patience())).expect("a limit");
    // It may be refused before it is read to its end.
    _ = stream.write_all(question.as_bytes());
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_question_beyond_its_limits_is_refused() {
    let sandbox = Sandbox::new();
    let probed = Probed::start(&sandbox, "");
    let head =
        |first: &str, more: &str| format!("{first} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    let headers = |n: usize| (0..n).map(|i| format!("x{i}: y\r\n")).collect::<String>();
    let body = |n: usize| {
        let text = format!("content-type: application/json\r\ncontent-length: {}\r\n", n + 2);
        head("POST /v1/silences", &text) + "\"" + &"x".repeat(n) + "\""
    };
    for (what, question, code) in [
        ("an ordinary one", head("GET /healthz", &headers(10)), 200),
        ("80 headers", head("GET /healthz", &headers(80)), 431),
        (
            "a header of 200 KB",
            head("GET /healthz", &format!("x: {}\r\n", "y".repeat(200_000))),
            431,
        ),
        ("a body that means nothing", body(1000), 400),
        ("a body of 100 KB", body(100_000), 413),
    ] {
        assert_eq!(answered(&probed, &question), Some(code), "{what}");
    }
}

#[test]
fn clients_that_ask_nothing_are_few_and_let_go() {
    const ROOM: usize = 256;
    let sandbox = Sandbox::new();
    let probed = Probed::start(&sandbox, "");
    let question = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut silent: Vec<UnixStream> = Vec::new();
    for _ in 0..ROOM {
        let mut stream = UnixStream::connect(probed.socket()).expect("it listens");
        stream.write_all(b"GET /").expect("half a question");
        silent.push(stream);
    }
    assert_eq!(
        answered(&probed, question),
        Some(503),
        "there is no room for more"
    );
    // All of them still hold on, but not for ever.
    until("there is room again", || answered(&probed, question) == Some(200));
    drop(silent);
}
