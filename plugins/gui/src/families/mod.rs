//! The families of pages: what each draws for a task, and the page's body.
//!
//! A family is a page in `pages/` and a function from draws to a [`Draft`]. Difficulty 1 is short and regular, 2 adds parts or decoys, 3
//! needs several steps that depend on each other. What a page's state is, its own script says (`pageState`).

mod apps;
mod forms;
mod moves;
mod panels;
mod tables;
mod words;

use crate::draft::{Draft, Draw};

/// A family of tasks.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, the first part of its tasks' ids.
    pub name: &'static str,
    /// The body of its page: markup and script.
    pub body: &'static str,
    make: fn(&mut Draw, u8) -> Draft,
}

impl Family {
    /// The task of a number.
    pub fn draft(&self, difficulty: u8, number: u32) -> Draft {
        (self.make)(&mut Draw::new(self.name, difficulty, number), difficulty)
    }
}

/// The family of this name.
pub fn named(name: &str) -> Option<&'static Family> {
    ALL.iter().find(|family| family.name == name)
}

macro_rules! families {
    ($($name:literal => $make:path),* $(,)?) => {
        /// Every family.
        pub const ALL: &[Family] = &[$(Family {
            name: $name,
            body: include_str!(concat!("../../pages/", $name, ".html")),
            make: $make,
        }),*];
    };
}

families! {
    "form-fill" => forms::fill,
    "form-choose" => forms::choose,
    "form-date" => forms::date,
    "wizard" => forms::wizard,
    "login" => forms::login,
    "unlock" => forms::unlock,
    "search" => tables::search,
    "press" => tables::press,
    "table-pick" => tables::pick,
    "table-sort" => tables::sort,
    "pages" => tables::pages,
    "slider" => moves::slider,
    "reorder" => moves::reorder,
    "drag-list" => moves::drag_list,
    "drag-boxes" => moves::drag_boxes,
    "counter" => moves::counter,
    "calendar" => moves::calendar,
    "dialog-confirm" => panels::confirm,
    "dialog-edit" => panels::edit,
    "tabs" => panels::tabs,
    "accordion" => panels::accordion,
    "tree" => panels::tree,
    "menu" => panels::menu,
    "read-to-end" => panels::read_to_end,
    "cart" => apps::cart,
    "inbox" => apps::inbox,
    "settings" => apps::settings,
    "copy" => apps::copy,
    "todo" => apps::todo,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::task::{HELD_OUT, TRAIN};

    #[test]
    fn a_number_always_makes_the_same_task() {
        for family in ALL {
            for difficulty in 1..=3 {
                assert_eq!(family.draft(difficulty, 7), family.draft(difficulty, 7));
            }
        }
    }

    #[test]
    fn no_held_out_task_is_also_a_training_task() {
        for family in ALL {
            for difficulty in 1..=3 {
                let shown = |number| {
                    let draft = family.draft(difficulty, number);
                    format!("{}\n{}", draft.instruction, draft.parameters)
                };
                let train: BTreeSet<_> = TRAIN.map(shown).collect();
                let again = HELD_OUT.map(shown).find(|task| train.contains(task));
                assert_eq!(again, None, "{} {difficulty}", family.name);
            }
        }
    }

    #[test]
    fn instructions_are_short_and_quote_what_they_ask_for() {
        for family in ALL {
            for (difficulty, longest) in [(1, 130), (2, 220), (3, 330)] {
                for number in 0..100 {
                    let instruction = family.draft(difficulty, number).instruction;
                    let length = instruction.chars().count();
                    assert!(
                        length <= longest && instruction.ends_with('.'),
                        "{} {difficulty}: {length}: {instruction}",
                        family.name
                    );
                }
            }
        }
    }
}
