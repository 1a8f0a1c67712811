//! Which processes a declaration selects. The same function answers for snapshots and for events.
//!
//! Children of members are members too, and membership lasts as long as the process; both are the engine's business.

use crate::{
    config::Service,
    event::{FileId, Process},
};

/// By what a process was selected, the least telling first: of two services that claim one process, the one with the
/// greater selection is the better claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// The executable alone.
    Exe,
    /// A declared script, or the executable with a declared argument.
    Argument,
    /// The cgroup's unit name.
    Unit,
    /// `--pid`.
    Pid,
}

/// Whether `service` declares `process` to be its own. `exe_id`: the file that the declared path leads to now.
pub fn selects(service: &Service, exe_id: Option<FileId>, process: &Process) -> bool {
    selection(service, exe_id, process).is_some()
}

/// By what `service` selects `process`, the most telling selector first.
pub fn selection(service: &Service, exe_id: Option<FileId>, process: &Process) -> Option<Selection> {
    if service.pid.is_some_and(|pid| pid == process.id.pid) {
        return Some(Selection::Pid);
    }
    if service.unit.is_some() && service.unit == process.unit {
        return Some(Selection::Unit);
    }
    let by_exe = service.exe.as_deref().map(|path| runs(path, exe_id, process));
    let by_script = service.script.as_deref().map(|script| {
        // Without a declared interpreter any will do, but an editor that has the script open is none.
        has_argument(process, script) && (service.exe.is_some() || is_interpreter(process))
    });
    let by_argument = service
        .argument
        .as_deref()
        .map(|argument| has_argument(process, argument));
    match (by_exe, by_script, by_argument) {
        (Some(true), None, None) => Some(Selection::Exe),
        // An argument alone tells too little.
        (None, None, _) => None,
        (exe, script, argument) if [exe, script, argument].into_iter().flatten().all(|yes| yes) => {
            Some(Selection::Argument)
        }
        _ => None,
    }
}

/// Whether the process runs the declared executable: the same file, or one that was replaced under its path.
fn runs(path: &str, exe_id: Option<FileId>, process: &Process) -> bool {
    match (exe_id, process.exe_id) {
        (Some(declared), Some(running)) if declared == running => true,
        // Another file of the same name that still exists is seen in another mount namespace or root directory.
        (Some(_), Some(_)) => process.exe_deleted && process.exe.as_deref() == Some(path),
        _ => process.exe.as_deref() == Some(path),
    }
}

fn has_argument(process: &Process, wanted: &str) -> bool {
    process.argv.iter().skip(1).any(|argument| argument == wanted)
}

/// Whether it starts services on demand: it holds their listeners when they don't run, and everything descends from it.
pub fn is_service_manager(process: &Process) -> bool {
    let file = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    let name = file.unwrap_or(&process.comm);
    matches!(name, "systemd" | "systemd-executor") || process.id.pid == 1 && matches!(name, "init" | "")
}

/// Whether the executable is a well-known interpreter, whatever its version.
pub fn is_interpreter(process: &Process) -> bool {
    let exe = process.exe.as_deref().unwrap_or_default();
    is_interpreter_name(exe.rsplit('/').next().unwrap_or_default())
}

/// The same by the file name of the executable.
pub fn is_interpreter_name(file: &str) -> bool {
    const NAMES: [&str; 17] = [
        "ash", "bash", "busybox", "dash", "fish", "java", "ksh", "lua", "node", "nodejs", "perl", "php",
        "python", "ruby", "sh", "tclsh", "zsh",
    ];
    // python3.11, perl5.36.0, php8.2
    let stem = file.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    NAMES.contains(&stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Nanos, event::ProcId};

    const FILE: FileId = FileId { dev: 1, ino: 2 };
    const OTHER: FileId = FileId { dev: 1, ino: 3 };

    fn process(exe: &str, exe_id: FileId, argv: &[&str]) -> Process {
        Process {
            id: ProcId {
                pid: 10,
                start_ticks: 1,
            },
            start: Nanos(1),
            parent: None,
            comm: "x".into(),
            uid: Some(0),
            exe: Some(exe.into()),
            exe_deleted: false,
            exe_id: Some(exe_id),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            unit: None,
        }
    }

    #[test]
    fn nothing_declared_selects_nothing() {
        let service = Service::named("a");
        assert!(!selects(&service, None, &process("/bin/a", FILE, &["a"])));
        assert!(!selects(&service, Some(FILE), &process("/bin/a", FILE, &["a"])));
    }

    #[test]
    fn the_executable_is_a_file_and_not_a_name() {
        let mut service = Service::named("a");
        service.exe = Some("/bin/a".into());
        let here = process("/bin/a", FILE, &["a"]);
        assert_eq!(selection(&service, Some(FILE), &here), Some(Selection::Exe));
        // A hard link or a symbolic link to it.
        assert!(selects(&service, Some(FILE), &process("/bin/b", FILE, &["b"])));
        // In a container, another file has this name.
        assert!(!selects(&service, Some(OTHER), &here));
        // An upgrade put another file in its place.
        assert!(selects(
            &service,
            Some(OTHER),
            &Process {
                exe_deleted: true,
                ..here.clone()
            }
        ));
        // Removed for good, or the process's file is not known.
        assert!(selects(&service, None, &here));
        assert!(selects(
            &service,
            Some(FILE),
            &Process {
                exe_id: None,
                ..here.clone()
            }
        ));
        assert!(!selects(
            &service,
            Some(FILE),
            &Process {
                exe_id: None,
                exe: None,
                ..here
            }
        ));
    }

    #[test]
    fn a_script_is_an_exact_argument_of_an_interpreter() {
        let mut service = Service::named("a");
        service.script = Some("/opt/agent.sh".into());
        let bash = |argv: &[&str]| process("/usr/bin/bash", FILE, argv);
        assert_eq!(
            selection(&service, None, &bash(&["bash", "-x", "/opt/agent.sh"])),
            Some(Selection::Argument)
        );
        assert!(!selects(
            &service,
            None,
            &bash(&["bash", "-c", "cat /opt/agent.sh"])
        ));
        assert!(!selects(&service, None, &bash(&["/opt/agent.sh"])));
        assert!(!selects(
            &service,
            None,
            &process("/usr/bin/vim", FILE, &["vim", "/opt/agent.sh"])
        ));
        service.exe = Some("/usr/bin/bash".into());
        assert!(selects(&service, Some(FILE), &bash(&["bash", "/opt/agent.sh"])));
        assert!(!selects(&service, Some(OTHER), &bash(&["bash", "/opt/agent.sh"])));
        assert!(!selects(&service, Some(FILE), &bash(&["bash"])));
    }

    #[test]
    fn an_argument_narrows() {
        let mut service = Service::named("a");
        service.argument = Some("--port=1".into());
        let one = process("/bin/a", FILE, &["a", "--port=1"]);
        assert!(!selects(&service, Some(FILE), &one), "alone it tells too little");
        service.exe = Some("/bin/a".into());
        assert_eq!(selection(&service, Some(FILE), &one), Some(Selection::Argument));
        assert!(!selects(
            &service,
            Some(FILE),
            &process("/bin/a", FILE, &["a", "--port=12"])
        ));
    }

    #[test]
    fn a_unit_or_a_pid_is_enough() {
        let mut service = Service::named("a");
        service.unit = Some("a.service".into());
        let mut p = process("/bin/a", FILE, &["a"]);
        assert!(!selects(&service, None, &p));
        p.unit = Some("a.service".into());
        assert_eq!(selection(&service, None, &p), Some(Selection::Unit));
        // A copy started by hand beside the unit is a member by its executable.
        service.exe = Some("/bin/a".into());
        p.unit = Some("session-1.scope".into());
        assert_eq!(selection(&service, Some(FILE), &p), Some(Selection::Exe));
        service.pid = Some(10);
        assert_eq!(selection(&service, Some(FILE), &p), Some(Selection::Pid));
    }

    #[test]
    fn interpreters_of_any_version() {
        for exe in [
            "/bin/sh",
            "/usr/bin/python3.11",
            "/usr/bin/perl5.36.0",
            "/usr/bin/php8.2",
            "/usr/bin/node",
        ] {
            assert!(is_interpreter(&process(exe, FILE, &[])), "{exe}");
        }
        for exe in ["/usr/sbin/sshd", "/bin/shell", "/x/python/daemon", ""] {
            assert!(!is_interpreter(&process(exe, FILE, &[])), "{exe}");
        }
    }
}
