//! The API under questions that nobody thought of: schemathesis makes them from the OpenAPI document.

use std::{
    env, fs, io,
    net::{Shutdown, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use probe_tests::{Probed, Proc, Sandbox, free_port, until_within};

use crate::scene::{Service, noting};

/// For one run, on a busy machine.
const LIMIT: Duration = Duration::from_secs(110);

/// Where `cargo xtask test` installs it.
fn schemathesis() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let program = target.join("schemathesis/bin/schemathesis");
    assert!(
        program.exists(),
        "{} is missing: `cargo xtask test e2e` installs it from PyPI",
        program.display()
    );
    program
}

#[test]
fn no_question_over_tcp_brings_a_server_error_or_an_undocumented_answer() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let port = free_port();
    let probed = Probed::with(
        &sandbox,
        &format!("api_tcp = \"127.0.0.1:{port}\""),
        &service.toml(""),
    );
    let _daemon = service.ready(&probed);
    fuzz(&sandbox, &probed, port);
}

/// Who may act asks over the UNIX socket, which schemathesis does not speak.
#[test]
fn nor_does_one_of_root() {
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let file = sandbox.path("noted");
    let config = format!("{}{}", service.toml(""), noting("note", &file, ""));
    let probed = Probed::start(&sandbox, &config);
    let _daemon = service.ready(&probed);
    let port = forward(probed.socket());
    fuzz(&sandbox, &probed, port);

    // The stream, which would go on for as long as somebody reads.
    let code = |query: &str| probed.http("GET", &format!("/v1/events?{query}")).code;
    for right in [
        "follow=false",
        "follow=false&since=0",
        "follow=false&since=10m&service=annad,x&only=event&kind=signal,crashed",
        "follow=false&since=another.7",
    ] {
        assert_eq!(code(right), 200, "{right}");
    }
    for wrong in [
        "follow=perhaps",
        "since=",
        "since=yesterday",
        "since=-1",
        "only=events",
        "kind=crash",
        "more=1",
    ] {
        assert_eq!(code(wrong), 400, "{wrong}");
    }
}

/// Takes connections on a port, and makes each one of ours to the socket.
fn forward(socket: &Path) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let socket = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = UnixStream::connect(&socket) else {
                continue;
            };
            let (mut from, mut to) = (
                client.try_clone().expect("a descriptor"),
                server.try_clone().expect("a descriptor"),
            );
            thread::spawn(move || {
                _ = io::copy(&mut from, &mut to);
                _ = to.shutdown(Shutdown::Write);
            });
            let (mut from, mut to) = (server, client);
            thread::spawn(move || {
                _ = io::copy(&mut from, &mut to);
                _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[track_caller]
fn fuzz(sandbox: &Sandbox, probed: &Probed, port: u16) {
    let out = sandbox.path("schemathesis.out");
    let file = fs::File::create(&out).expect("a file");
    let mut running = Proc::spawn(
        Command::new(schemathesis())
            .current_dir(sandbox.dir())
            .args(["run", "--no-color", "--seed", "1", "--max-examples", "30"])
            .args(["--exclude-operation-id", "events"])
            .args([
                "--checks",
                "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            ])
            .args(["--request-timeout", "10"])
            .arg(format!("http://127.0.0.1:{port}/openapi.json"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file),
    );
    until_within(LIMIT, "schemathesis is through", || !running.is_alive());
    let status = running.wait();
    let said = fs::read_to_string(&out).expect("what it said");
    assert!(status.success(), "{status}\n{said}\n{}", probed.log());
    let cases = said
        .lines()
        .find(|l| l.contains(" generated, "))
        .unwrap_or_default();
    println!("{cases}");
    assert!(!cases.is_empty(), "{said}");
    assert_eq!(probed.http("GET", "/healthz").code, 200);
}
