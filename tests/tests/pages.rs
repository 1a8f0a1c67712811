//! Shell completions and manual pages.

use std::{fs, process::Command};

use probe_tests::{Sandbox, probe, run};

const COMMANDS: [&str; 8] = [
    "watch", "daemon", "status", "check", "who", "wait", "history", "silence",
];

#[test]
fn completions_name_every_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&mut probe(&["completions", shell]));
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in COMMANDS.iter().chain(&["after-generation"]) {
            assert!(output.stdout.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            let script = sandbox.write("completion", &output.stdout);
            // As somebody would type it: `probe wa<TAB>`.
            let typed = "source \"$0\"; COMP_WORDS=(probe wa); COMP_CWORD=1; _probe probe wa probe; \
                         printf '%s\\n' \"${COMPREPLY[@]}\"";
            let completed = run(Command::new("bash").args(["-c", typed]).arg(script));
            let mut words: Vec<&str> = completed.stdout.lines().collect();
            words.sort_unstable();
            assert_eq!(words, ["wait", "watch"], "{completed:?}");
        }
    }
    let output = run(&mut probe(&["completions", "csh"]));
    assert_eq!(output.code, Some(2), "{output:?}");
}

#[test]
fn each_command_has_a_manual_page() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("man1");
    let output = run(probe(&["man"]).arg(&directory));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    let page = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let main = page("probe.1");
    assert_eq!(run(&mut probe(&["man"])).stdout, main);
    for command in COMMANDS {
        assert!(
            main.contains(&format!("probe\\-{command}(1)")),
            "{command}: {main}"
        );
        let own = page(&format!("probe-{command}.1"));
        assert!(
            own.starts_with(".ie") && own.contains(".SH SYNOPSIS"),
            "{command}: {own}"
        );
    }
    assert!(page("probe-wait.1").contains("124"));
    page("probe-config-schema.1");
}
