//! Task ids: `family/difficulty/number`.
//!
//! The id alone makes the content (with the config's `style`): every attempt at a task sees the same world and hears the same requests,
//! whatever its seed. Training and held-out numbers do not meet, and held-out tasks are about other things ([`crate::draw`]).

use std::{fmt, ops::RangeInclusive};

use sdk::{Fault, Split};

use crate::families::{self, Family};

/// The numbers that training may use.
pub const TRAIN: RangeInclusive<u32> = 1..=1_000;

/// The numbers that training never sees.
pub const HELD_OUT: RangeInclusive<u32> = 1_001..=1_100;

/// The difficulties.
pub const DIFFICULTIES: RangeInclusive<u8> = 1..=3;

/// A task by its parts.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Whose it is.
    pub family: &'static Family,
    /// 1 to 3.
    pub difficulty: u8,
    /// Which of its tasks.
    pub number: u32,
}

impl Task {
    /// Reads an id.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist, with what an id is made of.
    pub fn read(id: &str) -> Result<Self, Fault> {
        let unknown = |why: &str| Fault::InvalidInput(format!("there is no task `{id}`: {why}"));
        let parts: Vec<_> = id.split('/').collect();
        let &[family, difficulty, number] = parts.as_slice() else {
            return Err(unknown("an id is family/difficulty/number"));
        };
        let family = families::named(family).ok_or_else(|| unknown("no such family"))?;
        let difficulty = canonical(difficulty).filter(|number| DIFFICULTIES.contains(number));
        let number = canonical(number).filter(|n| TRAIN.contains(n) || HELD_OUT.contains(n));
        Ok(Self {
            family,
            difficulty: difficulty.ok_or_else(|| unknown("the difficulty is 1, 2 or 3"))?,
            number: number.ok_or_else(|| unknown("numbers are 1 to 1100"))?,
        })
    }

    /// Whether training never sees it.
    pub fn is_held_out(&self) -> bool {
        HELD_OUT.contains(&self.number)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.family.name, self.difficulty, self.number
        )
    }
}

/// A number that is written in the one way that an id has it: two ids never name the same task.
fn canonical<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Which tasks are listed, from the config.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// Names of families or APIs; empty for all.
    pub families: Vec<String>,
    /// The greatest difficulty.
    pub difficulty: u8,
    /// Training tasks of each family and difficulty.
    pub train: u32,
    /// Held-out tasks of each family and difficulty.
    pub held_out: u32,
}

impl Choice {
    /// The families that are named, in the order of our list.
    ///
    /// # Errors
    /// `invalid-config` for a name that is neither a family's nor an API's.
    pub fn families(&self) -> Result<Vec<&'static Family>, Fault> {
        let is = |family: &Family, name: &String| family.name == name || family.api == name;
        for name in &self.families {
            if !families::ALL.iter().any(|family| is(family, name)) {
                let there: Vec<_> = families::ALL.iter().map(|family| family.name).collect();
                let there = there.join(", ");
                return Err(Fault::InvalidConfig(format!(
                    "`families` names `{name}`, which is neither a family nor an API; the families are {there}"
                )));
            }
        }
        let wanted = |family: &&Family| {
            self.families.is_empty() || self.families.iter().any(|name| is(family, name))
        };
        Ok(families::ALL.iter().filter(wanted).collect())
    }
}

/// The ids of a split.
///
/// # Errors
/// See [`Choice::families`].
pub fn ids(choice: &Choice, split: Split) -> Result<Vec<String>, Fault> {
    let (all, count) = match split {
        Split::Train => (TRAIN, choice.train),
        Split::HeldOut => (HELD_OUT, choice.held_out),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut ids = Vec::new();
    for family in choice.families()? {
        for difficulty in DIFFICULTIES.filter(|difficulty| *difficulty <= choice.difficulty) {
            ids.extend(all.clone().take(count).map(|number| {
                let task = Task {
                    family,
                    difficulty,
                    number,
                };
                task.to_string()
            }));
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn choice(families: &[&str], difficulty: u8) -> Choice {
        Choice {
            families: families.iter().map(|name| (*name).to_owned()).collect(),
            difficulty,
            train: 40,
            held_out: 4,
        }
    }

    #[test]
    fn every_listed_task_can_be_read_and_no_id_is_in_both_splits() {
        let train = ids(&choice(&[], 3), Split::Train).unwrap();
        let held_out = ids(&choice(&[], 3), Split::HeldOut).unwrap();
        for (list, is_held_out) in [(&train, false), (&held_out, true)] {
            for id in list {
                let task = Task::read(id).unwrap();
                assert_eq!(
                    (task.to_string(), task.is_held_out()),
                    (id.clone(), is_held_out)
                );
                assert!(id.len() <= 200);
            }
        }
        assert_eq!(train.len(), families::ALL.len() * 3 * 40);
        assert_eq!(held_out.len(), families::ALL.len() * 3 * 4);
        let all: BTreeSet<_> = train.iter().chain(&held_out).collect();
        assert_eq!(all.len(), train.len() + held_out.len());
        assert!(train.contains(&"calendar-book/2/17".to_owned()));
    }

    #[test]
    fn the_config_chooses_by_family_by_api_and_by_difficulty() {
        let of = |families: &[&str], difficulty| ids(&choice(families, difficulty), Split::HeldOut);
        assert_eq!(
            of(&["calendar-book"], 1).unwrap(),
            [
                "calendar-book/1/1001",
                "calendar-book/1/1002",
                "calendar-book/1/1003",
                "calendar-book/1/1004"
            ]
        );
        assert_eq!(of(&["calendar"], 2).unwrap().len(), 2 * 2 * 4);
        let error = of(&["calender"], 2).unwrap_err();
        assert!(
            matches!(&error, Fault::InvalidConfig(why) if why.contains("`calender`")),
            "{error:?}"
        );
    }

    #[test]
    fn ids_that_name_no_task_are_faults_that_say_why() {
        let table = [
            ("", "an id is"),
            ("calendar-book/1", "an id is"),
            ("calendar-book/1/1/1", "an id is"),
            ("calendar/1/1", "no such family"),
            ("calendar-book/0/1", "the difficulty"),
            ("calendar-book/4/1", "the difficulty"),
            ("calendar-book/01/1", "the difficulty"),
            ("calendar-book/1/0", "numbers are"),
            ("calendar-book/1/1101", "numbers are"),
            ("calendar-book/1/+1", "numbers are"),
            ("calendar-book/1/-1", "numbers are"),
        ];
        for (id, why) in table {
            match Task::read(id) {
                Err(Fault::InvalidInput(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{id}: {other:?}"),
            }
        }
    }
}
