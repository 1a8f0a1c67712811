//! The output of a child: a file that it writes itself, so that nothing breaks when we end.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What is kept of earlier runs.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    pub files: u32,
    /// Of all earlier files together; the oldest go first.
    pub bytes: u64,
}

/// `DIRECTORY/NAME.log`, and `NAME.log.1` to `NAME.log.N`, the newest first.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    keep: Keep,
}

impl Log {
    pub fn new(directory: &Path, service: &str, keep: Keep) -> Self {
        let name = service.replace('%', "%25").replace('/', "%2f");
        Self {
            path: directory.join(format!("{name}.log")),
            keep,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new file; what was there becomes the newest of the earlier ones.
    ///
    /// # Errors
    /// When the directory or the file can't be written.
    pub fn rotate(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.len() > 0) {
            self.shift()?;
        }
        self.prune();
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)
    }

    fn earlier(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn shift(&self) -> io::Result<()> {
        // Up to the first gap, so that an interrupted shift loses nothing.
        let mut last = 1;
        while last < self.keep.files && fs::symlink_metadata(self.earlier(last)).is_ok() {
            last += 1;
        }
        for n in (1..last).rev() {
            fs::rename(self.earlier(n), self.earlier(n + 1))?;
        }
        match self.keep.files {
            0 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, self.earlier(1)),
        }
    }

    fn prune(&self) {
        let mut bytes = 0_u64;
        for n in 1..=self.keep.files {
            let path = self.earlier(n);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            bytes = bytes.saturating_add(metadata.len());
            if bytes > self.keep.bytes {
                // A file too many is no reason not to start.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn earlier_logs_are_kept_by_number_and_size() {
        let dir = TempDir::new("logs");
        let log = |files, bytes| Log::new(dir.path(), "a/b", Keep { files, bytes });
        let kept = || {
            let mut names: Vec<(String, String)> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().path())
                .map(|p| {
                    let name = p.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, fs::read_to_string(p).unwrap())
                })
                .collect();
            names.sort();
            names
                .into_iter()
                .map(|(n, t)| format!("{n}={t}"))
                .collect::<Vec<_>>()
        };
        for text in ["one", "two", "three", "four"] {
            log(2, 100).rotate().unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(kept(), ["a%2fb.log=four", "a%2fb.log.1=three", "a%2fb.log.2=two"]);
        // An empty one is not worth a number.
        let _ = log(2, 100).rotate().unwrap();
        let _ = log(2, 100).rotate().unwrap();
        assert_eq!(kept(), ["a%2fb.log=", "a%2fb.log.1=four", "a%2fb.log.2=three"]);
        let _ = log(2, 8).rotate().unwrap();
        assert_eq!(kept(), ["a%2fb.log=", "a%2fb.log.1=four"]);
        std::os::unix::fs::symlink("/dev/null", dir.path().join("c.log")).unwrap();
        let planted = Log::new(dir.path(), "c", Keep { files: 0, bytes: 0 });
        planted.rotate().unwrap();
        assert!(
            !dir.path().join("c.log").is_symlink(),
            "it was not written through"
        );
    }
}
