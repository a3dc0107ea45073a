//! A tree of small text files. Folders are there as long as something is in them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Api;
use crate::schema::{Arguments, Function, Kind, Parameter, changes, reads, required};

const PATH: Parameter = required("path", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 5] = [
    reads(
        "list_files",
        "the paths in a folder",
        &[required("folder", Kind::Text)],
    ),
    reads("read_file", "the text of a file", &[PATH]),
    changes(
        "write_file",
        "makes or replaces a file",
        &[PATH, required("text", Kind::Text)],
    ),
    changes(
        "move_file",
        "gives a file a new path",
        &[PATH, required("to", Kind::Text)],
    ),
    changes("delete_file", "removes a file", &[PATH]),
];

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Texts by path; a path has no `/` at its ends.
    pub files: BTreeMap<String, String>,
}

/// A path without `./` and `/` around it.
fn path(written: &str) -> Result<String, String> {
    let written = written.trim_matches('/');
    let parts: Vec<_> = written.split('/').filter(|part| *part != ".").collect();
    if parts
        .iter()
        .any(|part| part.trim().is_empty() || *part == "..")
    {
        return Err(format!(
            "`{written}` is no path; one is written like notes/plan.txt"
        ));
    }
    Ok(parts.join("/"))
}

impl Files {
    fn there(&self, written: &str) -> Result<String, String> {
        let path = path(written)?;
        if self.files.contains_key(&path) {
            return Ok(path);
        }
        Err(format!("there is no file `{path}`"))
    }

    /// A path where a file may lie: no folder is there, and no file is above it.
    fn placeable(&self, written: &str) -> Result<String, String> {
        let path = path(written)?;
        let folder = format!("{path}/");
        if path.is_empty() || self.files.keys().any(|other| other.starts_with(&folder)) {
            return Err(format!("`{path}` is a folder"));
        }
        let inside = |other: &&String| {
            path.strip_prefix(*other)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        match self.files.keys().find(inside) {
            Some(file) => Err(format!("`{file}` is a file and no folder")),
            None => Ok(path),
        }
    }

    fn list(&self, folder: &str) -> Result<Value, String> {
        let folder = if matches!(folder, "/" | "." | "./") {
            String::new()
        } else {
            path(folder)?
        };
        let head = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let paths: Vec<_> = self
            .files
            .keys()
            .filter(|path| path.starts_with(&head))
            .collect();
        if paths.is_empty() {
            return Err(format!("there is no folder `{folder}`"));
        }
        Ok(json!({"paths": paths}))
    }
}

impl Api for Files {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        match function {
            "list_files" => self.list(given.text("folder")),
            "read_file" => {
                let path = self.there(given.text("path"))?;
                Ok(json!({"text": self.files.get(&path)}))
            }
            "write_file" => {
                let path = self.placeable(given.text("path"))?;
                self.files
                    .insert(path.clone(), given.text("text").to_owned());
                Ok(json!({"written": path}))
            }
            "move_file" => {
                let from = self.there(given.text("path"))?;
                let to = self.placeable(given.text("to"))?;
                if self.files.contains_key(&to) {
                    return Err(format!("`{to}` is there already"));
                }
                if let Some(text) = self.files.remove(&from) {
                    self.files.insert(to.clone(), text);
                }
                Ok(json!({"moved_to": to}))
            }
            _ => {
                let path = self.there(given.text("path"))?;
                self.files.remove(&path);
                Ok(json!({"deleted": path}))
            }
        }
    }

    fn canonical(&self) -> Value {
        let files = self
            .files
            .iter()
            .map(|(path, text)| json!([path, text.trim()]));
        files.collect()
    }
}
