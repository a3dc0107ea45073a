//! What differs between two trees: names, kinds, rights, contents and link targets; never times.

use std::{collections::BTreeSet, fs::File, io::Read, os::fd::OwnedFd, time::Instant};

use rustix::{
    fs::{FileType, OFlags, Stat, readlinkat},
    io::Errno,
};

use super::{
    ChangeKind,
    fail::failed,
    tree::{Answer, Below, Tree, join, show},
};
use crate::Result;

/// An entry that counts.
type Entry = (OwnedFd, Stat, FileType);

/// A comparison of two trees.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) old: &'a Tree,
    pub(super) new: &'a Tree,
    /// Where every difference leaves a trace: what is in none of these is the same. Empty: everything is looked at.
    pub(super) traces: &'a [Tree],
    /// When it must be done.
    pub(super) until: Instant,
}

impl Comparison<'_> {
    /// Every difference, sorted by path.
    pub(super) fn changes(&self) -> Result<Vec<(Below, ChangeKind)>> {
        let mut changes = Vec::new();
        let mut folders = vec![Below::new()];
        while let Some(folder) = folders.pop() {
            let fail = |e: Errno| failed(format!("compare the folder {}", show(&folder)), e);
            let mut names = BTreeSet::new();
            for tree in [self.old, self.new] {
                names.extend(tree_names(tree, &folder).map_err(fail)?);
            }
            for name in names {
                let path = join(&folder, &name);
                let fail = |e: Errno| failed(format!("compare {}", show(&path)), e);
                if Instant::now() > self.until {
                    return Err(failed(
                        format!("compare {}", show(&path)),
                        "it takes too long",
                    ));
                }
                let (old, new) = (
                    look(self.old, &path).map_err(fail)?,
                    look(self.new, &path).map_err(fail)?,
                );
                let is_folder = |entry: &Option<Entry>| {
                    entry
                        .as_ref()
                        .is_some_and(|(_, _, kind)| *kind == FileType::Directory)
                };
                let goes_on = is_folder(&old) || is_folder(&new);
                if old.is_some() && new.is_some() && !self.is_traced(&path).map_err(fail)? {
                    continue;
                }
                if let Some(kind) = self.difference(&path, old, new).map_err(fail)? {
                    changes.push((path.clone(), kind));
                }
                if goes_on {
                    folders.push(path);
                }
            }
        }
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(changes)
    }

    fn is_traced(&self, path: &[u8]) -> Answer<bool> {
        let mut traced = self.traces.is_empty();
        for tree in self.traces {
            traced |= tree.look(path)?.is_some();
        }
        Ok(traced)
    }

    fn difference(
        &self,
        path: &[u8],
        old: Option<Entry>,
        new: Option<Entry>,
    ) -> Answer<Option<ChangeKind>> {
        let (old, new) = match (old, new) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Ok(Some(ChangeKind::Added)),
            (Some(_), None) => return Ok(Some(ChangeKind::Removed)),
            (Some(old), Some(new)) => (old, new),
        };
        let same = old.2 == new.2
            && match old.2 {
                FileType::Symlink => {
                    readlinkat(&old.0, "", Vec::new())? == readlinkat(&new.0, "", Vec::new())?
                }
                kind => {
                    (old.1.st_mode & 0o777) == (new.1.st_mode & 0o777)
                        && (kind == FileType::Directory
                            || old.1.st_size == new.1.st_size && self.same_bytes(path)?)
                }
            };
        Ok((!same).then_some(ChangeKind::Modified))
    }

    fn same_bytes(&self, path: &[u8]) -> Answer<bool> {
        let io = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        let mut old = File::from(self.old.open(path, OFlags::RDONLY)?);
        let mut new = File::from(self.new.open(path, OFlags::RDONLY)?);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        loop {
            a.clear();
            b.clear();
            old.by_ref().take(1 << 16).read_to_end(&mut a).map_err(io)?;
            new.by_ref().take(1 << 16).read_to_end(&mut b).map_err(io)?;
            if a != b {
                return Ok(false);
            }
            if a.is_empty() {
                return Ok(true);
            }
            if Instant::now() > self.until {
                return Err(Errno::TIMEDOUT);
            }
        }
    }
}

/// The names of a folder; none where there is no folder in this tree.
fn tree_names(tree: &Tree, folder: &[u8]) -> Answer<Vec<Vec<u8>>> {
    match tree.names(folder) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
        names => names,
    }
}

fn look(tree: &Tree, path: &[u8]) -> Answer<Option<Entry>> {
    // Below a link there is nothing of this tree.
    let found = match tree.look(path) {
        Err(Errno::LOOP) => None,
        found => found?,
    };
    Ok(found.and_then(|(fd, stat)| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let counts = [
            FileType::Directory,
            FileType::RegularFile,
            FileType::Symlink,
        ];
        counts.contains(&kind).then_some((fd, stat, kind))
    }))
}
