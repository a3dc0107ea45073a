//! Which changes make an attempt void: whoever moves the goalposts has not scored.
//!
//! The oracle does not depend on it: it runs untouched tests against a copy on another machine. This only tells an honest attempt from
//! one that tried something else.

use sdk::shell::{Change, ChangeKind};

/// Files that decide how tests are found and run, wherever they lie.
const CONFIG: [&str; 8] = [
    "setup.cfg",
    "pyproject.toml",
    "tox.ini",
    "pytest.ini",
    "conftest.py",
    ".coveragerc",
    "sitecustomize.py",
    "usercustomize.py",
];

/// The modules of Python's standard library, apart from `test`.
const STANDARD: &str = include_str!("stdlib.txt");

/// Paths of a repository that must not change.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    /// The repository's folder, `/work` or below it.
    pub folder: String,
    /// Files by their path within it.
    pub files: Vec<String>,
}

impl Protected {
    /// A change's path within the repository; none where it lies elsewhere.
    pub fn relative<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = path.strip_prefix("./").unwrap_or(path);
        let path = path.strip_prefix("/work/").unwrap_or(path);
        let inner = self.folder.strip_prefix("/work").unwrap_or_default();
        match inner.strip_prefix('/') {
            Some(inner) => path.strip_prefix(inner)?.strip_prefix('/'),
            None => Some(path),
        }
    }

    /// The first change that makes the attempt void.
    pub fn broken_by<'a>(&self, changes: &'a [Change]) -> Option<&'a str> {
        let broken = changes.iter().find(|change| {
            self.relative(&change.path)
                .is_some_and(|path| self.is_void(path, change.kind))
        });
        broken.map(|change| change.path.as_str())
    }

    fn is_void(&self, path: &str, kind: ChangeKind) -> bool {
        if is_scrap(path) {
            return false;
        }
        if path.starts_with(".git/") {
            return path.starts_with(".git/hooks/");
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let lower = name.to_ascii_lowercase();
        let startup = std::path::Path::new(&lower)
            .extension()
            .is_some_and(|end| end == "pth");
        self.files.iter().any(|file| file == path)
            || CONFIG.contains(&name)
            || startup
            || (kind == ChangeKind::Added && shadows(path))
    }

    /// Whether a changed file is part of the solution: the oracle takes a copy of it.
    pub fn is_solution(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_test = name.starts_with("test_") || path.starts_with("tests/");
        !is_scrap(path)
            && !is_test
            && path != ".git"
            && !path.starts_with(".git/")
            && !self.files.iter().any(|file| file == path)
    }
}

/// What Python leaves behind.
fn is_scrap(path: &str) -> bool {
    path.split('/').any(|part| part == "__pycache__")
}

/// Whether a new file or folder at the top takes the name of a module of the standard library.
fn shadows(path: &str) -> bool {
    let (top, inner) = path.split_once('/').unwrap_or((path, ""));
    let module = if inner.is_empty() {
        let end = top.find('.').unwrap_or(top.len());
        let (module, end) = top.split_at(end);
        // A compiled module begins with its name, too: `json.cpython-311-x86_64-linux-gnu.so`.
        if !(end.ends_with(".py") || end.ends_with(".pyc") || end.ends_with(".so")) {
            return false;
        }
        module
    } else {
        top
    };
    STANDARD.split_whitespace().any(|name| name == module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(folder: &str, path: &str, kind: ChangeKind) -> bool {
        let protected = Protected {
            folder: folder.into(),
            files: vec!["tests/__init__.py".into(), "tests/test_roman.py".into()],
        };
        let change = Change {
            path: path.into(),
            kind,
        };
        protected.broken_by(&[change]).is_some()
    }

    #[test]
    fn tests_config_hooks_and_shadow_modules_are_void() {
        use ChangeKind::{Added, Modified, Removed};
        for (path, kind) in [
            ("tests/test_roman.py", Modified),
            ("tests/test_roman.py", Removed),
            ("/work/tests/__init__.py", Modified),
            ("./tests/test_roman.py", Modified),
            ("setup.cfg", Added),
            ("tests/conftest.py", Added),
            ("pyproject.toml", Added),
            (".git/hooks/pre-commit", Added),
            ("unittest.py", Added),
            ("unittest/__init__.py", Added),
            ("json.cpython-311-x86_64-linux-gnu.so", Added),
            ("lib/sitecustomize.py", Added),
            ("evil.pth", Added),
        ] {
            assert!(broken("/work", path, kind), "{path}");
        }
    }

    #[test]
    fn honest_work_is_not_void() {
        use ChangeKind::{Added, Modified, Removed};
        for (path, kind) in [
            ("roman.py", Modified),
            ("roman.py", Removed),
            ("helpers.py", Added),
            ("reproduce.py", Added),
            ("tests/test_more.py", Added),
            ("test_scratch.py", Added),
            ("json", Added),
            ("notes/json.md", Added),
            ("json.txt", Added),
            (".git/index", Modified),
            (".git/objects/ab/cd", Added),
            ("__pycache__/json.cpython-311.pyc", Added),
            ("tests/__pycache__/test_roman.cpython-311.pyc", Added),
        ] {
            assert!(!broken("/work", path, kind), "{path}");
        }
    }

    #[test]
    fn paths_count_from_the_repositorys_folder() {
        assert!(broken("/work/app", "app/setup.cfg", ChangeKind::Modified));
        assert!(broken("/work/app", "app/json.py", ChangeKind::Added));
        assert!(!broken("/work/app", "apple/json.py", ChangeKind::Added));
        assert!(!broken("/work/app", "json.py", ChangeKind::Added));
    }

    #[test]
    fn the_solution_is_what_is_neither_a_test_nor_gits() {
        let protected = Protected {
            folder: "/work".into(),
            files: vec!["check.py".into()],
        };
        for path in ["roman.py", "a/b.py", ".gitignore"] {
            assert!(protected.is_solution(path), "{path}");
        }
        for path in [
            "tests/test_new.py",
            "tests/helper.py",
            "test_x.py",
            ".git/index",
            "__pycache__/x.pyc",
            "check.py",
        ] {
            assert!(!protected.is_solution(path), "{path}");
        }
    }
}
