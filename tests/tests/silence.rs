//! `probe silence`: what is asked of the daemon, and what is said of its answers.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    thread::{self, JoinHandle},
};

use probe_tests::{Output, Sandbox, probe, run, schema::assert_fits};
use serde_json::{Value, json};

/// Answers one question. Returns its first line and its body.
fn answer(sandbox: &Sandbox, status: &str, body: &Value) -> JoinHandle<(String, String)> {
    let path = sandbox.path("probe.sock");
    _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("bind");
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        let mut stream = listener.accept().expect("a client").0;
        let mut text = String::new();
        let mut bytes = [0; 4096];
        loop {
            let n = stream.read(&mut bytes).expect("a question");
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
                let length: usize = length.map_or(0, |l| l.parse().expect("a length"));
                if body.len() == length {
                    stream.write_all(answer.as_bytes()).expect("the client reads");
                    let first = head.lines().next().unwrap_or_default();
                    return (first.to_owned(), body.to_owned());
                }
            }
        }
    })
}

fn ask(sandbox: &Sandbox, args: &[&str]) -> Output {
    run(probe(&["silence"])
        .args(args)
        .arg("--socket")
        .arg(sandbox.path("probe.sock")))
}

fn silence() -> Value {
    json!({
        "id": 7, "service": "annad", "reason": "moving the \u{1b}disk", "by_uid": 0,
        "since": "2026-01-02T03:04:05Z", "until": "2200-01-02T03:04:05Z",
    })
}

#[test]
fn it_begins_and_ends() {
    let sandbox = Sandbox::new();
    let daemon = answer(&sandbox, "200 OK", &silence());
    let output = ask(
        &sandbox,
        &["annad", "--for", "1h 500ms", "--reason", "moving the disk"],
    );
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert!(output.stdout.starts_with("annad is silenced for "), "{output:?}");
    assert!(
        output
            .stdout
            .ends_with(" (id 7) by uid 0: moving the \\x1bdisk\n"),
        "{output:?}"
    );
    let (first, body) = daemon.join().expect("it was asked");
    assert_eq!(first, "POST /v1/silences HTTP/1.1");
    let asked: Value = serde_json::from_str(&body).expect("JSON");
    // A part of a second is a second.
    let expected = json!({ "service": "annad", "seconds": 3601, "reason": "moving the disk" });
    assert_eq!(asked, expected);

    let daemon = answer(&sandbox, "200 OK", &silence());
    let output = ask(&sandbox, &["--end", "7", "--json"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert_fits("silence", &serde_json::from_str(&output.stdout).expect("JSON"));
    let (first, _) = daemon.join().expect("it was asked");
    assert_eq!(first, "DELETE /v1/silences/7 HTTP/1.1");
}

#[test]
fn those_that_there_are() {
    let sandbox = Sandbox::new();
    for json in [false, true] {
        let daemon = answer(&sandbox, "200 OK", &json!({ "v": 1, "silences": [silence()] }));
        let args: &[&str] = if json { &["--list", "--json"] } else { &["--list"] };
        let output = ask(&sandbox, args);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
        if json {
            assert_fits("silences", &serde_json::from_str(&output.stdout).expect("JSON"));
        } else {
            let lines: Vec<&str> = output.stdout.lines().collect();
            assert!(lines[0].starts_with("ID  SERVICE  LEFT"), "{output:?}");
            assert!(
                lines[1].starts_with("7   annad    ") && lines[1].ends_with("moving the \\x1bdisk"),
                "{output:?}"
            );
        }
        let (first, _) = daemon.join().expect("it was asked");
        assert_eq!(first, "GET /v1/silences HTTP/1.1");
    }
}

#[test]
fn what_the_daemon_refuses_it_says_why() {
    let sandbox = Sandbox::new();
    let why = "no service is named \"anad\"; did you mean \"annad\"?";
    let daemon = answer(&sandbox, "404 Not Found", &json!({ "v": 1, "error": why }));
    let output = ask(&sandbox, &["anad", "--for", "1h", "--reason", "x"]);
    assert_eq!((output.code, output.stderr), (Some(1), format!("probe: {why}\n")));
    daemon.join().expect("it was asked");
}

#[test]
fn what_does_not_belong_together_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for args in [
        &[][..],
        &["annad"],
        &["annad", "--for", "1h"],
        &["annad", "--reason", "x"],
        &["--list", "--end", "7"],
        &["annad", "--list"],
        &["--list", "--for", "1h"],
        &["annad", "--for", "soon", "--reason", "x"],
    ] {
        let output = ask(&sandbox, args);
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{args:?}: {output:?}");
    }
}
