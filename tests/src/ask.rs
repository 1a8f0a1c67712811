//! Programs that run to their end.

use std::{
    fs::File,
    io::{Read, Seek},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{clock::patience, process::Proc};

/// What a program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The `probe` under test with these arguments.
pub fn probe<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(crate::probe_binary());
    command.args(args);
    command
}

/// Runs a program to its end, which must come in time.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_within(patience(), command)
}

/// Likewise, for a script.
#[track_caller]
pub fn run_within(limit: Duration, command: &mut Command) -> Output {
    // Files cannot fill up and block it, as pipes can.
    let (stdout, stderr) = (file(), file());
    command
        .stdin(Stdio::null())
        .stdout(clone(&stdout))
        .stderr(clone(&stderr));
    let status = Proc::spawn(command).wait_within(limit);
    Output {
        code: status.code(),
        stdout: content(stdout),
        stderr: content(stderr),
    }
}

fn file() -> File {
    tempfile::tempfile().expect("temporary file")
}

fn clone(file: &File) -> File {
    file.try_clone().expect("second descriptor")
}

fn content(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("read back");
    String::from_utf8_lossy(&bytes).into_owned()
}
