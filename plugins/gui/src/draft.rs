//! What a family makes of a task's number: the words of the task, the page's content, the state to reach, and a way to get there.
//!
//! Also the draws that a family makes it from. Does not know any page; the families are in [`crate::families`].

use sdk::random::Stream;
use serde_json::{Map, Value};

use crate::{oracle::Goal, task::HELD_OUT};

/// A task that is ready to be shown.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// What the model is asked to do.
    pub instruction: String,
    /// The page's content, for its script.
    pub parameters: Value,
    /// What the oracle wants.
    pub goal: Goal,
    /// A reference solution, for tests.
    pub steps: Vec<Step>,
}

/// A step of a reference solution. Roles and names are those of the accessibility tree.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Clicks the first node of this role and name.
    Click(&'static str, String),
    /// Replaces what a field holds.
    Fill(&'static str, String, String),
    /// Drags from the middle of the first node to the middle of the second.
    Drag([(&'static str, String); 2]),
    /// Presses a key where the focus is.
    Press(&'static str),
    /// Scrolls the page to its end.
    ScrollDown,
}

impl Step {
    /// Clicks a button.
    pub fn button(name: impl Into<String>) -> Self {
        Self::Click("button", name.into())
    }

    /// Clicks a node.
    pub fn click(role: &'static str, name: impl Into<String>) -> Self {
        Self::Click(role, name.into())
    }

    /// Fills a text field.
    pub fn fill(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Fill("textbox", name.into(), text.into())
    }

    /// Chooses from a list of choices.
    pub fn select(name: impl Into<String>, choice: impl Into<String>) -> Self {
        Self::Fill("combobox", name.into(), choice.into())
    }
}

impl Draft {
    /// A draft without anything irreversible but what the page itself calls final.
    pub fn new(
        instruction: impl Into<String>,
        parameters: Value,
        expected: Value,
        steps: Vec<Step>,
    ) -> Self {
        let irreversible = &[];
        Self {
            instruction: instruction.into(),
            parameters,
            goal: Goal {
                expected,
                irreversible,
            },
            steps,
        }
    }

    /// The same with parts in which a wrong change cannot be taken back.
    #[must_use]
    pub fn irreversible(mut self, parts: &'static [&'static str]) -> Self {
        self.goal.irreversible = parts;
        self
    }
}

/// Whose pages training shows.
const BRANDS: [&str; 20] = [
    "Acorn", "Bluebird", "Cedar", "Dune", "Ember", "Falcon", "Granite", "Harbour", "Ivory",
    "Juniper", "Kestrel", "Lagoon", "Maple", "Nimbus", "Orchid", "Pebble", "Quartz", "Raven",
    "Saffron", "Tundra",
];

/// Whose pages training never shows.
const HELD_OUT_BRANDS: [&str; 6] = ["Umber", "Velvet", "Willow", "Yarrow", "Zephyr", "Amber"];

/// The draws of one task: the same number gives the same ones.
#[derive(Clone, Debug)]
pub struct Draw {
    stream: Stream,
    held_out: bool,
}

impl Draw {
    /// The draws of a family's task. The family is part of the seed, so that two families do not draw alike.
    pub fn new(family: &str, difficulty: u8, number: u32) -> Self {
        let mut seed: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in family.bytes().chain([0xff, difficulty]) {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self {
            stream: Stream(seed ^ (u64::from(number) << 20)),
            held_out: HELD_OUT.contains(&number),
        }
    }

    /// The owner of the page, for its title. Held-out pages have owners of their own, so that none is also a training page.
    pub fn brand(&mut self) -> &'static str {
        if self.held_out {
            self.one(&HELD_OUT_BRANDS)
        } else {
            self.one(&BRANDS)
        }
    }

    /// A place in a list of `len`.
    pub fn below(&mut self, len: usize) -> usize {
        self.stream.below(len)
    }

    /// A whole number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high - low + 1).unwrap_or(1);
        low + i64::try_from(self.below(span)).unwrap_or(0)
    }

    /// One of a list.
    pub fn one(&mut self, list: &[&'static str]) -> &'static str {
        list.get(self.below(list.len())).copied().unwrap_or("")
    }

    /// Several different ones of a list, in any order; fewer where there are fewer.
    pub fn several(&mut self, list: &[&'static str], count: usize) -> Vec<&'static str> {
        let mut left = list.to_vec();
        let mut taken = Vec::new();
        while taken.len() < count && !left.is_empty() {
            taken.push(left.swap_remove(self.below(left.len())));
        }
        taken
    }

    /// Several different whole numbers from `low` to `high`, in any order.
    pub fn numbers(&mut self, low: i64, high: i64, count: usize) -> Vec<i64> {
        let mut left: Vec<i64> = (low..=high).collect();
        let mut taken = Vec::new();
        while taken.len() < count && !left.is_empty() {
            taken.push(left.swap_remove(self.below(left.len())));
        }
        taken
    }

    /// Whether something with this chance happens.
    pub fn chance(&mut self, chance: f64) -> bool {
        self.stream.uniform() < chance
    }
}

/// An object from pairs.
pub fn object<V: Into<Value>>(pairs: impl IntoIterator<Item = (impl Into<String>, V)>) -> Value {
    let fields = pairs
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()));
    Value::Object(fields.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_draws_the_same_and_another_family_or_difficulty_draws_otherwise() {
        let draws = |family, difficulty, number| {
            let mut draw = Draw::new(family, difficulty, number);
            (0..8).map(|_| draw.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draws("a", 1, 1), draws("a", 1, 1));
        for other in [draws("b", 1, 1), draws("a", 2, 1), draws("a", 1, 2)] {
            assert_ne!(draws("a", 1, 1), other);
        }
    }

    #[test]
    fn several_are_different_and_within_the_list() {
        let mut draw = Draw::new("a", 1, 1);
        let list = ["a", "b", "c", "d"];
        for _ in 0..50 {
            let mut taken = draw.several(&list, 3);
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), 3);
            assert!((2..=4).contains(&draw.between(2, 4)));
        }
        assert_eq!(draw.several(&list, 9).len(), 4);
        assert_eq!(draw.numbers(1, 3, 9).len(), 3);
        assert_eq!(draw.one(&[]), "");
    }
}
