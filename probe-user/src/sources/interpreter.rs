//! Which programs run a script: the kernel reports the starts of executables, and a script is none.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Where `#!/usr/bin/env NAME` is looked for.
const PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// Bytes of the first line that the kernel reads (BINPRM_BUF_SIZE).
const FIRST_LINE: u64 = 256;

/// What the first line of a script names, and the shells that run one without such a line.
pub fn of_script(script: &Path) -> Vec<PathBuf> {
    let mut line = Vec::new();
    // A FIFO would block the opener for ever.
    let is_file = script.metadata().is_ok_and(|m| m.is_file());
    if is_file && let Ok(file) = File::open(script) {
        let _ = file.take(FIRST_LINE).read_to_end(&mut line);
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.lines().next().and_then(|l| l.strip_prefix("#!"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mut found: Vec<PathBuf> = ["/bin/sh", "/bin/bash"].map(PathBuf::from).to_vec();
    let Some(program) = words.next() else {
        return found;
    };
    if program.rsplit('/').next() == Some("env") {
        let name = words.find(|w| !w.starts_with('-') && !w.contains('='));
        found.extend(
            name.into_iter()
                .flat_map(|name| PATH.map(|dir| Path::new(dir).join(name))),
        );
    } else {
        found.push(program.into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    fn of(text: &str) -> Vec<PathBuf> {
        let dir = TempDir::new("interpreter");
        let script = dir.path().join("script");
        std::fs::write(&script, text).unwrap();
        of_script(&script)
    }

    #[test]
    fn the_first_line_names_it() {
        assert!(of("#! /opt/python3 -u\nimport os\n").contains(&"/opt/python3".into()));
        let by_env = of("#!/usr/bin/env -S A=1 perl -w\n");
        assert!(by_env.contains(&"/usr/bin/perl".into()) && by_env.contains(&"/usr/local/bin/perl".into()));
    }

    #[test]
    fn without_one_it_is_a_shell() {
        for text in ["", "echo x\n", "#!", "#!/usr/bin/env\n"] {
            assert!(of(text).contains(&"/bin/sh".into()), "{text:?}");
        }
        assert!(of_script(Path::new("/nowhere")).contains(&"/bin/sh".into()));
        assert!(of_script(Path::new("/")).contains(&"/bin/sh".into()));
    }
}
