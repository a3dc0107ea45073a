//! A task as an episode needs it: how its machine is laid out, what the model reads, and what must come out right.
//!
//! Built-in tasks come from [`crate::mutants`], an operator's from [`crate::image`].

use sdk::Fault;

use crate::{
    guard::Protected,
    issue,
    jail::Jail,
    mutants::{self, Mutant},
    repos::PACKAGE,
    score::Check,
};

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The shell image that its machines begin with.
    pub image: String,
    /// Files to write before the model starts, by their path within the repository.
    pub files: Vec<(String, String)>,
    /// A command that makes an image's files a repository; empty for none.
    pub prepare: String,
    /// The issue, and what is to know about the repository.
    pub issue: String,
    /// Where the repository lies, and what must not change in it.
    pub protected: Protected,
    /// The sources that are always copied to the oracle.
    pub sources: Vec<String>,
    /// Hidden cases for the driver; none where there are only tests.
    pub cases: Option<String>,
    /// A patch that adds hidden tests; none where there are only cases and visible tests.
    pub test_patch: Option<String>,
    /// What must come out right.
    pub checks: Vec<Check>,
    /// How long one check may take.
    pub check_seconds: u32,
}

/// A command runs to its end before this; for the plugin's own commands.
const OWN_COMMAND_MS: u32 = 60_000;

/// Makes the first commit; the same one every time.
const COMMIT: &str = "set -e
test -d .git || git init -q -b main
git config user.name model
git config user.email model@example.invalid
git add -A
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
git diff --cached --quiet || git commit -q -m 'The repository as it is'";

/// What every command begins with: no pager, no bytecode, one order of hashes, and a repository that git accepts whoever owns it.
pub const ENVIRONMENT: &str = "export LC_ALL=C.UTF-8 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 \
PAGER=cat GIT_PAGER=cat GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'; ";

impl Task {
    /// A built-in task.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist.
    pub fn built_in(id: &str) -> Result<Self, Fault> {
        let mutant = mutants::of_task(id)?;
        let repo = mutant.repo;
        let owned = |(path, content): (&str, &str)| (path.to_owned(), content.to_owned());
        let mut files = vec![
            owned(("README.md", repo.readme)),
            owned((PACKAGE, "")),
            owned(repo.tests),
        ];
        for (path, content) in mutant.sources()? {
            files.push((path.to_owned(), content));
        }
        Ok(Self {
            image: "empty".into(),
            files,
            prepare: String::new(),
            issue: built_in_issue(&mutant),
            protected: Protected {
                folder: "/work".into(),
                files: vec![PACKAGE.into(), repo.tests.0.into()],
            },
            sources: repo
                .sources
                .iter()
                .map(|(file, _)| (*file).to_owned())
                .collect(),
            cases: Some(repo.hidden.into()),
            test_patch: None,
            checks: checks(&mutant),
            check_seconds: 2,
        })
    }

    /// The repository's folder.
    pub fn folder(&self) -> &str {
        &self.protected.folder
    }

    /// A fresh machine with the repository as the model finds it.
    ///
    /// # Errors
    /// Whatever the machine says no to.
    pub fn lay_out<J: Jail>(&self) -> Result<J, Fault> {
        let machine = J::create(&self.image)?;
        if !self.prepare.is_empty() {
            own_command(&machine, &self.prepare, "/work")?;
        }
        for (path, content) in &self.files {
            machine.write_file(&format!("{}/{path}", self.folder()), content.as_bytes())?;
        }
        Ok(machine)
    }

    /// Makes the files a commit.
    ///
    /// # Errors
    /// `internal` when git refuses.
    pub fn commit<J: Jail>(&self, machine: &J) -> Result<(), Fault> {
        own_command(machine, COMMIT, self.folder()).map(drop)
    }
}

/// Runs a command of the plugin's own, which must succeed.
///
/// # Errors
/// `internal` with the command's last words when it does not.
pub fn own_command<J: Jail>(machine: &J, command: &str, folder: &str) -> Result<String, Fault> {
    let output = machine.run(&format!("{ENVIRONMENT}{command}"), folder, OWN_COMMAND_MS)?;
    if output.succeeded() {
        return Ok(output.stdout);
    }
    let said = crate::text::cut(output.stderr.trim(), 500);
    let end = crate::text::exit_code(&output.ending);
    let first = command.lines().next().unwrap_or_default();
    Err(Fault::Internal(format!(
        "a command of the plugin's own ended with {end} (`{}`): {said}",
        crate::text::cut(first, 200)
    )))
}

/// Hidden cases and visible tests.
fn checks(mutant: &Mutant) -> Vec<Check> {
    let cases = mutant.repo.answers().map(|(name, right)| Check {
        name: name.to_owned(),
        right: right.to_owned(),
        failing: mutant.killed_by.contains(&name),
        shown: name == mutant.shown,
    });
    let tests = mutant.repo.test_ids().into_iter().map(|id| Check {
        failing: mutant.broken_tests.contains(&id.as_str()),
        // The model can see these fail, and read why.
        shown: true,
        name: id,
        right: "ok".into(),
    });
    cases.chain(tests).collect()
}

fn built_in_issue(mutant: &Mutant) -> String {
    let repo = mutant.repo;
    let sources: Vec<_> = repo
        .sources
        .iter()
        .map(|(file, _)| format!("`{file}`"))
        .collect();
    format!(
        "{}\n\n---\nThe repository in /work has {}, `README.md` and `{}`. Run its tests with `python3 -m unittest`; they do not cover everything. \
         Fix the bug in the sources, for all inputs and not only those above. Leave `tests/` and all configuration alone: an attempt that changes them counts as nothing.",
        issue::report(mutant),
        sources.join(" and "),
        repo.tests.0,
    )
}
