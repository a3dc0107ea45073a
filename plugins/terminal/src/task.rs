//! One task: what the model is told, how its machine begins, and what decides whether it is solved.
//!
//! A check is a list of *probes*. Each is a snippet of shell that prints something about the state; what it ought to print never
//! enters the machine, where a process that the model left running could read it. The comparison is made here, in
//! [`Task::judge`]. Text that the model says has no part in it. Does not run anything: that is `episode`'s.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    check,
    world::{Entry, World, quote},
};

/// What a probe's success means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// It is a part of what was asked: it is wrong at the beginning, and alone it earns partial credit.
    Part,
    /// It belongs to a full solution, and earns nothing alone, since destroying earns it too: a path that has to go.
    Need,
    /// It was right at the beginning and has to stay so; while it is wrong, nothing earns anything.
    Guard,
}

/// Where a probe looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// At what lies at a path below `/work`: a file with its text, a folder, a link and its target, or nothing.
    Path(String),
    /// At what a snippet of shell prints, from any folder.
    Snippet(String),
}

/// One look at the state of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Where it looks.
    pub look: Look,
    /// What is there when all is well, without newlines at its end; never empty, so that a snippet that fails is never right.
    pub expected: String,
    /// What it counts for.
    pub weight: Weight,
}

impl Probe {
    /// Whether this is the line that the check prints when all is well.
    pub fn is_right(&self, line: &str) -> bool {
        check::line(&self.expected) == line
    }
}

/// What the check says.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Verdict {
    /// Whether every probe is right.
    pub solved: bool,
    /// 1 when it is solved; otherwise half of the share of the parts that are right, where a task has several and its guards hold.
    pub value: f64,
    /// How many parts are right.
    pub parts: usize,
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// What the model is asked to do.
    pub prompt: String,
    /// Commands that solve it, for tests.
    pub solution: Vec<String>,
    world: World,
    goal: World,
    /// What the setup builds before its own lines make `world` of it.
    built: Option<World>,
    extra_setup: Vec<String>,
    ignored: BTreeSet<String>,
    probes: Vec<Probe>,
}

impl Task {
    /// A task that turns one world into another.
    pub fn new(
        prompt: impl Into<String>,
        world: World,
        goal: World,
        solution: impl Into<Vec<String>>,
    ) -> Self {
        Self {
            prompt: prompt.into(),
            solution: solution.into(),
            world,
            goal,
            built: None,
            extra_setup: Vec::new(),
            ignored: BTreeSet::new(),
            probes: Vec::new(),
        }
    }

    /// A task that leaves the world as it is: something is to be found out, or done that is no file.
    pub fn question(
        prompt: impl Into<String>,
        world: World,
        solution: impl Into<Vec<String>>,
    ) -> Self {
        let goal = world.clone();
        Self::new(prompt, world, goal, solution)
    }

    /// The answer that `answer.txt` has to hold: lines, in which runs of blanks count as one.
    #[must_use]
    pub fn answer(self, expected: impl Into<String>) -> Self {
        self.part(answer(""), expected)
    }

    /// Names of files that `answer.txt` has to hold, in any order, with or without the folders before them.
    #[must_use]
    pub fn answer_names<T: AsRef<str>>(self, names: &[T]) -> Self {
        self.part(answer("| sed 's|.*/||' | sort"), sorted(names))
    }

    /// Paths that `answer.txt` has to hold, in any order, from `/work`, from `.` or from the root.
    #[must_use]
    pub fn answer_paths<T: AsRef<str>>(self, paths: &[T]) -> Self {
        let clean = r"| sed 's|^\./||; s|^/work/||' | sort";
        self.part(answer(clean), sorted(paths))
    }

    /// Something more that has to become so.
    #[must_use]
    pub fn part(self, snippet: impl Into<String>, expected: impl Into<String>) -> Self {
        self.probe(snippet, expected, Weight::Part)
    }

    /// Something more that belongs to a full solution.
    #[must_use]
    pub fn need(self, snippet: impl Into<String>, expected: impl Into<String>) -> Self {
        self.probe(snippet, expected, Weight::Need)
    }

    /// Something more that has to stay so.
    #[must_use]
    pub fn guard(self, snippet: impl Into<String>, expected: impl Into<String>) -> Self {
        self.probe(snippet, expected, Weight::Guard)
    }

    fn probe(
        mut self,
        snippet: impl Into<String>,
        expected: impl Into<String>,
        weight: Weight,
    ) -> Self {
        self.probes.push(Probe {
            look: Look::Snippet(snippet.into()),
            expected: expected.into(),
            weight,
        });
        self
    }

    /// A line of the setup that no world can say; it runs in `/work`, after the files are there.
    #[must_use]
    pub fn prepare(mut self, line: impl Into<String>) -> Self {
        self.extra_setup.push(line.into());
        self
    }

    /// The world that the lines of [`Task::prepare`] begin with, where they make another one of it: a history, a file that is overwritten.
    #[must_use]
    pub fn built(mut self, built: World) -> Self {
        self.built = Some(built);
        self
    }

    /// What lies at this path does not matter.
    #[must_use]
    pub fn ignore(mut self, path: impl Into<String>) -> Self {
        self.ignored.insert(path.into());
        self
    }

    /// The script that prepares `/work`, as the user of the machine.
    pub fn setup(&self) -> String {
        let extra = self.extra_setup.join("\n");
        format!(
            "set -e; umask 022; {ENVIRONMENT}; cd /work\n{}\n{extra}",
            self.built.as_ref().unwrap_or(&self.world).setup()
        )
    }

    /// Every probe: those of the worlds' differences, and those that were added.
    pub fn probes(&self) -> Vec<Probe> {
        let (world, goal) = (&self.world, &self.goal);
        let all: BTreeSet<_> = world.entries.keys().chain(goal.entries.keys()).collect();
        let gone: Vec<_> = all
            .iter()
            .filter(|path| !goal.entries.contains_key(**path))
            .collect();
        let only_removes = gone.len() == all.len() - same(world, goal) && self.probes.is_empty();
        let mut probes = Vec::new();
        for path in all.iter().filter(|path| !self.ignored.contains(**path)) {
            let (before, after) = (world.entries.get(*path), goal.entries.get(*path));
            let weight = match after {
                _ if before == after => Weight::Guard,
                None if !only_removes => Weight::Need,
                _ => Weight::Part,
            };
            probes.push(Probe {
                look: Look::Path((*path).clone()),
                expected: shown(after).into_owned(),
                weight,
            });
        }
        for (path, mode) in &goal.modes {
            let changed = world.modes.get(path) != Some(mode);
            probes.push(Probe {
                look: Look::Snippet(format!("stat -c %a /work/{}", quote(path))),
                expected: format!("{mode:o}"),
                weight: if changed { Weight::Part } else { Weight::Guard },
            });
        }
        for (path, time) in &goal.times {
            if world.times.get(path) != Some(time) {
                probes.push(Probe {
                    look: Look::Snippet(format!("date -u -r /work/{} '+%F %T'", quote(path))),
                    expected: time.clone(),
                    weight: Weight::Part,
                });
            }
        }
        probes.extend(self.probes.iter().cloned());
        probes
    }

    /// The command that looks at every probe; [`Task::judge`] reads what it prints.
    pub fn check(&self) -> String {
        check::command(&self.probes())
    }

    /// What the check's output means. One that broke off, or is not of this check, is no solution.
    pub fn judge(&self, stdout: &str) -> Verdict {
        let probes = self.probes();
        // Every line has its newline, so that one that was cut is not there.
        let lines: Vec<_> = stdout.split_terminator('\n').collect();
        if lines.len() != probes.len() || !stdout.ends_with('\n') {
            return Verdict::default();
        }
        let right = |weight| {
            let of_weight = probes
                .iter()
                .zip(&lines)
                .filter(move |(probe, _)| probe.weight == weight);
            of_weight.map(|(probe, line)| probe.is_right(line))
        };
        let guarded = right(Weight::Guard).all(|right| right);
        let needed = right(Weight::Need).all(|right| right);
        let total = right(Weight::Part).count();
        let parts = right(Weight::Part).filter(|right| *right).count();
        let solved = guarded && needed && parts == total;
        let partial = if guarded && total > 1 {
            0.5 * share(parts, total)
        } else {
            0.0
        };
        Verdict {
            solved,
            value: if solved { 1.0 } else { partial },
            parts,
        }
    }
}

/// What setups, and the commands of the model, find in their environment: nothing that depends on the host or on the day.
pub const ENVIRONMENT: &str = "export TZ=UTC LC_ALL=C.UTF-8 HOME=/tmp PAGER=cat GIT_PAGER=cat \
GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=user GIT_AUTHOR_EMAIL=user@example.com GIT_COMMITTER_NAME=user \
GIT_COMMITTER_EMAIL=user@example.com GIT_AUTHOR_DATE='2024-05-01 10:00:00 +0000' \
GIT_COMMITTER_DATE='2024-05-01 10:00:00 +0000'";

/// The snippet that prints `answer.txt`, cleaned.
fn answer(more: &str) -> String {
    format!(r"plain answer.txt | tr -s ' \t' ' ' | sed 's/^ //; s/ $//; /^$/d' {more}")
}

/// What `look` finds.
fn shown(entry: Option<&Entry>) -> Cow<'static, str> {
    match entry {
        None => "nothing".into(),
        Some(Entry::Folder) => "folder".into(),
        Some(Entry::Link(target)) => format!("link to {target}").into(),
        Some(Entry::File(text)) => format!("file\n{text}")
            .trim_end_matches('\n')
            .to_owned()
            .into(),
    }
}

fn sorted<T: AsRef<str>>(list: &[T]) -> String {
    let mut list: Vec<_> = list.iter().map(AsRef::as_ref).collect();
    list.sort_unstable();
    list.join("\n")
}

fn same(world: &World, goal: &World) -> usize {
    let entries = world.entries.iter();
    entries
        .filter(|(path, entry)| goal.entries.get(*path) == Some(entry))
        .count()
}

/// Lists are short: an `f64` holds their lengths exactly.
fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| u32::try_from(count).map_or(0.0, f64::from);
    number(part) / number(whole).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two files to be made, one to go, one to stay.
    fn task() -> Task {
        let mut world = World::default();
        world.file("keep", "50%\nmore\n");
        world.file("old", "x\n");
        let mut goal = world.clone();
        goal.remove("old");
        goal.file("new-a", "a\n");
        goal.file("new-b", "b\n");
        Task::new("", world, goal, [])
    }

    fn check(lines: &str, solved: bool, value: f64) {
        let verdict = task().judge(lines);
        assert_eq!((verdict.solved, verdict.value), (solved, value), "{lines}");
    }

    const KEPT: &str = "file%0A50%25%0Amore\n";

    #[test]
    fn a_task_is_solved_when_every_probe_is_right_and_parts_earn_a_share_of_half() {
        check(&format!("{KEPT}file%0Aa\nfile%0Ab\nnothing\n"), true, 1.0);
        check(&format!("{KEPT}file%0Aa\nfile%0Ab\nfile%0Ax\n"), false, 0.5);
        check(&format!("{KEPT}file%0Aa\nnothing\nfile%0Ax\n"), false, 0.25);
    }

    #[test]
    fn destroying_earns_nothing_and_while_a_guard_is_broken_nothing_does() {
        check(&format!("{KEPT}nothing\nnothing\nnothing\n"), false, 0.0);
        check("nothing\nfile%0Aa\nfile%0Ab\nnothing\n", false, 0.0);
    }

    #[test]
    fn an_output_that_is_not_whole_is_no_verdict() {
        for lines in [
            "",
            "\n",
            KEPT,
            &format!("{KEPT}file%0Aa\nfile%0Ab\nnothing"),
            &format!("{KEPT}file%0Aa\nfile%0Ab\nnothing\n\n"),
        ] {
            check(lines, false, 0.0);
        }
    }

    #[test]
    fn what_only_removes_earns_by_removing_and_what_is_ignored_is_not_looked_at() {
        let mut world = World::default();
        for name in ["a", "b", "c"] {
            world.file(name, "");
        }
        let mut goal = world.clone();
        goal.remove("a");
        goal.remove("b");
        let task = Task::new("", world, goal, []).ignore("c");
        let weights: Vec<_> = task.probes().iter().map(|probe| probe.weight).collect();
        assert_eq!(weights, [Weight::Part, Weight::Part]);
    }

    #[test]
    fn modes_and_times_are_looked_at_where_the_goal_has_them() {
        let mut world = World::default();
        world.file("a", "");
        world.mode("a", 0o644);
        let mut goal = world.clone();
        goal.mode("a", 0o600);
        goal.time("a", "2024-01-02 03:04:05");
        let probes = Task::new("", world, goal, []).probes();
        let expected: Vec<_> = probes
            .iter()
            .map(|probe| (probe.expected.as_str(), probe.weight))
            .collect();
        assert_eq!(
            expected,
            [
                ("file", Weight::Guard),
                ("600", Weight::Part),
                ("2024-01-02 03:04:05", Weight::Part)
            ]
        );
    }

    #[test]
    fn what_a_probe_expects_never_enters_the_machine() {
        let mut world = World::default();
        world.file("a", "");
        let task = Task::question("", world, [])
            .answer("the secret")
            .answer_names(&["hidden"]);
        assert!(!task.check().contains("secret") && !task.check().contains("hidden"));
    }

    #[test]
    fn names_and_paths_of_an_answer_are_compared_in_order_of_the_alphabet() {
        let task = Task::question("", World::default(), [])
            .answer_names(&["b", "a"])
            .answer_paths(&["y/b", "x"]);
        let expected: Vec<_> = task
            .probes()
            .into_iter()
            .map(|probe| probe.expected)
            .collect();
        assert_eq!(expected, ["a\nb", "x\ny/b"]);
    }
}
