//! A unit of the real systemd that runs a daemon of ours. Only where process 1 is systemd: `cargo xtask vm --systemd` has one.

use std::{
    cell::RefCell,
    env,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver},
    thread,
};

use nix::sys::stat::Mode;

use crate::{clock::patience, sandbox::Sandbox, sentinel};

/// A daemon of ours as a unit. It is stopped and forgotten when this is dropped.
#[derive(Debug)]
pub struct Unit {
    name: String,
    service: String,
    exe: PathBuf,
    manager: Manager,
    files: Vec<PathBuf>,
    /// What the daemon reads. It stays open over its ends, so that each life of the unit gets the next lines.
    input: RefCell<File>,
    /// What it prints.
    output: PathBuf,
    lines: Receiver<String>,
    _sandbox: Sandbox,
}

/// Who starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    System,
    /// That of a user, who has lingering enabled.
    User {
        name: String,
        uid: u32,
    },
}

/// A unit that is being written.
#[derive(Debug)]
pub struct UnitFile {
    sandbox: Sandbox,
    service: String,
    manager: Manager,
    command: Vec<String>,
    unit: Vec<String>,
    options: Vec<String>,
    socket: Option<Vec<String>>,
}

impl UnitFile {
    /// A setting in its section `[Service]`, such as `Restart=always`.
    pub fn with(mut self, setting: &str) -> Self {
        self.options.push(setting.to_owned());
        self
    }

    /// A setting in its section `[Unit]`.
    pub fn in_unit(mut self, setting: &str) -> Self {
        self.unit.push(setting.to_owned());
        self
    }

    /// An argument of the daemon, see `faulty serve --help`.
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.push(arg.to_owned());
        self
    }

    /// Another manager than the system's.
    pub fn of(mut self, manager: &Manager) -> Self {
        self.manager = manager.clone();
        self
    }

    /// A socket unit that activates it, with this setting in its section `[Socket]`.
    pub fn socket(mut self, setting: &str) -> Self {
        self.socket.get_or_insert_default().push(setting.to_owned());
        self
    }

    /// Lets systemd know of it.
    #[track_caller]
    pub fn load(self) -> Unit {
        let Self {
            sandbox,
            service,
            manager,
            ..
        } = self;
        let exe = sandbox.install(&crate::faulty_binary(), &service);
        let tag = sandbox.dir().file_name().unwrap_or_default().to_string_lossy();
        let stem = format!("{tag}-{service}");
        let (input, output) = (fifo(&sandbox, &service, "in"), fifo(&sandbox, &service, "out"));
        let settings = |settings: &[String]| settings.iter().map(|s| format!("{s}\n")).collect::<String>();
        let text = format!(
            "[Unit]\n{}[Service]\nExecStart={} serve {}\nStandardInput=file:{}\nStandardOutput=file:{}\n{}",
            settings(&self.unit),
            exe.display(),
            self.command.join(" "),
            input.display(),
            output.display(),
            settings(&self.options)
        );
        let name = format!("{stem}.service");
        let directory = manager.directory();
        let mut files = vec![directory.join(&name)];
        fs::create_dir_all(&directory).unwrap_or_else(|e| panic!("create {}: {e}", directory.display()));
        write(&files[0], &text);
        if let Some(socket) = self.socket {
            files.push(directory.join(format!("{stem}.socket")));
            write(&files[1], &format!("[Socket]\n{}", settings(&socket)));
        }
        let unit = Unit {
            name,
            service,
            exe,
            manager,
            files,
            input: RefCell::new(both_ways(&input)),
            lines: lines(both_ways(&output)),
            output,
            _sandbox: sandbox,
        };
        unit.systemctl(&["daemon-reload"]);
        unit
    }
}

impl Unit {
    /// Whether tests of units can run: says why not where they can't. `PROBE_TEST_SYSTEMD=must` makes that a failure.
    #[track_caller]
    pub fn possible() -> bool {
        let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        let possible = first.trim_end() == "systemd" && Path::new("/run/systemd/system").is_dir();
        if !possible {
            let why = format!("process 1 is {:?}, no systemd", first.trim_end());
            let must = env::var("PROBE_TEST_SYSTEMD").is_ok_and(|v| v == "must");
            assert!(!must, "{why}");
            eprintln!("skipped: {why}");
        }
        possible
    }

    /// A daemon of ours as `service`, to be started by the system's manager. Its executable is its own.
    pub fn file(sandbox: &Sandbox, service: &str) -> UnitFile {
        UnitFile {
            sandbox: sandbox.clone(),
            service: service.to_owned(),
            manager: Manager::System,
            command: Vec::new(),
            unit: Vec::new(),
            options: Vec::new(),
            socket: None,
        }
    }

    /// As systemd calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its socket unit.
    pub fn socket(&self) -> String {
        self.name.replace(".service", ".socket")
    }

    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// A `[[service]]` table that declares the unit, with short times; `more` are further lines.
    pub fn declared(&self, more: &str) -> String {
        let user = match &self.manager {
            Manager::System => String::new(),
            Manager::User { name, .. } => format!("user = {name:?}\n"),
        };
        format!(
            "\n[[service]]\nname = {:?}\nunit = {:?}\n{user}ready_within = {:?}\nrelisten_within = \"1s\"\n\
             overlap = \"5s\"\n{more}\n",
            self.service,
            self.name,
            sentinel::others_within()
        )
    }

    /// Starts it and waits until it says that it is ready. Returns the pid of the daemon.
    #[track_caller]
    pub fn start(&self) -> u32 {
        self.systemctl(&["start", &self.name]);
        self.ready()
    }

    /// Waits until a daemon that was started anew, by whomever, says that it is ready. Returns its pid.
    #[track_caller]
    pub fn ready(&self) -> u32 {
        let line = self.said("ready ");
        let pid = line
            .split_whitespace()
            .next()
            .and_then(|w| w.strip_prefix("pid="));
        pid.and_then(|p| p.parse().ok())
            .unwrap_or_else(|| panic!("no pid in {line:?}"))
    }

    /// Waits until it has caught a signal.
    #[track_caller]
    pub fn caught(&self, signal: &str) {
        self.said(&format!("signal {signal}"));
    }

    /// Tells the daemon to do something, and waits for the answer.
    #[track_caller]
    pub fn tell(&self, line: &str) -> String {
        self.send(line);
        self.said("ok").trim_start().to_owned()
    }

    /// Tells the daemon to do something that it will not live to answer.
    #[track_caller]
    pub fn send(&self, line: &str) {
        writeln!(self.input.borrow_mut(), "{line}").expect("write to a pipe");
    }

    /// Waits for a line that begins so; returns the rest of it. Other lines are passed over.
    #[track_caller]
    fn said(&self, begin: &str) -> String {
        loop {
            match self.lines.recv_timeout(patience()) {
                Ok(line) => match line.strip_prefix(begin) {
                    Some(rest) => return rest.to_owned(),
                    None => eprintln!("{}: {line}", self.name),
                },
                Err(_) => panic!(
                    "{} did not say {begin:?} within {:?}\n{}",
                    self.name,
                    patience(),
                    self.status()
                ),
            }
        }
    }

    /// Asks for a stop and waits until it has stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.systemctl(&["stop", &self.name]);
    }

    /// Runs systemctl(1), which must succeed, against the unit's manager; returns what it prints.
    #[track_caller]
    pub fn systemctl(&self, args: &[&str]) -> String {
        self.manager.systemctl(args)
    }

    /// A property of the unit, as systemctl(1) shows it.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        let text = self.systemctl(&["show", "--value", "--property", name, &self.name]);
        text.trim_end().to_owned()
    }

    /// For messages.
    fn status(&self) -> String {
        let mut command = self.manager.command();
        let output = command
            .args(["status", "--no-pager", "--full", &self.name])
            .output();
        output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let mut all = vec!["kill", "--signal=KILL", &self.name];
        let _ = self.manager.command().args(&all).output();
        let socket = self.socket();
        all = vec!["stop", &self.name];
        if self.files.len() > 1 {
            all.insert(1, &socket);
        }
        let _ = self.manager.command().args(&all).output();
        let _ = self.manager.command().args(["reset-failed", &self.name]).output();
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        let _ = self.manager.command().arg("daemon-reload").output();
        // Ends the thread that reads.
        let _ = OpenOptions::new()
            .write(true)
            .open(&self.output)
            .and_then(|mut f| f.write_all(END.as_bytes()));
    }
}

impl Manager {
    /// That of a new user; it runs when this returns.
    #[track_caller]
    pub fn of_new_user(name: &str) -> Self {
        let status = Command::new("useradd").args(["--create-home", name]).status();
        assert!(status.is_ok_and(|s| s.success()), "useradd {name}");
        let user = nix::unistd::User::from_name(name);
        let uid = user.ok().flatten().expect("the new user").uid.as_raw();
        let status = Command::new("loginctl").args(["enable-linger", name]).status();
        assert!(status.is_ok_and(|s| s.success()), "loginctl enable-linger {name}");
        let manager = Self::User {
            name: name.to_owned(),
            uid,
        };
        crate::until("the user's service manager answers", || {
            let output = manager.command().args(["is-system-running", "--wait"]).output();
            output.is_ok_and(|o| o.stdout.starts_with(b"running") || o.stdout.starts_with(b"degraded"))
        });
        manager
    }

    /// The service manager's process.
    pub fn pid(&self) -> u32 {
        match self {
            Self::System => 1,
            Self::User { uid, .. } => {
                let unit = format!("user@{uid}.service");
                let text = Self::System.systemctl(&["show", "--value", "--property=MainPID", &unit]);
                text.trim_end().parse().expect("a pid")
            }
        }
    }

    fn directory(&self) -> PathBuf {
        match self {
            Self::System => PathBuf::from("/run/systemd/system"),
            Self::User { uid, .. } => PathBuf::from(format!("/run/user/{uid}/systemd/user")),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("systemctl");
        if let Self::User { uid, .. } = self {
            command
                .arg("--user")
                .uid(*uid)
                .gid(*uid)
                .env("XDG_RUNTIME_DIR", format!("/run/user/{uid}"));
        }
        command
    }

    #[track_caller]
    fn systemctl(&self, args: &[&str]) -> String {
        let output = crate::run(self.command().args(args));
        assert_eq!(
            output.code,
            Some(0),
            "systemctl {}: {}",
            args.join(" "),
            output.stderr
        );
        output.stdout
    }
}

/// Nobody but [`Unit::drop`] says this.
const END: &str = "\n-- end --\n";

fn fifo(sandbox: &Sandbox, service: &str, way: &str) -> PathBuf {
    let path = sandbox.path(&format!("{service}.{way}"));
    nix::unistd::mkfifo(&path, Mode::empty()).unwrap_or_else(|e| panic!("mkfifo {}: {e}", path.display()));
    // The daemon may have another user, and the mask of this process counts for mkfifo.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("permissions of a pipe");
    path
}

/// Neither waits for the other side nor comes to an end with it.
fn both_ways(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

fn lines(from: File) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if line == END.trim() || send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
