//! Reading configuration files: all that is wrong with them is told at once, with places.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use super::place::{Place, Problem};
use super::{
    Config, Probe,
    check::{self, Step},
    tree::Tree,
};

/// Where the configuration lies unless `--config` says otherwise: `probe.toml` and `probe.d/*.toml`.
pub const DIRECTORY: &str = "/etc/probe";

/// No configuration is as long as this; something else was named by mistake.
pub const MAX_BYTES: u64 = 1 << 20;

/// Why a configuration is not valid. At least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// What was read, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    pub files: Vec<PathBuf>,
}

/// Reads `file`, or else what lies in `directory` (usually [`DIRECTORY`]): `probe.toml`, then `probe.d/*.toml` by name.
/// Services and hooks add up; of a key in `[probe]` and `[limits]` the last file's value counts.
///
/// `None`: no file was named, and none is there.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn load(file: Option<&Path>, directory: &Path) -> Result<Option<Loaded>, ConfigError> {
    let one = |path: &Path, message: String| ConfigError {
        problems: vec![Problem {
            path: path.to_owned(),
            place: None,
            message,
        }],
    };
    let paths = match file {
        Some(path) => vec![path.to_owned()],
        None => defaults(directory).map_err(|(path, e)| one(&path, e.to_string()))?,
    };
    if paths.is_empty() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    for path in &paths {
        match read(path) {
            Ok(text) => texts.push((path.clone(), text)),
            Err(problem) => problems.push(problem),
        }
    }
    let (config, more) = parse(&texts, problems.is_empty());
    problems.extend(more);
    if problems.is_empty() {
        Ok(Some(Loaded { config, files: paths }))
    } else {
        Err(ConfigError { problems })
    }
}

fn defaults(directory: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let main = directory.join("probe.toml");
    let mut paths = match fs::symlink_metadata(&main) {
        Ok(_) => vec![main],
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err((main, e)),
    };
    let drop_ins = directory.join("probe.d");
    match fs::read_dir(&drop_ins) {
        Ok(entries) => {
            let first = paths.len();
            for entry in entries {
                let path = entry.map_err(|e| (drop_ins.clone(), e))?.path();
                let hidden = path
                    .file_name()
                    .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
                if !hidden && path.extension().is_some_and(|e| e == "toml") {
                    paths.push(path);
                }
            }
            paths[first..].sort();
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err((drop_ins, e)),
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem {
        path: path.to_owned(),
        place: None,
        message,
    };
    // A FIFO would have probe wait for somebody to write.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| problem(format!("cannot open: {e}")))?;
    let metadata = file
        .metadata()
        .map_err(|e| problem(format!("cannot stat: {e}")))?;
    if !metadata.is_file() {
        return Err(problem("not a regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| problem(format!("cannot read: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(problem(format!(
            "longer than {MAX_BYTES} bytes: this is no configuration of probe"
        )));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(e.as_bytes());
        Problem {
            path: path.to_owned(),
            place: Some(Place::of(&text, &(at..at))),
            message: "not UTF-8 from here on".into(),
        }
    })
}

/// The configuration that the files make together. `complete`: no other file could not be read.
pub(crate) fn parse(texts: &[(PathBuf, String)], complete: bool) -> (Config, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for (path, text) in texts {
        let placed = |span: Option<Range<usize>>, message| Problem {
            path: path.clone(),
            place: span.map(|span| Place::of(text, &span)),
            message,
        };
        match Tree::parse(text) {
            Ok(mut tree) => {
                let (config, complaints) = tree.read();
                problems.extend(complaints.into_iter().map(|c| placed(c.span, c.message)));
                files.push(Parsed {
                    path,
                    text,
                    tree,
                    config,
                });
            }
            Err(complaints) => problems.extend(complaints.into_iter().map(|c| placed(c.span, c.message))),
        }
    }
    let (config, origins) = merge(&files);
    for wrong in check::check(&config, complete && problems.is_empty()) {
        let (file, at) = origins.locate(&files, &wrong.at);
        let Some(Parsed { path, text, tree, .. }) = files.get(file) else {
            continue;
        };
        let place = tree.span_of(&at).map(|span| Place::of(text, &span));
        problems.push(Problem {
            path: (*path).clone(),
            place,
            message: wrong.message,
        });
    }
    problems.sort_by_key(|p| {
        let file = texts.iter().position(|(path, _)| *path == p.path);
        (file, p.place.as_ref().map(|place| (place.line, place.column)))
    });
    (config, problems)
}

struct Parsed<'a> {
    path: &'a PathBuf,
    text: &'a str,
    tree: Tree<'a>,
    config: Config,
}

/// Which file each service and hook is from.
#[derive(Default)]
struct Origins {
    /// File, and number within the file.
    services: Vec<(usize, usize)>,
    hooks: Vec<(usize, usize)>,
}

fn merge(files: &[Parsed<'_>]) -> (Config, Origins) {
    let mut config = Config::default();
    let mut origins = Origins::default();
    let mut probe = toml::Table::new();
    for (i, file) in files.iter().enumerate() {
        // By key, so that a drop-in that sets one leaves the others alone.
        probe.extend(file.tree.table("probe"));
        config.limits.extend(file.config.limits.clone());
        origins
            .services
            .extend((0..file.config.services.len()).map(|n| (i, n)));
        config.services.extend(file.config.services.iter().cloned());
        origins.hooks.extend((0..file.config.hooks.len()).map(|n| (i, n)));
        config.hooks.extend(file.config.hooks.iter().cloned());
    }
    // Each file's part was read before: this succeeds.
    config.probe = Probe::deserialize(probe).unwrap_or_default();
    (config, origins)
}

impl Origins {
    /// The file, and the path within it, of a path in the merged configuration.
    fn locate(&self, files: &[Parsed<'_>], at: &[Step]) -> (usize, Vec<Step>) {
        let list = match at.first() {
            Some(Step::Key(k)) if k == "service" => &self.services,
            Some(Step::Key(k)) if k == "hook" => &self.hooks,
            // The last file that has the key is the one whose value counts.
            _ => {
                let has = |f: &Parsed<'_>| f.tree.has(at.get(..2).unwrap_or(at));
                return (files.iter().rposition(has).unwrap_or(0), at.to_vec());
            }
        };
        let Some(Step::Index(n)) = at.get(1) else {
            return (0, at.to_vec());
        };
        let (file, local) = list.get(*n).copied().unwrap_or_default();
        let mut path = at.to_vec();
        path[1] = Step::Index(local);
        (file, path)
    }
}

/// The valid name that `text` was probably meant to be.
pub fn nearest<'a>(text: &str, valid: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&text.replace('-', "_"), &name.replace('-', "_"));
    let (d, name) = valid.iter().map(|name| (distance(name), *name)).min()?;
    (d <= 1 + name.len() / 4).then_some(name)
}

#[cfg(test)]
mod tests;
