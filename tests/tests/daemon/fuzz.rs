//! The API under questions that nobody thought of: schemathesis makes them from the OpenAPI document.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use probe_tests::{Probed, Sandbox, free_port, until_within};

use crate::scene::Service;

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
fn no_question_brings_a_server_error_or_an_undocumented_answer() {
    let program = schemathesis();
    let sandbox = Sandbox::new();
    let service = Service::new(&sandbox, "annad");
    let port = free_port();
    let probed = Probed::with(
        &sandbox,
        &format!("api_tcp = \"127.0.0.1:{port}\""),
        &service.toml(""),
    );
    let _daemon = service.ready(&probed);
    let out = sandbox.path("schemathesis.out");
    let file = std::fs::File::create(&out).expect("a file");
    let mut running = probe_tests::Proc::spawn(
        Command::new(program)
            .current_dir(sandbox.dir())
            .args(["run", "--no-color", "--seed", "1", "--max-examples", "30"])
            // A stream goes on for as long as somebody reads; whether it is refused in order is asked with `follow=false`.
            .args(["--exclude-operation-id", "events"])
            .args([
                "--checks",
                "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            ])
            .args(["--request-timeout", "10"])
            .arg(format!("http://127.0.0.1:{port}/openapi.json"))
            .env("SCHEMATHESIS_HOOKS", "")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file),
    );
    until_within(Duration::from_secs(110), "schemathesis is through", || {
        !running.is_alive()
    });
    let status = running.wait();
    let said = std::fs::read_to_string(&out).expect("what it said");
    println!("{said}");
    assert!(status.success(), "{status}\n{said}\n{}", probed.log());
    assert_eq!(probed.http("GET", "/healthz").code, 200);
}
