//! The built-in repositories, as they are when nothing is wrong with them.
//!
//! Each is a folder of `repos/`: sources, a README, visible tests, hidden cases and what these must answer. The bugs are in
//! [`crate::mutants`].

use sdk::Split;

/// A small repository.
#[derive(Clone, Copy, Debug)]
pub struct Repo {
    /// Its folder's name, and that of its main module.
    pub name: &'static str,
    /// A repository is in one split only, so that nothing held out resembles what is trained.
    pub split: Split,
    /// Its source files.
    pub sources: &'static [(&'static str, &'static str)],
    /// What it is for.
    pub readme: &'static str,
    /// The visible tests: path and content.
    pub tests: (&'static str, &'static str),
    /// The hidden cases.
    pub hidden: &'static str,
    /// What each case answers: lines of name, tab, value. Made by `tests/generate.py`, and never on a machine.
    pub expected: &'static str,
}

macro_rules! repo {
    ($name:literal, $split:ident, [$($file:literal),+]) => {
        Repo {
            name: $name,
            split: Split::$split,
            sources: &[$(($file, include_str!(concat!("../repos/", $name, "/", $file)))),+],
            readme: include_str!(concat!("../repos/", $name, "/README.md")),
            tests: (
                concat!("tests/test_", $name, ".py"),
                include_str!(concat!("../repos/", $name, "/tests/test_", $name, ".py")),
            ),
            hidden: include_str!(concat!("../repos/", $name, "/hidden.py")),
            expected: include_str!(concat!("../repos/", $name, "/expected.txt")),
        }
    };
}

/// All of them.
pub const REPOS: [Repo; 16] = [
    repo!("bank", Train, ["bank.py"]),
    repo!("calc", Train, ["calc.py", "tokens.py"]),
    repo!("csvreader", Train, ["csvreader.py"]),
    repo!("graphs", Train, ["graphs.py"]),
    repo!("intervals", Train, ["intervals.py"]),
    repo!("lrucache", Train, ["lrucache.py"]),
    repo!("matrix", Train, ["matrix.py"]),
    repo!("pqueue", Train, ["pqueue.py"]),
    repo!("ratelimit", Train, ["ratelimit.py"]),
    repo!("roman", Train, ["roman.py"]),
    repo!("runlength", Train, ["runlength.py"]),
    repo!("wrapping", Train, ["wrapping.py"]),
    repo!("dateranges", HeldOut, ["dateranges.py"]),
    repo!("inifile", HeldOut, ["inifile.py"]),
    repo!("prefixtree", HeldOut, ["prefixtree.py"]),
    repo!("semver", HeldOut, ["semver.py"]),
];

/// What makes `tests` a package.
pub const PACKAGE: &str = "tests/__init__.py";

impl Repo {
    /// The repository of this name.
    pub fn named(name: &str) -> Option<&'static Repo> {
        REPOS.iter().find(|repo| repo.name == name)
    }

    /// A source file's content.
    pub fn source(&self, file: &str) -> Option<&'static str> {
        let found = self.sources.iter().find(|(name, _)| *name == file);
        found.map(|(_, content)| *content)
    }

    /// The hidden cases with their right answers, in order.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.expected
            .lines()
            .filter_map(|line| line.split_once('\t'))
    }

    /// The ids of the visible tests, in order: `tests.test_roman.RomanTest.test_small`.
    pub fn test_ids(&self) -> Vec<String> {
        let mut class = "";
        let mut ids = Vec::new();
        for line in self.tests.1.lines() {
            if let Some(rest) = line.strip_prefix("class ") {
                class = rest.split('(').next().unwrap_or_default();
            } else if let Some(rest) = line.strip_prefix("    def test_") {
                let method = rest.split('(').next().unwrap_or_default();
                ids.push(format!("tests.test_{}.{class}.test_{method}", self.name));
            }
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hidden_case_has_an_answer_and_every_answer_a_case() {
        for repo in &REPOS {
            let cases: Vec<_> = repo
                .hidden
                .lines()
                .filter_map(|line| line.strip_prefix("def case_")?.split_once('('))
                .map(|(name, _)| format!("case_{name}"))
                .collect();
            let answered: Vec<_> = repo.answers().map(|(name, _)| name).collect();
            assert_eq!(answered, cases, "{}", repo.name);
            assert!(cases.len() >= 20, "{}", repo.name);
            assert!(repo.test_ids().len() >= 3, "{}", repo.name);
        }
    }

    #[test]
    fn names_are_unique_and_both_splits_have_repositories() {
        let names: std::collections::BTreeSet<_> = REPOS.iter().map(|repo| repo.name).collect();
        assert_eq!(names.len(), REPOS.len());
        let held_out = REPOS.iter().filter(|repo| repo.split == Split::HeldOut);
        assert_eq!(held_out.count(), 4);
        assert!(Repo::named("semver").is_some_and(|repo| repo.split == Split::HeldOut));
    }
}
