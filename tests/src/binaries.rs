//! Where the programs under test are.

use std::{env, path::PathBuf};

/// The `probe` under test: `$PROBE_BIN`, else the one that cargo built beside the tests.
pub fn probe_binary() -> PathBuf {
    match env::var_os("PROBE_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "PROBE_BIN is {}, which is no file",
                path.display()
            );
            path
        }
        None => built("probe", "cargo build -p probe-user"),
    }
}

/// Our own faulty daemon.
pub fn faulty_binary() -> PathBuf {
    built("faulty", "cargo build -p probe-tests")
}

/// Test executables lie in `target/PROFILE/deps`, binaries one directory above.
fn built(name: &str, how: &str) -> PathBuf {
    let test = env::current_exe().expect("path of the test executable");
    let path = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps")
        .join(name);
    assert!(
        path.is_file(),
        "{} does not exist: run `{how}` first",
        path.display()
    );
    path
}

/// The name of the running test, as `FILE.TEST`: for example `redis.restart_gives_no_finding`.
pub(crate) fn test_name() -> String {
    let exe = env::current_exe().expect("path of the test executable");
    let stem = exe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _hash)| name);
    let thread = std::thread::current();
    format!("{file}.{}", thread.name().unwrap_or("unnamed").replace("::", "."))
}
