//! Problems for the code interpreter: arithmetic and lists, too long for the head and short as a program.
//!
//! A task is `family/difficulty/number`; the id alone makes problem and answer. Numbers 1 to 1000 are for training, 1001 to 1100 held out, and
//! no held-out problem is also one of training: its words decide.

use std::{collections::BTreeSet, ops::RangeInclusive};

use sdk::{Fault, Split, random::Stream};

/// The numbers that training may use.
pub const TRAIN: RangeInclusive<u32> = 1..=1_000;

/// The numbers that training never sees.
pub const HELD_OUT: RangeInclusive<u32> = 1_001..=1_100;

/// The difficulties.
pub const DIFFICULTIES: RangeInclusive<u32> = 1..=3;

/// A problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is asked.
    pub words: String,
    /// The value that is right.
    pub answer: String,
    /// A program that prints it.
    pub program: String,
}

/// A kind of problem.
struct Family {
    name: &'static str,
    make: fn(&mut Draw) -> Problem,
}

const FAMILIES: [Family; 8] = [
    Family {
        name: "multiples-sum",
        make: multiples_sum,
    },
    Family {
        name: "power-mod",
        make: power_mod,
    },
    Family {
        name: "digit-sum",
        make: digit_sum,
    },
    Family {
        name: "prime-count",
        make: prime_count,
    },
    Family {
        name: "collatz-steps",
        make: collatz_steps,
    },
    Family {
        name: "list-distinct",
        make: list_distinct,
    },
    Family {
        name: "list-pairs",
        make: list_pairs,
    },
    Family {
        name: "text-letters",
        make: text_letters,
    },
];

/// Draws the parts of one problem.
struct Draw {
    stream: Stream,
    difficulty: u32,
}

impl Draw {
    /// A number from `least` to `most`.
    fn number(&mut self, least: u64, most: u64) -> u64 {
        let span = usize::try_from(most - least + 1).unwrap_or(usize::MAX);
        least + self.stream.below(span) as u64
    }

    /// Ten times as much a step of difficulty.
    fn scale(&self) -> u64 {
        10_u64.pow(self.difficulty)
    }

    fn list(&mut self, most: u64) -> Vec<u64> {
        let len = 8 * self.difficulty + 4;
        (0..len).map(|_| self.number(1, most)).collect()
    }
}

fn multiples_sum(draw: &mut Draw) -> Problem {
    let (scale, a) = (draw.scale(), draw.number(3, 9));
    let b = draw.number(a + 1, 19);
    let end = draw.number(20 * scale, 90 * scale);
    let sum: u64 = (1..end).filter(|n| n % a == 0 || n % b == 0).sum();
    Problem {
        words: format!(
            "What is the sum of all whole numbers from 1 to below {end} that can be divided by {a} or by {b}?"
        ),
        answer: sum.to_string(),
        program: format!("print(sum(n for n in range(1, {end}) if n % {a} == 0 or n % {b} == 0))"),
    }
}

fn power_mod(draw: &mut Draw) -> Problem {
    let scale = draw.scale();
    let (base, exponent) = (draw.number(3, 99), draw.number(5 * scale, 50 * scale));
    let modulus = draw.number(scale, 100 * scale) | 1;
    let power = (0..exponent).fold(1, |power, _| power * base % modulus);
    Problem {
        words: format!(
            "What is the remainder of {base} to the power of {exponent}, divided by {modulus}?"
        ),
        answer: power.to_string(),
        program: format!("print(pow({base}, {exponent}, {modulus}))"),
    }
}

fn digit_sum(draw: &mut Draw) -> Problem {
    let scale = draw.scale();
    let (base, exponent) = (draw.number(2, 9), draw.number(scale, 4 * scale));
    let mut digits = vec![1];
    for _ in 0..exponent {
        let mut carry = 0;
        for digit in &mut digits {
            carry += *digit * base;
            *digit = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    Problem {
        words: format!(
            "What is the sum of the decimal digits of {base} to the power of {exponent}?"
        ),
        answer: digits.iter().sum::<u64>().to_string(),
        program: format!("print(sum(map(int, str({base} ** {exponent}))))"),
    }
}

fn prime_count(draw: &mut Draw) -> Problem {
    let scale = draw.scale();
    let from = draw.number(scale, 20 * scale);
    let to = from + draw.number(5 * scale, 10 * scale);
    let prime = |n: &u64| {
        *n > 1
            && (2..)
                .take_while(|part| part * part <= *n)
                .all(|part| !n.is_multiple_of(part))
    };
    Problem {
        words: format!("How many prime numbers are there from {from} to {to}, both included?"),
        answer: (from..=to).filter(prime).count().to_string(),
        program: format!(
            "print(sum(n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1)) for n in range({from}, {to} + 1)))"
        ),
    }
}

fn collatz_steps(draw: &mut Draw) -> Problem {
    let scale = draw.scale();
    let start = draw.number(2 * scale, 90 * scale);
    let (mut n, mut steps) = (start, 0);
    while n != 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    Problem {
        words: format!(
            "Begin with {start}. In each step, halve an even number, and make an odd number n into 3n + 1. After how many steps is it 1 for the first time?"
        ),
        answer: steps.to_string(),
        program: format!(
            "n, s = {start}, 0\nwhile n != 1:\n    n, s = (n // 2 if n % 2 == 0 else 3 * n + 1), s + 1\nprint(s)"
        ),
    }
}

fn list_distinct(draw: &mut Draw) -> Problem {
    let list = draw.list(20);
    let distinct: BTreeSet<_> = list.iter().copied().collect();
    let distinct: Vec<_> = distinct.into_iter().rev().collect();
    Problem {
        words: format!(
            "Take the list {list:?}. Write each value that is in it once, the largest first, as a list like [3, 2, 1]."
        ),
        answer: format!("{distinct:?}"),
        program: format!("print(sorted(set({list:?}), reverse=True))"),
    }
}

fn list_pairs(draw: &mut Draw) -> Problem {
    let (list, part) = (draw.list(100), draw.number(3, 7));
    let later = |at: usize| list.iter().skip(at + 1);
    let pairs = list.iter().enumerate();
    let pairs = pairs.map(|(at, a)| later(at).filter(|b| (a + **b) % part == 0).count());
    Problem {
        words: format!(
            "Take the list {list:?}. How many pairs of places i < j are there whose two values have a sum that can be divided by {part}?"
        ),
        answer: pairs.sum::<usize>().to_string(),
        program: format!(
            "l = {list:?}\nprint(sum((l[i] + l[j]) % {part} == 0 for j in range(len(l)) for i in range(j)))"
        ),
    }
}

fn text_letters(draw: &mut Draw) -> Problem {
    let len = 30 * draw.difficulty;
    let letter = |draw: &mut Draw| char::from(b'a' + u8::try_from(draw.number(0, 4)).unwrap_or(0));
    let text: String = (0..len).map(|_| letter(draw)).collect();
    let pair: String = [letter(draw), letter(draw)].iter().collect();
    let places = text.as_bytes().windows(2);
    Problem {
        words: format!(
            "At how many places of the text \"{text}\" does \"{pair}\" begin? Places that overlap count."
        ),
        answer: places
            .filter(|two| *two == pair.as_bytes())
            .count()
            .to_string(),
        program: format!(
            "t = '{text}'\nprint(sum(t.startswith('{pair}', i) for i in range(len(t))))"
        ),
    }
}

/// The problem of an id.
///
/// # Errors
/// `invalid-input` for a task that does not exist, with what an id is made of.
pub fn problem(id: &str) -> Result<Problem, Fault> {
    let unknown = || {
        Fault::InvalidInput(format!(
            "there is no task `{id}`: an id is family/difficulty/number, with a difficulty of 1 to 3 and a number of 1 to 1100"
        ))
    };
    let parts: Vec<_> = id.split('/').collect();
    let &[name, difficulty, number] = parts.as_slice() else {
        return Err(unknown());
    };
    let family = FAMILIES.iter().find(|family| family.name == name);
    let difficulty = canonical(difficulty).filter(|number| DIFFICULTIES.contains(number));
    let number = canonical(number).filter(|n| TRAIN.contains(n) || HELD_OUT.contains(n));
    let (Some(family), Some(difficulty), Some(number)) = (family, difficulty, number) else {
        return Err(unknown());
    };
    let mut draw = Draw {
        stream: Stream(fnv(id)),
        difficulty,
    };
    let drawn = (0..MOST_DRAWS).map(|_| (family.make)(&mut draw));
    let mut fitting =
        drawn.filter(|problem| is_held_out(&problem.words) == HELD_OUT.contains(&number));
    let none = || Fault::Internal(format!("no problem of `{id}` is of its split"));
    fitting.next().ok_or_else(none)
}

/// More than enough: one in four, or three in four, fit.
const MOST_DRAWS: usize = 1_000;

/// Whether a problem is one of those that training never sees, whatever number drew it.
fn is_held_out(words: &str) -> bool {
    (fnv(words) >> 32).is_multiple_of(4)
}

/// FNV-1a: the same on every machine, for ever.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A number that is written in the one way that an id has it: two ids never name the same task.
fn canonical(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Which problems are listed, from the config.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Names of families; empty for all.
    pub families: Vec<String>,
    /// The greatest difficulty.
    pub difficulty: u32,
    /// Training tasks of each family and difficulty.
    pub train: usize,
    /// Held-out tasks of each family and difficulty.
    pub held_out: usize,
}

/// The ids of a split.
///
/// # Errors
/// `invalid-config` for a name that is no family's.
pub fn ids(choice: &Choice, split: Split) -> Result<Vec<String>, Fault> {
    let there: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    let unknown = choice
        .families
        .iter()
        .find(|name| !there.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        let there = there.join(", ");
        return Err(Fault::InvalidConfig(format!(
            "`families` names `{unknown}`, which is no family of `code`; the families are {there}"
        )));
    }
    let (all, count) = match split {
        Split::Train => (TRAIN, choice.train),
        Split::HeldOut => (HELD_OUT, choice.held_out),
    };
    let mut ids = Vec::new();
    for name in there {
        if choice.families.is_empty() || choice.families.iter().any(|wanted| wanted == name) {
            for difficulty in DIFFICULTIES.filter(|difficulty| *difficulty <= choice.difficulty) {
                let numbers = all.clone().take(count);
                ids.extend(numbers.map(|number| format!("{name}/{difficulty}/{number}")));
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(families: &[&str]) -> Choice {
        Choice {
            families: families.iter().map(|name| (*name).to_owned()).collect(),
            difficulty: 3,
            train: 40,
            held_out: 4,
        }
    }

    #[test]
    fn every_listed_problem_can_be_made_and_is_in_one_split() {
        let train = ids(&choice(&[]), Split::Train).unwrap();
        let held_out = ids(&choice(&[]), Split::HeldOut).unwrap();
        assert_eq!((train.len(), held_out.len()), (8 * 3 * 40, 8 * 3 * 4));
        let all: BTreeSet<_> = train.iter().chain(&held_out).collect();
        assert_eq!(all.len(), train.len() + held_out.len());
        for id in all {
            let one = problem(id).unwrap();
            assert_eq!(one, problem(id).unwrap());
            assert!(!one.answer.is_empty() && !one.words.contains(&one.program));
        }
    }

    #[test]
    fn no_held_out_problem_is_one_of_training_even_where_there_are_few() {
        let words = |numbers: RangeInclusive<u32>| -> BTreeSet<_> {
            let one = |number| problem(&format!("digit-sum/1/{number}")).unwrap().words;
            numbers.map(one).collect()
        };
        let (train, held_out) = (words(TRAIN), words(HELD_OUT));
        assert!(
            train.len() > 100 && held_out.len() > 20,
            "{} and {}",
            train.len(),
            held_out.len()
        );
        assert!(train.is_disjoint(&held_out));
    }

    #[test]
    fn known_values() {
        let draw = |difficulty| Draw {
            stream: Stream(1),
            difficulty,
        };
        let made = digit_sum(&mut draw(1));
        let numbers: Vec<u32> = made
            .words
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        let power = u128::from(numbers[0]).pow(numbers[1]).to_string();
        let digits: u32 = power.chars().filter_map(|c| c.to_digit(10)).sum();
        assert_eq!(made.answer, digits.to_string());
    }

    #[test]
    fn ids_that_name_no_task_are_faults() {
        for id in [
            "",
            "digit-sum/1",
            "digit-sum/0/1",
            "digit-sum/1/0",
            "digit-sum/1/1101",
            "digit-sum/01/1",
            "digit-sum/1/+1",
            "sum/1/1",
            "digit-sum/1/1/1",
        ] {
            assert!(matches!(problem(id), Err(Fault::InvalidInput(_))), "{id}");
        }
        let error = ids(&choice(&["sum"]), Split::Train).unwrap_err();
        assert!(matches!(error, Fault::InvalidConfig(why) if why.contains("`sum`")));
    }
}
