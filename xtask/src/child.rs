//! Child processes, each in its own process group and with a time limit.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a running child is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long output is still read after the child ended: something that it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a child that was asked to stop may take.
const STOP: Duration = Duration::from_secs(5);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on an interrupt ends the running child and lets clean-up happen, instead of ending us at once.
/// A second one ends us at once.
pub(crate) fn catch_interrupts() -> io::Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Default::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(())
}

/// Whether somebody asked this command to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

#[expect(
    clippy::disallowed_methods,
    reason = "durations of builds and tests; nothing here is replayed"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Runs `command` with a time limit and hands every line of its output to `line`, as it comes.
///
/// Whatever of its process group is left at its end, at the limit or at an interrupt is ended too.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let name = describe(command);
    let (reader, writer) = io::pipe().context("make a pipe")?;
    // One pipe for both streams keeps their lines in order.
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = Group::spawn(command)?;
    // The command keeps its ends of the pipe: without them gone the end of the output never comes.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                return;
            }
            bytes.clear();
        }
    });

    let deadline = now() + limit;
    let mut ended = None;
    loop {
        match lines.recv_timeout(TICK) {
            Ok(text) => line(text.trim_end_matches('\n')),
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() && child.has_ended()? {
            ended = Some(now());
        }
        if ended.is_some_and(|at| now() > at + DRAIN) {
            break;
        }
        if interrupted() {
            child.stop();
            bail!("{name}: interrupted");
        }
        if now() > deadline {
            child.stop();
            bail!("{name}: ended after its time limit of {} s", limit.as_secs());
        }
    }
    child.finish().with_context(|| format!("wait for {name}"))
}

/// Runs `command`, shows its output, and fails unless it succeeds.
pub(crate) fn show(command: &mut Command, limit: Duration) -> anyhow::Result<()> {
    println!("$ {}", describe(command));
    let status = run(command, limit, print)?;
    anyhow::ensure!(status.success(), "{}: {status}", describe(command));
    Ok(())
}

/// Runs `command` and returns what it prints on both streams; fails, naming that output, unless it succeeds.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let mut output = String::new();
    // Answers are on the standard output alone; warnings on the other stream would spoil them.
    let name = describe(command);
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    command
        .stdin(Stdio::null())
        .stderr(file.try_clone()?)
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = Group::spawn(command)?;
    let mut stdout = child.0.stdout.take().context("no standard output")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut stdout, &mut bytes).map(|_| bytes)
    });
    let deadline = now() + limit;
    while !child.has_ended()? {
        if interrupted() || now() > deadline {
            child.stop();
            bail!("{name}: ended after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let status = child.finish()?;
    let bytes = reader
        .join()
        .map_err(|_| anyhow::anyhow!("{name}: its output could not be read"))??;
    output.push_str(&String::from_utf8_lossy(&bytes));
    if !status.success() {
        let mut errors = String::new();
        io::Seek::rewind(&mut file)?;
        io::Read::read_to_string(&mut file, &mut errors).unwrap_or_default();
        bail!("{name}: {status}: {}", errors.trim());
    }
    Ok(output)
}

/// Prints a line of a child at once.
pub(crate) fn print(line: &str) {
    let mut stdout = io::stdout().lock();
    // A closed output is no reason to leave a build half done.
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// The command line, for people.
pub(crate) fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A child that leads its own process group. It isn't reaped before its group was ended, so the number of the
/// group can't come to mean somebody else's.
pub(crate) struct Group(pub(crate) Child);

impl Group {
    /// Starts `command`, which must ask for a process group of its own.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        command.process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", describe(command)))?;
        Ok(Self(child))
    }

    pub(crate) fn has_ended(&self) -> anyhow::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(error).context("wait for a child"),
        }
    }

    /// Asks the group to stop, then ends it.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = now() + STOP;
        while now() < deadline && !self.has_ended().unwrap_or(true) {
            thread::sleep(TICK);
        }
    }

    /// Ends what is left of the group and reaps the child.
    pub(crate) fn finish(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.0.wait()
    }

    fn signal(&self, signal: Signal) {
        // The only error left is that nobody is there to be signalled.
        let _ = killpg(self.pid(), signal);
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `finish` the child is reaped and its number may mean somebody else's.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            drop(self.0.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_and_the_status_arrive() {
        let mut lines = Vec::new();
        let mut command = Command::new("bash");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let status = run(&mut command, Duration::from_secs(10), |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn the_time_limit_ends_the_whole_group() {
        let mut pids = Vec::new();
        let mut command = Command::new("bash");
        command.args(["-c", "sleep 600 & echo $!; echo $$; wait"]);
        let error = run(&mut command, Duration::from_millis(300), |line| {
            pids.push(line.to_owned())
        })
        .unwrap_err();
        assert!(error.to_string().contains("time limit"), "{error}");
        assert_eq!(pids.len(), 2);
        for pid in pids {
            // A killed process that init has not reaped yet still has a directory, but no command line.
            let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert!(!command_line.starts_with(b"sleep\x00600"), "{pid} survived");
        }
    }

    #[test]
    fn somebody_who_keeps_the_pipe_open_is_not_waited_for() {
        let started = now();
        let mut command = Command::new("bash");
        command.args(["-c", "setsid sleep 30 & echo done"]);
        let status = run(&mut command, Duration::from_secs(20), |_| {}).unwrap();
        assert!(status.success());
        assert!(now() - started < Duration::from_secs(10));
    }
}
