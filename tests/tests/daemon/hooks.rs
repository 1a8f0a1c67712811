//! Whom the daemon tells.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use probe_tests::{Probed, Sandbox, free_port, table::row, until};

use crate::scene::{Service, hook, noted, noting};

#[test]
fn one_cause_makes_one_notification() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file = sandbox.path("noted");
    let probed = Probed::start(
        &sandbox,
        &format!("{}{}", service.toml(""), noting("note", &file, "")),
    );
    let first = service.ready(&probed);
    service.kill(&first);
    until("the crash is told", || {
        hook(&probed, "note")["results"]["ok"] == 1
    });
    assert_eq!(
        noted(&file),
        ["annad opened crashed"],
        "the stale socket has the same cause"
    );
    service.ready(&probed);
    until("its end is told", || hook(&probed, "note")["results"]["ok"] == 2);
    assert_eq!(noted(&file), ["annad opened crashed", "annad resolved crashed"]);
    until("the history has both", || {
        let told = probed.ask(&["history", "--kind", "action", "--json"]).stdout;
        told.matches("\"action\":\"hook\"").count() == 2
    });
}

#[test]
fn a_silenced_service_is_not_told_of() {
    let sandbox = Sandbox::new();
    let (quiet, loud) = (Service::new(&sandbox, "quiet"), Service::new(&sandbox, "loud"));
    let file = sandbox.path("noted");
    let hook_of = noting("note", &file, "group_wait = \"100ms\"");
    let mut probed = Probed::start(&sandbox, &format!("{}{}{hook_of}", quiet.toml(""), loud.toml("")));
    let silence = probed.ask_json(&["silence", "quiet", "--for", "1h", "--reason", "an upgrade"]);
    // It survives a restart of probe.
    probed.stop();
    probed.begin();
    let known = probed.service("quiet");
    assert_eq!(known["silenced"]["reason"], "an upgrade", "{known}");

    let daemons = (quiet.ready(&probed), loud.ready(&probed));
    quiet.kill(&daemons.0);
    until("it is found all the same", || {
        probed.service("quiet")["verdict"] == "finding"
    });
    loud.kill(&daemons.1);
    until("the other one is told of", || {
        hook(&probed, "note")["results"]["ok"] == 1
    });
    assert_eq!(noted(&file), ["loud opened crashed"]);

    // What is still wrong when the silence ends is told then.
    probed.ask_json(&["silence", "--end", &silence["id"].to_string()]);
    until("it is told of", || noted(&file).len() == 2);
    assert_eq!(noted(&file)[1], "quiet opened crashed");
}

#[test]
fn a_hook_that_hangs_delays_nobody() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file = sandbox.path("noted");
    // It ignores the polite signal, and so does its child.
    let pids = sandbox.path("pids");
    let hangs = format!(
        "\n[[hook]]\nname = \"hangs\"\nseverity = \"warning\"\ntimeout = \"1h\"\n\
         exec = [\"/bin/sh\", \"-c\", \"trap '' TERM; sleep 60 & echo $$ $! > $0; wait; wait\", {pids:?}]\n"
    );
    let config = format!("{}{hangs}{}", service.toml(""), noting("note", &file, ""));
    let mut probed = Probed::start(&sandbox, &config);
    let first = service.ready(&probed);
    service.kill(&first);
    until("the other hook tells", || noted(&file).len() == 1);
    until("this one is at it", || hook(&probed, "hangs")["busy"] == true);
    // The engine goes on, too.
    service.ready(&probed);
    until("the end is told", || noted(&file).len() == 2);
    assert_eq!(hook(&probed, "hangs")["busy"], true);
    let metrics = probed.http("GET", "/metrics").body;
    assert!(
        metrics.contains("probe_hook_queue_length{hook=\"hangs\"}"),
        "{metrics}"
    );

    let text = fs::read_to_string(&pids).expect("the pids of what hangs");
    let pids: Vec<u32> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{text}");
    probed.stop();
    let log = probed.log();
    let took = log
        .rsplit_once("stopped after ")
        .map(|(_, took)| took.trim().to_owned());
    assert!(took.as_ref().is_some_and(|t| t.ends_with("ms")), "{log}");
    let took = took.unwrap_or_default();
    row(
        "faults",
        &[
            "a hook that hangs",
            "it is busy, what waits is counted",
            &format!("other hooks and the engine go on; stopped after {took}"),
        ],
    );
    for pid in pids {
        until("what the hook ran is gone", || {
            probe_tests::state(pid).is_none_or(|s| s == 'Z')
        });
    }
}

#[test]
fn what_waits_survives_a_kill_9_of_probe() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let port = free_port();
    let webhook = format!(
        "\n[[hook]]\nname = \"web\"\nseverity = \"warning\"\nwebhook = \"http://127.0.0.1:{port}/told\"\n"
    );
    let mut probed = Probed::start(&sandbox, &format!("{}{webhook}", service.toml("")));
    let first = service.ready(&probed);
    service.kill(&first);
    // Nobody listens there.
    until("it was tried in vain", || {
        hook(&probed, "web")["failed_attempts"]
            .as_u64()
            .is_some_and(|n| n > 0)
    });
    let said = probed.ask(&["status"]);
    assert!(said.stdout.contains("hook web: has failed "), "{said:?}");
    probed.kill();

    let server = TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    let posts = thread::spawn(move || post(&server));
    probed.begin();
    let body = posts.join().expect("a post");
    assert!(body.contains("\"crashed\"") && body.contains("annad"), "{body}");
    until("it is known to be told", || {
        let hook = hook(&probed, "web");
        (&hook["results"]["ok"], &hook["waiting"]) == (&1.into(), &0.into())
    });
}

/// Takes one request, answers 200, and returns its body.
fn post(server: &TcpListener) -> String {
    let (stream, _) = server.accept().expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a limit");
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    reader.get_mut().write_all(answer).expect("answered");
    String::from_utf8(body).expect("text")
}
