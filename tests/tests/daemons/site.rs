//! Where a test runs a daemon: its example configuration, with everything replaced that lies outside the sandbox.

use std::{
    env, fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use probe_tests::{Proc, Sandbox, Watch, children, free_port, run, until};

/// What an example leaves at its default or sets for real life, and what a test can wait for instead.
const SHORTER: [(&str, &str); 2] = [("ready_within", "\"5s\""), ("overlap", "\"2s\"")];
/// Longer than all of them.
const SENTINEL_WITHIN: &str = "6s";
/// Tests know their daemons by their executables: there may be no systemd.
const LEFT_OUT: &str = "unit";

/// A sandbox and a configuration.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    config: String,
}

impl Site {
    /// `None`, and says so, where a program is not installed.
    pub(crate) fn new(name: &str, programs: &[&str]) -> Option<Self> {
        if let Some(missing) = programs.iter().find(|p| !Path::new(p).exists()) {
            // Not through `println!`, which is shown for failures only.
            let line = format!("skipped: {name}: {missing} is not installed\n");
            std::io::stderr()
                .write_all(line.as_bytes())
                .expect("standard error");
            return None;
        }
        let example = example(name);
        let text = fs::read_to_string(&example).unwrap_or_else(|e| panic!("{}: {e}", example.display()));
        Some(Self {
            sandbox: Sandbox::new(),
            config: for_tests(&text),
        })
    }

    /// Puts `new` where the example says `old`, which is the end of a string there.
    #[track_caller]
    pub(crate) fn replace(&mut self, old: &str, new: &str) {
        let old = format!("{old}\"");
        assert!(
            self.config.contains(&old),
            "the example has no {old:?}:\n{}",
            self.config
        );
        self.config = self.config.replace(&old, &format!("{new}\""));
    }

    /// Copies a program that the example names, because probe tells daemons by their executables' inodes.
    #[track_caller]
    pub(crate) fn exe(&mut self, original: &str) -> PathBuf {
        self.exe_from(original, Path::new(original))
    }

    /// Likewise, where the program itself lies elsewhere.
    #[track_caller]
    pub(crate) fn exe_from(&mut self, original: &str, program: &Path) -> PathBuf {
        let name = Path::new(original).file_name().expect("a file").to_string_lossy();
        let copy = self.sandbox.install(program, &name);
        self.replace(original, &copy.display().to_string());
        copy
    }

    /// The path in the sandbox for one that the example names.
    #[track_caller]
    pub(crate) fn path(&mut self, original: &str) -> PathBuf {
        let name = Path::new(original).file_name().expect("a file").to_string_lossy();
        let path = self.sandbox.path(&name);
        self.replace(original, &path.display().to_string());
        path
    }

    /// A free port of the loopback interface for an address that the example names, such as `tcp:80`.
    #[track_caller]
    pub(crate) fn port(&mut self, original: &str) -> u16 {
        let port = free_port();
        self.place(original, port);
        port
    }

    /// That port for an address that the example names.
    #[track_caller]
    pub(crate) fn place(&mut self, original: &str, port: u16) {
        let scheme = original.split(':').next().unwrap_or_default();
        self.replace(&format!("\"{original}"), &format!("\"{scheme}:127.0.0.1:{port}"));
    }

    /// Watches what the example declares.
    #[track_caller]
    pub(crate) fn watch(&self) -> Watch {
        Watch::start_within(&self.sandbox, &self.config, SENTINEL_WITHIN)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        self.sandbox.write(name, content)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.sandbox.dir()
    }
}

/// A program of a package: where the package puts it, else where `cargo xtask test` unpacks packages that cannot be installed
/// beside what a machine has in their place.
pub(crate) fn program(package: &str, path: &str) -> String {
    if Path::new(path).exists() {
        return path.to_owned();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let root = target.join("daemons").join(package);
    root.join(path.trim_start_matches('/')).display().to_string()
}

/// The starter configuration of a daemon.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/examples/{name}.toml"))
}

fn for_tests(example: &str) -> String {
    let shorter: String = SHORTER.map(|(key, value)| format!("{key} = {value}\n")).concat();
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut text = String::new();
    for line in example.lines() {
        let key = key(line);
        if key == LEFT_OUT || SHORTER.iter().any(|(k, _)| *k == key) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if line == "[[service]]" {
            text.push_str(&shorter);
        }
    }
    text
}

/// Runs one of a daemon's own tools, which must succeed.
#[track_caller]
pub(crate) fn tool(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.code, Some(0), "{command:?}: {output:?}");
    output.stdout
}

/// Starts a daemon that stays in the foreground. What it says is in `NAME.out`.
#[track_caller]
pub(crate) fn foreground(sandbox: &Sandbox, command: &mut Command) -> Proc {
    let name = Path::new(command.get_program()).file_name().expect("a program");
    let out = sandbox.path(&format!("{}.out", name.to_string_lossy()));
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&out)
        .expect("open a log");
    let err = out.try_clone().expect("second descriptor");
    Proc::spawn(command.stdin(Stdio::null()).stdout(out).stderr(err))
}

/// Runs a command that leaves a daemon in the background, and takes care of the process that its PID file names then.
#[track_caller]
pub(crate) fn background(command: &mut Command, pid_file: &Path) -> Proc {
    tool(command);
    named(pid_file)
}

/// The living process that a PID file names, as soon as it does.
#[track_caller]
pub(crate) fn named(pid_file: &Path) -> Proc {
    until(&format!("{} names a process", pid_file.display()), || {
        pid_in(pid_file).is_some_and(is_alive)
    });
    Proc::adopt("daemon", pid_in(pid_file).expect("seen above"))
}

/// Waits until a process has ended and its parent has been told: until then PID-file checks of daemons take it for alive.
#[track_caller]
pub(crate) fn until_reaped(process: &Proc) {
    process.wait_gone();
    let entry = PathBuf::from(format!("/proc/{}", process.pid()));
    until(&format!("{} is reaped", entry.display()), || !entry.exists());
}

/// The first line of a PID file.
pub(crate) fn pid_in(pid_file: &Path) -> Option<u32> {
    fs::read_to_string(pid_file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    probe_tests::state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[track_caller]
pub(crate) fn until_tcp(port: u16) {
    until(&format!("port {port} answers"), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
}

#[track_caller]
pub(crate) fn until_unix(path: &Path) {
    until(&format!("{} answers", path.display()), || {
        UnixStream::connect(path).is_ok()
    });
}

/// For sockets that take no connections.
#[track_caller]
pub(crate) fn until_socket_file(path: &Path) {
    until(&format!("{} is there", path.display()), || {
        fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
    });
}

/// Waits until a process has `count` children, and none of those that it had before.
#[track_caller]
pub(crate) fn until_renewed(pid: u32, before: &[u32], count: usize) -> Vec<u32> {
    until(&format!("{pid} has {count} new children"), || {
        let now = children(pid);
        now.len() == count && now.iter().all(|c| !before.contains(c))
    });
    children(pid)
}

#[track_caller]
pub(crate) fn until_children(pid: u32, count: usize) -> Vec<u32> {
    until(&format!("{pid} has {count} children"), || {
        children(pid).len() == count
    });
    children(pid)
}

/// The uid and gid of a user that a package made.
#[track_caller]
pub(crate) fn user(name: &str) -> (u32, u32) {
    let user = nix::unistd::User::from_name(name).expect("read the users");
    let user = user.unwrap_or_else(|| panic!("there is no user {name}"));
    (user.uid.as_raw(), user.gid.as_raw())
}

/// Waits until a PID file names that process.
#[track_caller]
pub(crate) fn until_named(pid_file: &Path, pid: u32) {
    until(&format!("{} names {pid}", pid_file.display()), || {
        pid_in(pid_file) == Some(pid)
    });
}

/// Waits until a process catches a signal: until then it would be killed by it.
#[track_caller]
pub(crate) fn until_caught(pid: u32, signal: rustix::process::Signal) {
    let bit = 1u64 << (signal.as_raw() - 1);
    until(&format!("{pid} catches {signal:?}"), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        mask.is_some_and(|m| u64::from_str_radix(m.trim(), 16).is_ok_and(|m| m & bit != 0))
    });
}
