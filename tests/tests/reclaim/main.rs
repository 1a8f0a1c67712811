//! `probe reclaim`: what it removes and ends, and everything that it leaves alone.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ending;
mod files;
mod incident_1;
mod race;
mod refusals;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Daemon, Output, Sandbox, probe, run};
use serde_json::Value;

/// A service that is declared, and where everything of it lies.
struct Site {
    sandbox: Sandbox,
    exe: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
    config: PathBuf,
}

impl Site {
    /// `more`: further lines of its table.
    fn new(more: &str) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, "annad");
        Self::with(sandbox, exe, |exe| format!("exe = {exe:?}\n"), more)
    }

    /// Without anything that tells its processes, but for the PID file.
    fn without_selector(more: &str) -> Self {
        let sandbox = Sandbox::new();
        let exe = Daemon::install(&sandbox, "annad");
        Self::with(sandbox, exe, |_| String::new(), more)
    }

    fn with(sandbox: Sandbox, exe: PathBuf, selector: impl Fn(&Path) -> String, more: &str) -> Self {
        // Others of its tests may write there, but not here.
        let run = sandbox.path("run");
        fs::create_dir(&run).unwrap();
        let (socket, pid_file) = (run.join("annad.sock"), run.join("annad.pid"));
        let text = format!(
            "[probe]\nstate_dir = {:?}\nsocket = {:?}\n[[service]]\nname = \"annad\"\n{}pid_file = {pid_file:?}\n\
             listen = [\"unix:{}\"]\nstop_within = \"5s\"\n{more}\n",
            sandbox.path("state"),
            sandbox.path("probe.sock"),
            selector(&exe),
            socket.display()
        );
        let config = sandbox.write("probe.toml", &text);
        Self {
            sandbox,
            exe,
            socket,
            pid_file,
            config,
        }
    }

    /// With its socket and its PID file.
    #[track_caller]
    fn start(&self) -> Daemon {
        self.starter().start()
    }

    fn starter(&self) -> probe_tests::Starter {
        Daemon::at(&self.exe).unix(&self.socket).pid_file(&self.pid_file)
    }

    /// The declaration names its own `listen` in `more`.
    fn replace_listen(self) -> Self {
        let line = format!("listen = [\"unix:{}\"]\n", self.socket.display());
        self.drop_line(&line)
    }

    fn without_first_stop_within(self) -> Self {
        self.drop_line("stop_within = \"5s\"\n")
    }

    fn drop_line(self, line: &str) -> Self {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(line), "{text}");
        fs::write(&self.config, text.replacen(line, "", 1)).unwrap();
        self
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = probe(&["reclaim", "--json", "annad", "--config"]);
        command.arg(&self.config).args(more);
        command
    }

    #[track_caller]
    fn reclaim(&self, more: &[&str]) -> Reclaimed {
        Reclaimed::of(run(&mut self.command(more)))
    }
}

/// What a reclaim said.
#[derive(Debug)]
struct Reclaimed {
    output: Output,
    steps: Vec<Value>,
    outcome: Value,
}

impl Reclaimed {
    #[track_caller]
    fn of(output: Output) -> Self {
        let mut steps: Vec<Value> = output
            .stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l:?}")))
            .collect();
        let outcome = steps
            .pop()
            .unwrap_or_else(|| panic!("it said nothing: {output:?}"));
        assert_eq!(outcome["type"], "reclaim", "{output:?}");
        Self {
            output,
            steps,
            outcome,
        }
    }

    /// The service can start.
    #[track_caller]
    fn is_clear(&self) -> &Self {
        assert_eq!(self.output.code, Some(0), "{self:#?}");
        assert_eq!(self.outcome["can_start"], true, "{self:#?}");
        assert_eq!(self.output.stderr, "", "{self:#?}");
        self
    }

    /// It cannot, and the last line says all of this.
    #[track_caller]
    fn is_blocked_by(&self, words: &[&str]) -> &Self {
        assert_eq!(self.output.code, Some(1), "{self:#?}");
        assert_eq!(self.outcome["can_start"], false, "{self:#?}");
        assert_eq!(self.output.stderr.lines().count(), 1, "{self:#?}");
        for word in words {
            assert!(self.output.stderr.contains(word), "{word:?} in {self:#?}");
        }
        self
    }

    #[track_caller]
    fn ended(&self, count: u64) -> &Self {
        assert_eq!(self.outcome["ended"], count, "{self:#?}");
        self
    }

    #[track_caller]
    fn killed(&self, count: u64) -> &Self {
        assert_eq!(self.outcome["killed"], count, "{self:#?}");
        self
    }

    #[track_caller]
    fn removed(&self, paths: &[&Path]) -> &Self {
        let removed = self.outcome["removed"].as_array().unwrap();
        let removed: Vec<&str> = removed
            .iter()
            .map(|p| p.as_str().unwrap().trim_start_matches("unix:"))
            .collect();
        let wanted: Vec<&str> = paths.iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(removed, wanted, "{self:#?}");
        self
    }

    /// There is such a step, with these words in its subject or reason.
    #[track_caller]
    fn says(&self, act: &str, words: &str) -> &Self {
        let has = |s: &Value| {
            let holds = |key: &str| s[key].as_str().is_some_and(|t| t.contains(words));
            s["act"] == act && (holds("subject") || holds("reason"))
        };
        assert!(self.steps.iter().any(has), "{act} … {words} in {self:#?}");
        self
    }
}

/// A socket file that nothing is bound to, as a crash leaves it.
fn leave_stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}
