//! What work is worth: the hash of the state against the reference's, and partial credit below it.
//!
//! A request is right when the state is exactly the reference's as the model ends it, and the answer says what was asked. Right work
//! outranks everything: an episode is worth 1 when every request is right, and at most 0.5 otherwise, or 0.7 where all is done and only the last
//! word is missing. Below that, a request earns up to 0.5 for its calls: [`FORMAT`] for well-formed calls of tools that exist,
//! [`TOOL`] for the right tools, [`ARGUMENTS`] for the right arguments; all are shares of *all* calls that were made, so that
//! trying everything earns less than one honest attempt. Knows no words of the wire and no turns.

use serde_json::{Map, Value};

use crate::{
    apis::plain,
    plan::{Expected, Request},
    reader::Call,
};

/// Credit for well-formed calls.
pub const FORMAT: f64 = 0.1;

/// Credit for the right tools.
pub const TOOL: f64 = 0.15;

/// Credit for the right arguments.
pub const ARGUMENTS: f64 = 0.25;

/// What an episode is worth in which everything is right and the model never said so.
pub const UNSAID: f64 = 0.7;

/// A call that was made, and what came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Made {
    /// The call.
    pub call: Call,
    /// Whether there is such a tool.
    pub known: bool,
    /// Whether it changed the state.
    pub changed: bool,
}

/// What was done for one request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Work {
    /// The calls, in order.
    pub made: Vec<Made>,
    /// Replies, or calls, that could not be read.
    pub malformed: usize,
}

/// What the work for one request is worth.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Grade {
    /// The share of calls that were well-formed and of a tool that exists.
    pub format: f64,
    /// The share of the right tools.
    pub tools: f64,
    /// The share of the right arguments.
    pub arguments: f64,
    /// Whether state and answer are right.
    pub right: bool,
    /// Whether the model ended the request.
    pub ended: bool,
}

impl Grade {
    /// The credit within the episode: 0.5 for right work.
    pub fn credit(&self) -> f64 {
        if self.right {
            return FORMAT + TOOL + ARGUMENTS;
        }
        FORMAT * self.format + TOOL * self.tools + ARGUMENTS * self.arguments
    }
}

/// What an episode is worth; one grade a request, those that were never reached included.
pub fn value(grades: &[Grade]) -> f64 {
    let all = |is: fn(&Grade) -> bool| grades.iter().all(is);
    match (all(|grade| grade.right), all(|grade| grade.ended)) {
        (true, true) => 1.0,
        (true, false) => UNSAID,
        (false, _) => mean(grades, Grade::credit),
    }
}

/// The mean of a number of each grade.
pub fn mean(grades: &[Grade], of: fn(&Grade) -> f64) -> f64 {
    share(grades.iter().map(of).sum(), grades.len())
}

/// Grades the work for a request. `state_right` is the comparison of hashes, `said` the final answer.
pub fn grade(
    request: &Request,
    work: &Work,
    state_right: bool,
    said: Option<&str>,
    seen: &[String],
) -> Grade {
    let answered = match (&request.answer, said) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(expected), Some(said)) => {
            seen.iter().any(|result| holds(result, &expected.value))
                && tells(said, expected, &request.words)
        }
    };
    let attempts = work.made.len() + work.malformed;
    let well_formed = work.made.iter().filter(|made| made.known).count();
    let (tools, arguments) = matched(request, work);
    Grade {
        format: share(count(well_formed), attempts),
        tools,
        arguments,
        right: state_right && answered,
        ended: said.is_some(),
    }
}

/// The shares of the right tools and of the right arguments.
///
/// Attack: a right call and then more of them, or its undoing. Once the state was changed more often than the reference changes it, no
/// argument earns anything.
fn matched(request: &Request, work: &Work) -> (f64, f64) {
    let slots = request.calls.len().max(work.made.len() + work.malformed);
    let mut left: Vec<_> = work.made.iter().map(|made| &made.call).collect();
    let (mut tools, mut arguments) = (0, 0.0);
    for wanted in &request.calls {
        let same_tool = left
            .iter()
            .enumerate()
            .filter(|(_, call)| call.name == wanted.name);
        let scored =
            same_tool.map(|(place, call)| (place, similarity(&wanted.arguments, &call.arguments)));
        // The best of them, and of equals the first.
        let best = scored.fold(None, |best: Option<(usize, f64)>, one| match best {
            Some(best) if best.1 >= one.1 => Some(best),
            _ => Some(one),
        });
        if let Some((place, similarity)) = best {
            left.remove(place);
            tools += 1;
            arguments += similarity;
        }
    }
    let changes = work.made.iter().filter(|made| made.changed).count();
    let arguments = if changes > request.changes {
        0.0
    } else {
        arguments
    };
    (share(count(tools), slots), share(arguments, slots))
}

/// The share of arguments that are the same, of all that are on either side.
fn similarity(wanted: &Map<String, Value>, given: &Map<String, Value>) -> f64 {
    let is_same = |(name, value): &(&String, &Value)| {
        given.get(*name).is_some_and(|other| same(value, other))
    };
    let equal = wanted.iter().filter(is_same).count();
    let all = wanted.len()
        + given
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .count();
    if all == 0 {
        1.0
    } else {
        share(count(equal), all)
    }
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => plain(one) == plain(other),
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// Longest answer that is read, in characters.
const ANSWER_CHARS: usize = 400;

/// Most numbers that an answer may name beside the one that was asked for and those of the request.
const STRAY_NUMBERS: usize = 2;

/// Whether an answer says what is expected, as a word of its own.
///
/// Attack: an answer that lists every value there could be.
pub fn tells(said: &str, expected: &Expected, asked: &str) -> bool {
    if said.chars().count() > ANSWER_CHARS || !holds(said, &expected.value) {
        return false;
    }
    let named = |rival: &String| holds(said, rival) && !holds(asked, rival);
    let mut strays: Vec<_> = words(said)
        .filter(|word| word.is_number() && *word != Word::of(&expected.value))
        .filter(|word| !words(asked).any(|other| other == *word))
        .collect();
    strays.sort_by(|one, other| one.text.cmp(&other.text));
    strays.dedup();
    strays.len() <= STRAY_NUMBERS && !expected.rivals.iter().any(named)
}

fn holds(text: &str, value: &str) -> bool {
    words(text).any(|word| word == Word::of(value))
}

/// A word of an answer; a number is the same however it is written.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    number: Option<f64>,
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.text == other.text,
            _ => false,
        }
    }
}

impl Word {
    fn of(text: &str) -> Self {
        let text = text.to_lowercase();
        // `12km` is the number, `P12` and `555-0142` are none.
        let digits = text
            .trim_end_matches(|c: char| c.is_alphabetic())
            .replace(',', "");
        let plain = digits.starts_with(|c: char| c.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| plain);
        Self { text, number }
    }

    fn is_number(&self) -> bool {
        self.number.is_some()
    }
}

fn words(text: &str) -> impl Iterator<Item = Word> {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ',');
    let words = text.split(move |c: char| !inside(c));
    let words = words.map(|word| word.trim_matches(['-', '.', ',']));
    words.filter(|word| !word.is_empty()).map(Word::of)
}

/// Counts are small: an `f64` holds them exactly.
pub(crate) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(0.0, f64::from)
}

/// Nothing of nothing is 0.
pub(crate) fn share(part: f64, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part / count(whole) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected(value: &str, rivals: &[&str]) -> Expected {
        Expected {
            value: value.to_owned(),
            rivals: rivals.iter().map(|rival| (*rival).to_owned()).collect(),
        }
    }

    #[test]
    fn an_answer_has_to_name_the_value_and_nothing_that_it_could_be_mixed_up_with() {
        let check = |said: &str, value: &str, told: bool| {
            let expected = expected(value, &["431", "555-0999"]);
            assert_eq!(
                tells(said, &expected, "How much are 12 of it in savings?"),
                told,
                "{said}"
            );
        };
        check("There are 1200 coins in savings.", "1200", true);
        check("1,200.00", "1200", true);
        check("It is 1200m.", "1200", true);
        check("12 of it are 1200, in 3 days.", "1200", true);
        check("It is 12000.", "1200", false);
        check("It is 1200 or 431.", "1200", false);
        check("It is 1, 2, 3 or 1200.", "1200", false);
        check("It is P1200.", "1200", false);
        check("A lot.", "1200", false);
        check("The number is 555-0142.", "555-0142", true);
        check("The number is 555-0142 or 555-0999.", "555-0142", false);
        check("The number is 0142.", "555-0142", false);
        check(&format!("1200 {}", "x ".repeat(300)), "1200", false);
    }

    fn made(name: &str, arguments: Value, changed: bool) -> Made {
        Made {
            call: Call::new(name, arguments),
            known: true,
            changed,
        }
    }

    #[test]
    fn partial_credit_is_a_share_of_all_that_was_tried() {
        let request = Request {
            words: "Add it.".into(),
            calls: vec![Call::new(
                "add_todo",
                json!({"list": "home", "text": "buy milk"}),
            )],
            changes: 1,
            answer: None,
        };
        let right = || {
            made(
                "add_todo",
                json!({"list": "home", "text": "Buy milk."}),
                true,
            )
        };
        let half = || {
            made(
                "add_todo",
                json!({"list": "work", "text": "buy milk"}),
                true,
            )
        };
        let other = || made("list_todos", json!({"list": "home"}), false);
        let table = [
            (vec![], 0, 0.0),
            (vec![], 3, 0.0),
            (vec![other()], 0, FORMAT),
            (vec![half()], 0, FORMAT + TOOL + ARGUMENTS / 2.0),
            (vec![right()], 0, FORMAT + TOOL + ARGUMENTS),
            (vec![right()], 1, (FORMAT + TOOL + ARGUMENTS) / 2.0),
            (vec![right(), other()], 0, FORMAT + (TOOL + ARGUMENTS) / 2.0),
            // Twice is once too often.
            (vec![right(), right()], 0, FORMAT + TOOL / 2.0),
        ];
        for (made, malformed, credit) in table {
            let work = Work { made, malformed };
            let grade = grade(&request, &work, false, Some("Done."), &[]);
            assert!(
                (grade.credit() - credit).abs() < 1e-9,
                "{work:?}: {grade:?}"
            );
        }
    }

    #[test]
    fn an_episode_is_worth_more_than_half_only_when_all_is_right() {
        let right = Grade {
            right: true,
            ended: true,
            ..Grade::default()
        };
        let unsaid = Grade {
            ended: false,
            ..right
        };
        assert_eq!(value(&[right, right]), 1.0);
        assert_eq!(value(&[right, unsaid]), UNSAID);
        assert_eq!(value(&[right, Grade::default()]), 0.25);
        assert_eq!(value(&[Grade::default(), right]), 0.25);
        assert_eq!(value(&[Grade::default()]), 0.0);
    }
}
