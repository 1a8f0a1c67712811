//! Which declared path a UNIX socket is bound to.
//!
//! The kernel tells the name that was given to bind, which can be relative, lead through links, or be an older name of the
//! same file. What the file is decides; where there is none (a bind that failed), the directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::path::file_id;
use crate::{
    address::Address,
    config::Config,
    event::{FileId, Process, What},
};

/// Sockets whose address is remembered. The level tells again of those that live.
const KEPT: usize = 4096;

#[derive(Debug, Default)]
pub struct SocketNames {
    declared: Vec<PathBuf>,
    /// By the inode of the socket itself.
    known: BTreeMap<u64, Address>,
}

impl SocketNames {
    /// All that the configuration declares.
    pub fn of(config: &Config) -> Self {
        let addresses = config.services.iter().flat_map(|s| &s.listen);
        Self::new(addresses.filter_map(|a| a.path().map(Path::to_owned)))
    }

    pub fn new(declared: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            declared: declared.into_iter().collect(),
            known: BTreeMap::new(),
        }
    }

    /// Remembers what a live socket is bound to.
    pub fn note(&mut self, inode: u64, address: &Address) {
        if address.path().is_some() && inode != 0 {
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            self.known.insert(inode, address.clone());
        }
    }

    /// Puts the declared path into the edge of a UNIX socket. `false`: it means another file, nobody declared it.
    pub fn resolve(&mut self, what: &mut What, file: Option<FileId>) -> bool {
        let (address, process, inode, ends) = match what {
            What::Bind {
                address,
                process,
                inode,
                error,
                ..
            } => (address, Some(&*process), inode.filter(|_| error.is_none()), false),
            What::Listen {
                address,
                process,
                inode,
                ..
            } => (address, Some(&*process), *inode, false),
            What::Unlisten { address, inode, .. } => (address, None, *inode, true),
            _ => return true,
        };
        let Some(path) = address.path() else { return true };
        let known = inode.and_then(|i| self.known.get(&i)).cloned();
        let found = known.or_else(|| self.find(path, file, process).map(Address::Unix));
        let Some(found) = found else { return false };
        *address = found;
        if let Some(inode) = inode {
            // A shutdown ends it too, and its address is no longer asked for then.
            if ends {
                self.known.remove(&inode);
            } else {
                let address = address.clone();
                self.note(inode, &address);
            }
        }
        true
    }

    fn find(&self, given: &Path, file: Option<FileId>, process: Option<&Process>) -> Option<PathBuf> {
        if let Some(declared) = self.declared.iter().find(|d| *d == given) {
            return Some(declared.clone());
        }
        let given = match given.is_absolute() {
            true => given.to_owned(),
            false => fs::read_link(format!("/proc/{}/cwd", process?.id.pid))
                .ok()?
                .join(given),
        };
        let file = file.or_else(|| file_id(&given).ok());
        let is_file = |d: &Path| {
            let (Some(file), Ok(id)) = (file, file_id(d)) else {
                return false;
            };
            file == id
        };
        let is_name = |d: &Path| {
            d.file_name() == given.file_name()
                && d.parent()
                    .zip(given.parent())
                    .and_then(|(a, b)| Some(file_id(a).ok()? == file_id(b).ok()?))
                    .unwrap_or(false)
        };
        self.declared
            .iter()
            .find(|d| is_file(d))
            .or_else(|| self.declared.iter().find(|d| is_name(d)))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sources::testing::TempDir;

    fn unlisten(path: &Path, inode: u64) -> What {
        What::Unlisten {
            address: Address::Unix(path.to_owned()),
            socket: None,
            inode: Some(inode),
            netns: None,
        }
    }

    fn path_of(what: &What) -> &Path {
        match what {
            What::Unlisten { address, .. } => address.path().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn links_and_other_names_of_the_file_lead_to_the_declared_path() {
        let dir = TempDir::new("socket-names");
        let declared = dir.path().join("a.sock");
        fs::write(&declared, "").unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        let mut names = SocketNames::new([declared.clone()]);
        let through_link = dir.path().join("link/a.sock");

        let mut what = unlisten(&through_link, 1);
        assert!(names.resolve(&mut what, None));
        assert_eq!(path_of(&what), declared);

        let id = file_id(&declared).unwrap();
        let mut what = unlisten(Path::new("/elsewhere/old-name"), 2);
        assert!(names.resolve(&mut what, Some(id)));
        assert_eq!(path_of(&what), declared);

        fs::remove_file(&declared).unwrap();
        let mut what = unlisten(&through_link, 3);
        assert!(names.resolve(&mut what, None), "by the directory");

        let mut what = unlisten(Path::new("/elsewhere/a.sock"), 4);
        assert!(
            !names.resolve(&mut what, Some(id)),
            "another file of the same name"
        );
    }

    #[test]
    fn a_known_socket_needs_no_path() {
        let mut names = SocketNames::new([PathBuf::from("/run/a.sock")]);
        names.note(7, &"unix:/run/a.sock".parse().unwrap());
        let mut what = unlisten(Path::new("a.sock"), 7);
        assert!(names.resolve(&mut what, None));
        assert_eq!(path_of(&what), Path::new("/run/a.sock"));
    }
}
