//! Without privileges, `run` and `exec` keep what they need in the user's own state directory.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Sandbox, probe_binary, run};

use crate::row;

const NOBODY: u32 = 65534;

fn as_nobody(probe: &Path, home: &Path) -> Command {
    let mut command = Command::new(probe);
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME");
    command
}

#[test]
fn a_user_has_a_state_directory_of_his_own() {
    let sandbox = Sandbox::new();
    // The directory of the build may not be open to everybody.
    let probe = sandbox.install(&probe_binary(), "probe");
    let home: PathBuf = sandbox.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();

    let mut command = as_nobody(&probe, &home);
    let ran = run(command.args(["run", "job", "--", "sh", "-c", "id -u; exit 5"]));

    assert_eq!(ran.code, Some(5), "{ran:?}");
    let state = home.join(".local/state/probe");
    let log = fs::read_to_string(state.join("logs/job.log")).unwrap();
    assert_eq!(log.trim(), NOBODY.to_string());
    for file in ["runs.db", "logs/job.log", "locks/job.run.lock"] {
        let metadata = fs::metadata(state.join(file)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.permissions().mode() & 0o777),
            (NOBODY, 0o600),
            "{file}"
        );
    }
    assert_eq!(row(&state, "job").exit.as_deref(), Some("code 5"));

    let limited = run(as_nobody(&probe, &home).args(["exec", "--limit", "100ms", "--", "sleep", "1000"]));
    assert_eq!(limited.code, Some(124), "{limited:?}");
}
