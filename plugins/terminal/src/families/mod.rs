//! The families of tasks. Each draws an instance of its kind at a difficulty; a theme is a file.
//!
//! Difficulty 1 is one short command, in wording that never varies; 2 takes two or three steps or a sharper command; 3 is longer.
//! Task ids are `family/difficulty/number`; numbers from [`draw::FIRST_HELD_OUT`](crate::draw::FIRST_HELD_OUT) on are held out.

mod archive;
mod files;
mod find;
mod git;
mod json;
mod logs;
mod lookup;
mod numbers;
mod system;
mod tables;
mod text;

use sdk::{Fault, Split};

use crate::{
    draw::{Draw, END, FIRST_HELD_OUT},
    task::Task,
    world::World,
};

/// A kind of task.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Lower-case words joined by `-`.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    make: fn(&mut Draw, usize) -> Task,
}

impl Family {
    const fn new(
        name: &'static str,
        about: &'static str,
        make: fn(&mut Draw, usize) -> Task,
    ) -> Self {
        Self { name, about, make }
    }

    /// The task of a number, at a difficulty of 1 to 3.
    pub fn task(&self, difficulty: usize, number: u32) -> Task {
        (self.make)(&mut Draw::new(self.name, difficulty, number), difficulty)
    }
}

/// The families by theme.
pub const THEMES: [(&str, &[Family]); 11] = [
    ("files and folders", files::FAMILIES),
    ("finding files", find::FAMILIES),
    ("finding texts and counts", lookup::FAMILIES),
    ("text", text::FAMILIES),
    ("lists and tables", tables::FAMILIES),
    ("JSON", json::FAMILIES),
    ("archives", archive::FAMILIES),
    ("permissions, links, processes", system::FAMILIES),
    ("logs and settings", logs::FAMILIES),
    ("numbers, dates, checksums, Python", numbers::FAMILIES),
    ("git", git::FAMILIES),
];

/// Every family.
pub fn all() -> impl Iterator<Item = &'static Family> {
    THEMES.iter().flat_map(|(_, families)| families.iter())
}

/// Which tasks are listed.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Names of families; empty for all.
    pub families: Vec<String>,
    /// 1 to 3, or 0 for all three.
    pub difficulty: usize,
    /// How many of each family and difficulty.
    pub count: usize,
}

impl Listing {
    /// The ids of a split.
    ///
    /// # Errors
    /// `invalid-config` for a family that does not exist.
    pub fn ids(&self, split: Split) -> Result<Vec<String>, Fault> {
        for name in &self.families {
            if !all().any(|family| family.name == name) {
                return Err(Fault::InvalidConfig(format!(
                    "`families` names `{name}`, and there is no such family; the plugin's README lists them"
                )));
            }
        }
        let first = match split {
            Split::Train => 0,
            Split::HeldOut => FIRST_HELD_OUT,
        };
        let numbers = (first..first + FIRST_HELD_OUT).take(self.count);
        let levels = match self.difficulty {
            0 => 1..=3,
            level => level..=level,
        };
        let chosen = all().filter(|family| {
            self.families.is_empty() || self.families.iter().any(|name| name == family.name)
        });
        Ok(chosen
            .flat_map(|family| levels.clone().map(move |level| (family.name, level)))
            .flat_map(|(name, level)| {
                numbers
                    .clone()
                    .map(move |number| format!("{name}/{level}/{number}"))
            })
            .collect())
    }
}

/// The task of an id, whether it is listed or not.
///
/// # Errors
/// `invalid-input` for an id of no task.
pub fn task(id: &str) -> Result<Task, Fault> {
    let unknown = || {
        Fault::InvalidInput(format!(
            "there is no task `{id}`; an id is `family/difficulty/number`, such as `find-largest/1/17`"
        ))
    };
    let mut parts = id.split('/');
    let (Some(name), Some(level), Some(number), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unknown());
    };
    let family = all()
        .find(|family| family.name == name)
        .ok_or_else(unknown)?;
    let level: usize = level.parse().map_err(|_| unknown())?;
    let number: u32 = number.parse().map_err(|_| unknown())?;
    if !(1..=3).contains(&level) || number >= END || id != format!("{name}/{level}/{number}") {
        return Err(unknown());
    }
    Ok(family.task(level, number))
}

/// Other training tasks of the family and difficulty of a task.
///
/// # Errors
/// `invalid-input` for an id of no task.
pub fn alike(id: &str, count: usize) -> Result<Vec<Task>, Fault> {
    let own = task(id)?;
    let (kind, _) = id.rsplit_once('/').unwrap_or((id, ""));
    // From the end: a recipe with few tasks trains on the first.
    let others = (0..FIRST_HELD_OUT)
        .rev()
        .map(|number| task(&format!("{kind}/{number}")));
    let another = |other: &Result<Task, Fault>| {
        other
            .as_ref()
            .map_or(true, |other| other.prompt != own.prompt)
    };
    others.filter(another).take(count).collect()
}

/// A world to begin with: one file that no task is about, so that destroying everything is never right.
fn bystander(draw: &mut Draw) -> World {
    let mut world = World::default();
    world.file(draw.file("md"), draw.lines(2));
    world
}

/// A task that writes one file, which is named in the prompt.
fn written(prompt: String, world: World, path: &str, text: &str, solution: String) -> Task {
    let mut goal = world.clone();
    goal.file(path, text);
    Task::new(prompt, world, goal, [solution])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::task::Weight;

    fn listing(families: &[&str], difficulty: usize) -> Listing {
        let families = families.iter().map(|name| (*name).to_owned()).collect();
        Listing {
            families,
            difficulty,
            count: 3,
        }
    }

    #[test]
    fn ids_are_listed_by_family_difficulty_and_split_and_each_is_a_task() {
        let two = listing(&["git-log", "find-text"], 2);
        let ids = two.ids(Split::Train).unwrap();
        assert_eq!(
            ids[..3],
            ["find-text/2/0", "find-text/2/1", "find-text/2/2"]
        );
        assert_eq!(ids.len(), 6);
        assert_eq!(two.ids(Split::HeldOut).unwrap()[0], "find-text/2/1000");
        let everything = listing(&[], 0).ids(Split::Train).unwrap();
        assert_eq!(everything.len(), all().count() * 9);
        assert!(everything.iter().all(|id| task(id).is_ok()));
        assert!(matches!(
            listing(&["find-texts"], 1).ids(Split::Train),
            Err(Fault::InvalidConfig(_))
        ));
    }

    #[test]
    fn an_id_of_no_task_is_a_fault() {
        for id in [
            "",
            "find-text",
            "find-text/1",
            "find-text/0/1",
            "find-text/4/1",
            "find-text/1/2000",
            "find-text/1/01",
            "find-text/1/+1",
            "find-text/1/1/1",
            "x/1/1",
        ] {
            assert!(matches!(task(id), Err(Fault::InvalidInput(_))), "{id}");
        }
    }

    #[test]
    fn there_are_many_families_and_each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = all().map(|family| family.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.len() >= 40);
    }

    #[test]
    fn no_held_out_task_is_a_training_task_and_training_tasks_hardly_repeat() {
        for family in all() {
            for level in 1..=3 {
                let draw = |number| {
                    let task = family.task(level, number);
                    (task.setup(), task.prompt)
                };
                let train: BTreeSet<_> = (0..40).map(draw).collect();
                assert!(
                    train.len() >= 38,
                    "{}/{level}: {}",
                    family.name,
                    train.len()
                );
                for number in FIRST_HELD_OUT..FIRST_HELD_OUT + 4 {
                    assert!(
                        !train.contains(&draw(number)),
                        "{}/{level}/{number}",
                        family.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_task_asks_for_something_can_be_held_and_hides_its_expectations() {
        for family in all() {
            for level in 1..=3 {
                for number in 0..5 {
                    let task = family.task(level, number);
                    let id = format!("{}/{level}/{number}", family.name);
                    let probes = task.probes();
                    let asks = probes.iter().any(|probe| probe.weight == Weight::Part);
                    assert!(asks, "{id} asks for nothing");
                    let keeps = probes.iter().any(|probe| probe.weight == Weight::Guard);
                    assert!(keeps, "{id} guards nothing");
                    assert!(
                        probes.iter().all(|probe| !probe.expected.is_empty()),
                        "{id}"
                    );
                    // A machine keeps 65,536 bytes of an output; a command of the system has at most 128 KiB.
                    let printed: usize = probes.iter().map(|probe| probe.expected.len()).sum();
                    assert!(printed < 40_000, "{id}: {printed}");
                    assert!(
                        task.setup().len() < 60_000 && task.check().len() < 60_000,
                        "{id}"
                    );
                    assert!(
                        task.prompt.len() < [160, 400, 450][level - 1],
                        "{id}: {}",
                        task.prompt
                    );
                    assert!(
                        task.solution.iter().all(|command| command.len() < 600),
                        "{id}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_readme_lists_every_family() {
        let rows = THEMES.iter().flat_map(|(theme, families)| {
            families
                .iter()
                .map(move |family| format!("| {theme} | `{}` | {} |\n", family.name, family.about))
        });
        let table: String = rows.collect();
        let readme = include_str!("../../README.md");
        assert!(
            readme.contains(&table),
            "the table of plugins/terminal/README.md has to be:\n{table}"
        );
    }
}
