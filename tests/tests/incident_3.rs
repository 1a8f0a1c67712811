//! Incident 3: two agents, which are shell scripts, and the one that was only stopped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use probe_tests::{Proc, Sandbox, Watch, until};

/// Beats until its standard input ends.
const AGENT: &str = "#!/bin/bash\nwhile read -t 0.2; [ $? -gt 128 ]; do date +%s > \"$1\"; done\n";

struct Agent {
    sandbox: Sandbox,
    script: PathBuf,
    beat: PathBuf,
}

impl Agent {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (script, beat) = (sandbox.write("agent.sh", AGENT), sandbox.path("heartbeat"));
        Self {
            sandbox,
            script,
            beat,
        }
    }

    fn start(&self) -> Proc {
        let agent = start(Command::new("/bin/bash").arg(&self.script).arg(&self.beat));
        until("the agent beats", || self.beat.exists());
        agent
    }

    fn watch(&self) -> Watch {
        let Self { script, beat, .. } = self;
        let config = format!(
            "[[service]]\nname = \"agent\"\nscript = {script:?}\nready_within = \"500ms\"\noverlap = \"300ms\"\n\
             heartbeat = {{ file = {beat:?}, stale_after = \"1900ms\" }}\n"
        );
        Watch::start(&self.sandbox, &config)
    }
}

fn start(command: &mut Command) -> Proc {
    Proc::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()))
}

#[test]
fn a_second_one_that_was_started_by_hand() {
    let agent = Agent::new();
    let first = agent.start();
    let watch = agent.watch();

    let second = agent.start();

    let duplicate = watch.expect("duplicate-instance", "agent");
    duplicate.says(first.pid()).says(second.pid());
    duplicate.says(format!("parent {}", std::process::id()));
    drop(second);
    watch.expect_resolved("duplicate-instance", "agent");
    watch.stop();
}

#[test]
fn whoever_only_reads_the_script_is_no_agent() {
    let agent = Agent::new();
    let first = agent.start();
    let watch = agent.watch();

    // `pgrep -f` would take each of them for one.
    let reader = start(Command::new("tail").arg("-f").arg(&agent.script));
    let talker = start(
        Command::new("/bin/bash")
            .arg("-c")
            .arg(format!("read # {}", agent.script.display())),
    );

    watch.expect_nothing();
    watch.stop();
    drop((first, reader, talker));
}

#[test]
fn a_stopped_one_is_not_gone() {
    let agent = Agent::new();
    let first = agent.start();
    let watch = agent.watch();

    let sender = probe_tests::kill("STOP", first.pid());

    let stale = watch.expect("stale-heartbeat", "agent");
    stale.by(sender).says(first.pid()).says("is stopped");
    probe_tests::kill("CONT", first.pid());
    watch.expect_resolved("stale-heartbeat", "agent");
    watch.stop();
    assert!(Path::new(&format!("/proc/{}", first.pid())).exists());
}
