//! A network of a test's own, for outages.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::{ask, process::Proc};

/// A network namespace with nothing but a loopback interface; it lives as long as this does.
#[derive(Debug)]
pub struct Network {
    keeper: Proc,
}

impl Network {
    #[expect(clippy::new_without_default, reason = "it has effects and may fail")]
    pub fn new() -> Self {
        // The keeper ends with its standard input, so a test that died leaves nothing behind.
        let script = "ip link set lo up && echo ready && exec cat";
        let mut keeper = Proc::spawn(
            Command::new("unshare")
                .args(["--net", "--", "sh", "-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let mut line = String::new();
        let output = keeper.child().stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("read its output");
        assert_eq!(line, "ready\n", "there is no network namespace with loopback");
        Self { keeper }
    }

    /// A command that runs a program there.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.keeper.pid()))
            .arg("--");
        command
    }

    /// From now on nothing that is sent arrives.
    pub fn cut(&self) {
        self.loopback("down");
    }

    pub fn mend(&self) {
        self.loopback("up");
    }

    fn loopback(&self, state: &str) {
        let output = ask::run(self.command().args(["ip", "link", "set", "lo", state]));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
}
