//! The tools that people use today.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use probe_user::clock;

/// Whether a program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .any(|directory| directory.join(program).is_file())
}

/// Runs a command to its end and says how long that took, in nanoseconds.
pub(crate) fn time(command: &mut Command) -> anyhow::Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = clock::now();
    let status = command
        .status()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    let took = clock::now().since(began);
    ensure!(status.success(), "{}: {status}", command.get_program().display());
    Ok(nanos(took))
}

pub(crate) fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

pub(crate) fn lsof(path: &Path) -> Command {
    let mut command = Command::new("lsof");
    command.arg("--").arg(path);
    command
}

pub(crate) fn fuser(path: &Path) -> Command {
    let mut command = Command::new("fuser");
    command.arg(path);
    command
}

pub(crate) fn ss() -> Command {
    let mut command = Command::new("ss");
    command.arg("-xlp");
    command
}

/// A monit that looks each second.
#[derive(Debug)]
pub(crate) struct Monit {
    child: Child,
    /// It holds a line for each change that monit has noticed.
    told: PathBuf,
}

impl Monit {
    /// Looks whether the process of a PID file lives and its socket answers, and says so when that changes.
    pub(crate) fn of_listener(directory: &Path, socket: &Path) -> anyhow::Result<Self> {
        let told = directory.join("monit.told");
        fs::write(&told, "")?;
        let say = |word: &str| format!("exec \"/bin/sh -c 'echo {word} >> {}'\"", told.display());
        let checks = format!(
            "check process victim with pidfile {}\n  if not exist then {} else if succeeded then {}\n  if failed unixsocket {} then alert\n",
            socket.with_extension("pid").display(),
            say("gone"),
            say("there"),
            socket.display()
        );
        Self::start(directory, &checks, told)
    }

    /// Looks at as many daemons as `load::daemons` makes.
    pub(crate) fn of_daemons(place: &Path, directory: &Path, count: usize) -> anyhow::Result<Self> {
        let mut checks = String::new();
        for n in 0..count {
            let of = |what: &str| place.join(format!("s{n}.{what}")).display().to_string();
            checks.push_str(&format!(
                "check process s{n} with pidfile {}\n  if failed unixsocket {} then alert\n",
                of("pid"),
                of("sock")
            ));
        }
        Self::start(directory, &checks, directory.join("monit.told"))
    }

    fn start(directory: &Path, checks: &str, told: PathBuf) -> anyhow::Result<Self> {
        let place = |name: &str| directory.join(name).display().to_string();
        let file = directory.join("monitrc");
        let text = format!(
            "set daemon 1\nset pidfile {}\nset idfile {}\nset statefile {}\nset logfile {}\n{checks}",
            place("monit.pid"),
            place("monit.id"),
            place("monit.state"),
            place("monit.log")
        );
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let child = Command::new("monit")
            .args(["-I", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start monit")?;
        Ok(Self { child, told })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has noticed this last, and says when it told so.
    pub(crate) fn wait_for_health(&self, is_there: bool) -> anyhow::Result<clock::Nanos> {
        let wanted = if is_there { "there" } else { "gone" };
        let deadline = clock::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(&self.told)?;
            // It says nothing of what was well from the beginning.
            let last = text.lines().last().unwrap_or("there");
            let now = clock::now();
            if last == wanted {
                return Ok(now);
            }
            ensure!(now < deadline, "monit did not notice that the socket is {wanted}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Monit {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
