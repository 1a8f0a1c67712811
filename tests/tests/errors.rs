//! Errors that a person can act on: one clear line, the right exit code, no stack trace.

use std::{fs, process::Command};

use probe_tests::{Output, Sandbox, probe, probe_binary, run};

/// One line that says all of this, and exit code `code`. Only the excerpt of a file may follow, indented.
fn assert_one_line(output: &Output, code: i32, says: &[&str]) {
    assert_eq!(output.code, Some(code), "{}", output.stderr);
    let mut lines = output.stderr.lines();
    let first = lines.next().expect("it says why");
    for text in says {
        assert!(first.contains(text), "{text:?} is missing: {}", output.stderr);
    }
    assert!(
        lines.all(|l| l.starts_with(' ')),
        "one line was expected: {}",
        output.stderr
    );
    assert!(output.stdout.is_empty(), "{}", output.stdout);
}

/// Copies probe to where every user may run it.
fn setpriv(sandbox: &Sandbox, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(options)
        .arg(sandbox.install(&probe_binary(), "probe"));
    command
}

#[test]
fn not_root_names_what_is_missing() {
    let sandbox = Sandbox::new();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];

    let output = run(setpriv(&sandbox, &nobody).args(["watch", "--tcp", "1"]));

    assert_one_line(&output, 1, &["root", "CAP_BPF"]);
}

#[test]
fn root_without_a_capability_names_it() {
    let sandbox = Sandbox::new();
    let less = ["--bounding-set=-bpf,-sys_admin", "--inh-caps=-all"];

    let output = run(setpriv(&sandbox, &less).args(["watch", "--tcp", "1"]));

    assert_one_line(&output, 1, &["CAP_BPF"]);
}

#[test]
fn an_address_that_does_not_parse_is_a_usage_error() {
    let long = format!("/{}", "a".repeat(107));
    for (args, says) in [
        (["--tcp", "localhost:80"], "host name"),
        (["--tcp", "99999"], "65535"),
        (["--udp", "0"], "65535"),
        (["--unix", &long], "107"),
    ] {
        let output = run(probe(&["watch"]).args(args));

        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(
            output.stderr.contains(args[1]) && output.stderr.contains(says),
            "{args:?}: {}",
            output.stderr
        );
    }
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let output = run(&mut probe(&["watch", "--jsn"]));

    assert_eq!(output.code, Some(2));
    assert!(
        output.stderr.contains("--json"),
        "the nearest option is named: {}",
        output.stderr
    );
}

#[test]
fn an_unknown_key_names_file_line_column_and_the_nearest_key() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "probe.toml",
        "[[service]]\nname = \"annad\"\n  lisen = [\"tcp:80\"]\n",
    );

    let output = run(probe(&["watch", "--config"]).arg(&file));

    let place = format!("{}:3:3", file.display());
    assert_one_line(&output, 1, &[&place, "lisen", "listen"]);
}

#[test]
fn wrong_values_name_file_line_and_column() {
    let sandbox = Sandbox::new();
    for (line, says) in [
        ("listen = [\"tcp:0\"]", "1 to 65535"),
        ("ready_within = \"soon\"", "duration"),
        ("stop_signals = [\"TREM\"]", "TREM"),
        ("max_instances = \"two\"", "two"),
        ("listen = [", "array"),
    ] {
        let file = sandbox.write("probe.toml", &format!("[[service]]\nname = \"annad\"\n{line}\n"));

        let output = run(probe(&["watch", "--config"]).arg(&file));

        assert_one_line(&output, 1, &[&format!("{}:3:", file.display()), says]);
    }
}

#[test]
fn a_configuration_file_that_does_not_exist_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("missing.toml");

    let output = run(probe(&["watch", "--config"]).arg(&file));

    assert_one_line(&output, 1, &[&file.display().to_string()]);
}

#[test]
fn two_services_of_one_name_are_an_error() {
    let sandbox = Sandbox::new();
    let service = |port: u16| format!("[[service]]\nname = \"annad\"\nlisten = [\"tcp:{port}\"]\n");
    let file = sandbox.write("probe.toml", &(service(80) + &service(81)));

    let output = run(probe(&["watch", "--config"]).arg(&file));

    assert_one_line(&output, 1, &[&format!("{}:5:1", file.display()), "annad"]);
}

#[test]
fn a_recording_that_is_none_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("trace.jsonl");
    for content in ["", "no trace\n", "{\"v\":999}\n"] {
        fs::write(&file, content).expect("write");

        let output = run(probe(&["replay"]).arg(&file));

        assert_one_line(&output, 1, &[&file.display().to_string()]);
    }
}
