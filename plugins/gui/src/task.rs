//! Task ids: `family/difficulty/number` for our own pages, `miniwob/page/number` for MiniWoB++.
//!
//! The number alone makes the content: every attempt at a task sees the same page, whatever its seed. Training and held-out numbers
//! do not meet.

use std::ops::RangeInclusive;

use sdk::{Fault, Split};

use crate::{
    families::{self, Family},
    miniwob,
};

/// The numbers that training may use.
pub const TRAIN: RangeInclusive<u32> = 1..=1_000;

/// The numbers that training never sees.
pub const HELD_OUT: RangeInclusive<u32> = 1_001..=1_020;

/// Which tasks are listed, from the config.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// Names of families; empty for all.
    pub families: Vec<String>,
    /// 1 to 3; 0 for all.
    pub difficulty: u8,
    /// Training tasks of each family and difficulty.
    pub tasks: u32,
    /// Whether MiniWoB++ pages are there.
    pub miniwob: bool,
}

/// A task by its parts.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// A page of ours.
    Ours {
        /// Its family.
        family: &'static Family,
        /// 1 to 3.
        difficulty: u8,
        /// Which of its tasks.
        number: u32,
    },
    /// A MiniWoB++ page.
    MiniWob {
        /// The page's name.
        page: &'static str,
        /// Which of its tasks.
        number: u32,
    },
}

impl Task {
    /// Reads an id.
    ///
    /// # Errors
    /// `invalid-input` for a task that does not exist.
    pub fn read(id: &str) -> Result<Self, Fault> {
        let unknown = |why: &str| Fault::InvalidInput(format!("there is no task `{id}`: {why}"));
        let form = "an id is family/difficulty/number or miniwob/page/number";
        let parts: Vec<_> = id.split('/').collect();
        let &[first, second, number] = parts.as_slice() else {
            return Err(unknown(form));
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| digits);
        let number = number.filter(|number| TRAIN.contains(number) || HELD_OUT.contains(number));
        let number = number.ok_or_else(|| {
            unknown(&format!(
                "numbers are {} to {}",
                TRAIN.start(),
                HELD_OUT.end()
            ))
        })?;
        if first == "miniwob" {
            let page = miniwob::PAGES.iter().find(|page| **page == second);
            let page = page.ok_or_else(|| unknown("this MiniWoB++ page is not in the list"))?;
            return Ok(Self::MiniWob { page, number });
        }
        let family = families::named(first).ok_or_else(|| unknown("no such family"))?;
        let difficulty = match second {
            "1" => 1,
            "2" => 2,
            "3" => 3,
            _ => return Err(unknown("the difficulty is 1, 2 or 3")),
        };
        Ok(Self::Ours {
            family,
            difficulty,
            number,
        })
    }
}

/// The ids of a split.
///
/// # Errors
/// `invalid-config` for a family that does not exist or is switched off.
pub fn ids(choice: &Choice, split: Split) -> Result<Vec<String>, Fault> {
    let numbers = match split {
        Split::Train => *TRAIN.start()..=choice.tasks.clamp(*TRAIN.start(), *TRAIN.end()),
        Split::HeldOut => HELD_OUT,
    };
    let difficulties = match choice.difficulty {
        0 => 1..=3,
        one => one..=one,
    };
    let mut heads = Vec::new();
    for name in chosen(choice)? {
        if name.starts_with("miniwob/") {
            heads.push(name);
        } else {
            heads.extend(
                difficulties
                    .clone()
                    .map(|difficulty| format!("{name}/{difficulty}")),
            );
        }
    }
    let ids = |head: &String| {
        numbers
            .clone()
            .map(move |number| format!("{head}/{number}"))
            .collect::<Vec<_>>()
    };
    Ok(heads.iter().flat_map(ids).collect())
}

/// Families and MiniWoB++ pages, in the order of our lists.
fn chosen(choice: &Choice) -> Result<Vec<String>, Fault> {
    let ours = families::ALL.iter().map(|family| family.name.to_owned());
    let pages = miniwob::PAGES.iter().map(|page| format!("miniwob/{page}"));
    let there: Vec<_> = ours.chain(pages.filter(|_| choice.miniwob)).collect();
    let is_named = |name: &str, there: &str| {
        there == name || name == "miniwob" && there.starts_with("miniwob/")
    };
    for name in &choice.families {
        if !there.iter().any(|there| is_named(name, there)) {
            let why = if name.starts_with("miniwob") && !choice.miniwob {
                "set `miniwob = true` to list MiniWoB++ pages".to_owned()
            } else {
                let names: Vec<_> = families::ALL.iter().map(|family| family.name).collect();
                format!(
                    "there are {} and, with `miniwob = true`, miniwob",
                    names.join(", ")
                )
            };
            return Err(Fault::InvalidConfig(format!(
                "`families` names `{name}`, which is not there: {why}"
            )));
        }
    }
    let wanted = |there: &String| {
        choice.families.is_empty() || choice.families.iter().any(|name| is_named(name, there))
    };
    Ok(there.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn choice(families: &[&str], difficulty: u8, miniwob: bool) -> Choice {
        Choice {
            families: families.iter().map(|name| (*name).to_owned()).collect(),
            difficulty,
            tasks: 80,
            miniwob,
        }
    }

    #[test]
    fn every_listed_task_can_be_read_and_no_id_is_in_both_splits() {
        let choice = choice(&[], 0, true);
        let train = ids(&choice, Split::Train).unwrap();
        let held_out = ids(&choice, Split::HeldOut).unwrap();
        for id in train.iter().chain(&held_out) {
            assert!(Task::read(id).is_ok() && id.len() <= 200, "{id}");
        }
        let all: BTreeSet<_> = train.iter().chain(&held_out).collect();
        assert_eq!(all.len(), train.len() + held_out.len());
        assert_eq!(
            train.len(),
            (families::ALL.len() * 3 + miniwob::PAGES.len()) * 80
        );
        assert!(train.contains(&"form-fill/1/17".to_owned()));
    }

    #[test]
    fn the_config_chooses_families_and_difficulty() {
        let of = |choice: &Choice| ids(choice, Split::HeldOut).unwrap();
        assert_eq!(of(&choice(&["press"], 2, false)).len(), 20);
        assert_eq!(of(&choice(&["press"], 2, false))[0], "press/2/1001");
        assert_eq!(
            of(&choice(&["miniwob"], 2, true)).len(),
            20 * miniwob::PAGES.len()
        );
        assert_eq!(
            of(&choice(&["miniwob/click-test"], 1, true))[0],
            "miniwob/click-test/1001"
        );
        assert_eq!(of(&choice(&[], 1, false)).len(), 20 * families::ALL.len());
    }

    #[test]
    fn a_family_that_is_not_there_is_named() {
        for (name, hint) in [("forms", "form-fill"), ("miniwob", "miniwob = true")] {
            let fault = ids(&choice(&[name], 1, false), Split::Train).unwrap_err();
            assert!(matches!(fault, Fault::InvalidConfig(_)));
            assert!(fault.text().contains(name) && fault.text().contains(hint));
        }
    }

    #[test]
    fn ids_that_do_not_exist_are_faults() {
        for id in [
            "",
            "form-fill",
            "form-fill/1",
            "form-fill/1/0",
            "form-fill/1/01",
            "form-fill/1/1021",
            "form-fill/1/+1",
            "form-fill/4/1",
            "form-fill/1/1/1",
            "forms/1/1",
            "miniwob/no-page/1",
            "miniwob/../1",
        ] {
            assert!(
                matches!(Task::read(id), Err(Fault::InvalidInput(_))),
                "{id}"
            );
        }
    }
}
