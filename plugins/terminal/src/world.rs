//! What `/work` holds, as data: a task is one world to begin with and another one to reach.
//!
//! Knows no shell beyond the script that builds a world: what is compared, and how, is in [`crate::task`].

use std::collections::{BTreeMap, BTreeSet};

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A file and its text.
    File(String),
    /// A folder that is named for its own sake; those above a file need no entry.
    Folder,
    /// A symbolic link and where it points.
    Link(String),
}

/// Files, folders and links by their path below `/work`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct World {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) modes: BTreeMap<String, u32>,
    pub(crate) times: BTreeMap<String, String>,
}

impl World {
    /// Puts a file there.
    pub fn file(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.entries.insert(path.into(), Entry::File(text.into()));
    }

    /// Puts a folder there.
    pub fn folder(&mut self, path: impl Into<String>) {
        self.entries.insert(path.into(), Entry::Folder);
    }

    /// Puts a symbolic link there.
    pub fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.entries.insert(path.into(), Entry::Link(target.into()));
    }

    /// Sets the permission bits of a path, such as `0o644`.
    pub fn mode(&mut self, path: impl Into<String>, mode: u32) {
        self.modes.insert(path.into(), mode);
    }

    /// Sets when a path was last modified: `2024-05-01 10:00:00`, UTC.
    pub fn time(&mut self, path: impl Into<String>, time: impl Into<String>) {
        self.times.insert(path.into(), time.into());
    }

    /// Takes a path away.
    pub fn remove(&mut self, path: &str) {
        self.entries.remove(path);
    }

    /// Moves what lies at a path.
    pub fn rename(&mut self, from: &str, to: impl Into<String>) {
        if let Some(entry) = self.entries.remove(from) {
            self.entries.insert(to.into(), entry);
        }
    }

    /// The text of a file; empty where there is none.
    pub fn text(&self, path: &str) -> &str {
        match self.entries.get(path) {
            Some(Entry::File(text)) => text,
            _ => "",
        }
    }

    /// The script that builds this world in an empty `/work`. Everything is as old as the start of March 2024, unless it has a time.
    pub(crate) fn setup(&self) -> String {
        let above = self.entries.keys().filter_map(|path| path.rsplit_once('/'));
        let folders: BTreeSet<_> = above.map(|(folder, _)| quote(folder)).collect();
        let folders: Vec<_> = folders.into_iter().collect();
        let mut lines = vec![format!("mkdir -p . {}", folders.join(" "))];
        for (path, entry) in &self.entries {
            let place = quote(path);
            lines.push(match entry {
                Entry::File(text) => format!("printf %s {} >{place}", quote(text)),
                Entry::Folder => format!("mkdir -p {place}"),
                Entry::Link(target) => format!("ln -s {} {place}", quote(target)),
            });
        }
        for (path, mode) in &self.modes {
            lines.push(format!("chmod {mode:o} {}", quote(path)));
        }
        lines.push("find . -mindepth 1 -exec touch -h -d '2024-03-01 12:00:00' {} +".to_owned());
        for (path, time) in &self.times {
            lines.push(format!("touch -d '{time}' {}", quote(path)));
        }
        lines.join("\n")
    }
}

/// A text as one word of a shell's command.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_makes_the_folders_above_a_file_and_quotes_what_it_writes() {
        let mut world = World::default();
        world.file("a/b.txt", "it's\n");
        world.mode("a/b.txt", 0o600);
        let setup = world.setup();
        assert!(
            setup.starts_with(
                "mkdir -p . 'a'\nprintf %s 'it'\\''s\n' >'a/b.txt'\nchmod 600 'a/b.txt'\n"
            ),
            "{setup}"
        );
    }

    #[test]
    fn what_is_renamed_keeps_its_text() {
        let mut world = World::default();
        world.file("a", "x");
        world.rename("a", "b");
        assert_eq!((world.text("a"), world.text("b")), ("", "x"));
    }
}
