//! The generator behind a task: what a world has in it, what is asked for, and in which words.
//!
//! Draws from a stream that the task's id seeds. What a request is about (`noun`, `amount`) comes from one part of a list for training and
//! from the other for held-out tasks, so that no held-out request was ever asked in training.

use sdk::random::Stream;

use crate::{apis::fnv, task::Task};

/// How the user asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Always in the same words.
    Plain,
    /// In several.
    Varied,
}

/// Draws the parts of one task.
#[derive(Clone, Debug)]
pub struct Draw {
    stream: Stream,
    held_out: bool,
    style: Style,
}

/// Of every so many things, one is for held-out tasks.
const HELD_OUT_SHARE: usize = 4;

impl Draw {
    /// Begins a task.
    pub fn new(task: &Task, style: Style) -> Self {
        Self {
            stream: Stream(fnv(task.to_string().as_bytes())),
            held_out: task.is_held_out(),
            style,
        }
    }

    /// One of a list; empty for an empty one.
    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        self.stream.pick(list)
    }

    /// A whole number in a range, both ends included.
    pub fn whole(&mut self, least: i32, most: i32) -> i32 {
        let span = usize::try_from(most - least).unwrap_or(0) + 1;
        least + i32::try_from(self.stream.below(span)).unwrap_or(0)
    }

    fn mine(&self, place: usize) -> bool {
        (place % HELD_OUT_SHARE == HELD_OUT_SHARE - 1) == self.held_out
    }

    /// What a request is about: one of this split's part of a list of at least four.
    pub fn noun<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let places = (0..list.len()).filter(|place| self.mine(*place));
        let mine: Vec<_> = places.map(|place| list[place]).collect();
        self.stream.pick(&mine)
    }

    /// An amount that a request is about, in a range of at least four: multiples of four are for held-out tasks.
    pub fn amount(&mut self, least: i32, most: i32) -> i32 {
        loop {
            let amount = self.whole(least, most);
            if (amount % 4 == 0) == self.held_out {
                return amount;
            }
        }
    }

    /// Different things from a list, none of them in `without`; fewer where the list has not enough.
    pub fn others<'a>(&mut self, list: &[&'a str], without: &[&str], count: usize) -> Vec<&'a str> {
        let kept = list.iter().filter(|item| !without.contains(item));
        let mut kept: Vec<_> = kept.copied().collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !kept.is_empty() {
            chosen.push(kept.remove(self.stream.below(kept.len())));
        }
        chosen
    }

    /// The same list in another order.
    pub fn shuffled<T>(&mut self, mut list: Vec<T>) -> Vec<T> {
        for end in (1..list.len()).rev() {
            list.swap(end, self.stream.below(end + 1));
        }
        list
    }

    /// One of several ways to say the same; the plain style takes the first. Both styles draw alike, so that the world is the same.
    pub fn say<const N: usize>(&mut self, mut ways: [String; N]) -> String {
        let place = self.stream.below(N);
        let place = if self.style == Style::Plain { 0 } else { place };
        ways.get_mut(place).map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIST: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn draw(id: &str, style: Style) -> Draw {
        Draw::new(&Task::read(id).unwrap(), style)
    }

    #[test]
    fn training_and_held_out_tasks_are_about_different_things() {
        let about = |id: &str| {
            let mut draw = draw(id, Style::Plain);
            let nouns: BTreeSet<_> = (0..200).map(|_| draw.noun(&LIST)).collect();
            let amounts: BTreeSet<_> = (0..200).map(|_| draw.amount(1, 12)).collect();
            (nouns, amounts)
        };
        let (train, few) = about("todo-add/1/1");
        let (held_out, many) = about("todo-add/1/1001");
        assert_eq!(train, ["a", "b", "c", "e", "f", "g"].into());
        assert_eq!(held_out, ["d", "h"].into());
        assert!(few.is_disjoint(&many) && many == [4, 8, 12].into());
    }

    #[test]
    fn both_styles_draw_the_same_things() {
        let (mut plain, mut varied) = (
            draw("todo-add/1/7", Style::Plain),
            draw("todo-add/1/7", Style::Varied),
        );
        let ways = || ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        let mut said = BTreeSet::new();
        for _ in 0..50 {
            assert_eq!(plain.say(ways()), "one");
            said.insert(varied.say(ways()));
            assert_eq!(plain.whole(-3, 90), varied.whole(-3, 90));
        }
        assert_eq!(said.len(), 3);
    }

    #[test]
    fn others_are_different_and_none_of_those_to_leave_out() {
        let mut draw = draw("todo-add/1/7", Style::Plain);
        let others = draw.others(&LIST, &["a", "b"], 5);
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), 5);
        assert!(!others.contains(&"a") && !others.contains(&"b"));
        assert_eq!(draw.others(&LIST, &["a"], 100).len(), 7);
    }
}
