//! Arithmetic homework, generated: a problem in words, for a teaching assistant and a teacher with a pupil's work under it.
//!
//! A file's content stands in the message, as `homework.txt`. The stories of the held-out sheets are others than those of the
//! training ones. Knows no preference; what a sheet knows is which number is right.

use std::collections::BTreeSet;

use sdk::{Split, random::Stream};

use crate::{persona::Persona, questions::Question, text};

/// What a program knows about a homework.
#[derive(Clone, PartialEq, Debug)]
pub struct Sheet {
    /// The right number.
    pub answer: u32,
    /// The wrong one that the pupil wrote.
    pub claimed: Option<u32>,
    /// Every number that belongs to the sheet: those of the file, and of the way to the answer.
    own: Vec<f64>,
}

/// A problem of the kind a × b ± c.
struct Story {
    text: &'static str,
    plus: bool,
    /// Stems of words that an answer to the point may use.
    keywords: &'static [&'static str],
}

const fn story(text: &'static str, plus: bool, keywords: &'static [&'static str]) -> Story {
    Story {
        text,
        plus,
        keywords,
    }
}

const STORIES: [Story; 6] = [
    story(
        "{name} buys {a} boxes of {b} pens each and gives {c} pens away. How many pens are left?",
        false,
        &["pen", "box", "left"],
    ),
    story(
        "{name} reads {b} pages a day for {a} days, and then {c} more pages. How many pages is that?",
        true,
        &["page", "read", "day"],
    ),
    story(
        "{name} bakes {a} trays of {b} rolls and sells all but {c}. How many rolls are sold?",
        false,
        &["roll", "tray", "sold", "sell"],
    ),
    story(
        "{name} saves {b} dollars a week for {a} weeks and gets {c} dollars as a present. How many dollars is that?",
        true,
        &["dollar", "week", "sav"],
    ),
    story(
        "A bus has {a} rows of {b} seats, and {c} seats are broken. How many can be used?",
        false,
        &["seat", "row", "bus"],
    ),
    story(
        "{name} has {a} albums with {b} photos each, and {c} loose photos. How many photos is that?",
        true,
        &["photo", "album", "loose"],
    ),
];

const STORIES_HELD_OUT: [Story; 3] = [
    story(
        "{name} plants {a} rows of {b} tulips, and {c} of them do not grow. How many tulips grow?",
        false,
        &["tulip", "row", "grow"],
    ),
    story(
        "{name} runs {b} rounds each morning for {a} mornings, and {c} more on Sunday. How many rounds is that?",
        true,
        &["round", "run", "ran", "morning"],
    ),
    story(
        "{name} picks {a} baskets of {b} plums and eats {c}. How many plums are left?",
        false,
        &["plum", "basket", "left"],
    ),
];

const NAMES: [&str; 10] = [
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas",
];

/// Training sheets of a persona, and held-out ones.
const SHEETS: (usize, usize) = (60, 24);

/// Numbers from here on are results; below, they count things ("2 steps", "1 mistake") and give nothing away.
const RESULT: f64 = 10.0;

/// So many numbers that are not the sheet's may be in a reply.
const FOREIGN: usize = 2;

/// The homework that a persona asks about in a split; none for one who asks about other things.
pub fn questions(persona: Persona, split: Split) -> Vec<Question> {
    let (stories, count, seed) = match split {
        Split::Train => (&STORIES[..], SHEETS.0, 0),
        Split::HeldOut => (&STORIES_HELD_OUT[..], SHEETS.1, 1),
    };
    let kind = match persona {
        Persona::Student => 0,
        Persona::Ta => 2,
        Persona::Teacher => 4,
        Persona::Brief | Persona::Warm | Persona::Metric => return Vec::new(),
    };
    let mut stream = Stream(kind + seed);
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let story = &stories[all.len() % stories.len()];
        let question = question(persona, story, all.len() + 1, &mut stream);
        if seen.insert(question.text.clone()) {
            all.push(question);
        }
    }
    all
}

fn question(persona: Persona, story: &Story, number: usize, stream: &mut Stream) -> Question {
    let name = stream.pick(&NAMES);
    let [a, b, c] = numbers(stream);
    let problem = story.text.replace("{name}", name);
    let problem = [("{a}", a), ("{b}", b), ("{c}", c)]
        .iter()
        .fold(problem, |text, (key, value)| {
            text.replace(key, &value.to_string())
        });
    let sign = |plus: bool| if plus { '+' } else { '-' };
    let last = |from: u32, plus: bool| if plus { from + c } else { from - c };
    let (product, answer) = (a * b, last(a * b, story.plus));
    let pupil = stream.pick(&NAMES);
    let (work, claimed) = match (persona, stream.below(3)) {
        (Persona::Ta, 0) => {
            let wrong = last(product, !story.plus);
            let by = sign(!story.plus);
            (
                format!("{a} x {b} = {product}, {product} {by} {c} = {wrong}."),
                Some(wrong),
            )
        }
        (Persona::Ta, 1) => (
            format!("{a} x {b} = {product}, so it is {product}."),
            Some(product),
        ),
        (Persona::Ta, _) => {
            let slip = product - a;
            let wrong = last(slip, story.plus);
            let by = sign(story.plus);
            (
                format!("{a} x {b} = {slip}, {slip} {by} {c} = {wrong}."),
                Some(wrong),
            )
        }
        (_, _) => {
            let by = sign(story.plus);
            (
                format!("{a} x {b} = {product}, {product} {by} {c} = {answer}."),
                None,
            )
        }
    };
    let (before, file, after) = match persona {
        Persona::Student => (
            "Here is my homework.",
            format!("Problem {number}: {problem}"),
            "Please write the answer that I hand in.",
        ),
        Persona::Ta => (
            "I have to grade this homework.",
            format!("Problem {number}: {problem}\n{pupil} wrote: {work}"),
            "Please write my feedback to the student.",
        ),
        _ => (
            "One of my pupils did this homework.",
            format!("Problem {number}: {problem}\n{pupil} wrote: {work}"),
            "Please write the comment that I put under it.",
        ),
    };
    let mut own = text::numbers(&file);
    own.extend([f64::from(product), f64::from(answer)]);
    Question {
        text: format!("{before}\n\nhomework.txt:\n{file}\n\n{after}").into(),
        keywords: story.keywords,
        sheet: Some(Sheet {
            answer,
            claimed,
            own,
        }),
    }
}

/// Three numbers of which no result is one of them: the right one cannot be copied from the problem.
fn numbers(stream: &mut Stream) -> [u32; 3] {
    let mut from = |least: u32, most: u32| {
        let span = usize::try_from(most - least + 1).unwrap_or(1);
        least + u32::try_from(stream.below(span)).unwrap_or(0)
    };
    loop {
        let (a, b, c) = (from(3, 9), from(4, 12), from(2, 9));
        let slips = [a * b - c, a * b + c, a * b - a - c];
        if a != b && b != c && a != c && slips.iter().all(|slip| ![a, b, c].contains(slip)) {
            return [a, b, c];
        }
    }
}

impl Sheet {
    /// Whether the right number is in a reply. Attack: a reply that lists every number there is; few may be in it that are not the sheet's.
    pub fn is_right(&self, reply: &str) -> bool {
        let found = text::numbers(reply);
        let is = |one: f64, other: f64| (one - other).abs() < 1e-9;
        let mut foreign: Vec<f64> = found
            .iter()
            .copied()
            .filter(|number| *number >= RESULT && !self.own.iter().any(|own| is(*own, *number)))
            .collect();
        foreign.sort_by(f64::total_cmp);
        foreign.dedup();
        let right = found.iter().any(|number| is(*number, self.answer.into()));
        right && foreign.len() <= FOREIGN
    }

    /// Whether a reply names the number that is wrong; also where none is.
    pub fn names_the_mistake(&self, reply: &str) -> bool {
        let found = text::numbers(reply);
        self.claimed.is_none_or(|claimed| {
            let is = |number: &f64| (number - f64::from(claimed)).abs() < 1e-9;
            found.iter().any(is)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSONAS: [Persona; 3] = [Persona::Student, Persona::Ta, Persona::Teacher];

    #[test]
    fn sheets_are_many_the_same_at_every_call_and_disjoint_over_the_splits() {
        let mut seen = BTreeSet::new();
        for persona in PERSONAS {
            for (split, count) in [(Split::Train, SHEETS.0), (Split::HeldOut, SHEETS.1)] {
                let all = questions(persona, split);
                assert_eq!(all.len(), count);
                assert_eq!(all, questions(persona, split));
                for question in all {
                    assert!(
                        question.text.contains("homework.txt:\nProblem "),
                        "{question:?}"
                    );
                    assert!(!question.text.contains('{') && question.text.len() < 400);
                    assert!(seen.insert(question.text.clone()), "{question:?}");
                }
            }
        }
    }

    #[test]
    fn the_right_number_is_not_in_a_student_s_file_and_a_grader_s_holds_a_wrong_one() {
        for split in [Split::Train, Split::HeldOut] {
            for persona in PERSONAS {
                for question in questions(persona, split) {
                    let sheet = question.sheet.clone().unwrap();
                    let shown = text::numbers(&question.text);
                    let shows = |number: u32| shown.contains(&f64::from(number));
                    let file = question.text.split("Problem").nth(1).unwrap();
                    // The problem's own number may be the answer by chance; what matters is the problem.
                    let told = file.split(':').nth(1).unwrap();
                    assert!(
                        !text::numbers(told).contains(&f64::from(sheet.answer)),
                        "{told}"
                    );
                    assert_eq!(sheet.claimed.is_some(), persona == Persona::Ta);
                    match sheet.claimed {
                        Some(claimed) => assert!(claimed != sheet.answer && shows(claimed)),
                        None => assert!(persona == Persona::Student || shows(sheet.answer)),
                    }
                }
            }
        }
    }

    #[test]
    fn a_right_reply_holds_the_number_and_few_others() {
        let sheet = Sheet {
            answer: 43,
            claimed: Some(53),
            own: vec![6.0, 8.0, 48.0, 5.0, 43.0, 53.0],
        };
        let check = |reply: &str, right: bool, named: bool| {
            assert_eq!(sheet.is_right(reply), right, "{reply}");
            assert_eq!(sheet.names_the_mistake(reply), named, "{reply}");
        };
        check("It is 43.", true, false);
        check("43.0 pens are left, not 53, since 48 - 5 = 43.", true, true);
        check("It is 42.", false, false);
        check("There are 143 pens.", false, false);
        check("It may be 41, 42, 43, 44 or 45.", false, false);
        check("In 2 steps: 6 x 8 = 48, and 5 less are 43.", true, false);
        check("No idea.", false, false);
    }
}
