//! What a persona's rule looks at in a reply: kindness, encouragement, units, labels. Lists of words and phrases, and nothing more.
//!
//! Heuristics, with the cases they must get right in the tests of [`crate::persona`].

use crate::text;

/// Kind words, as stems.
const KIND: [&str; 26] = [
    "happy to",
    "glad",
    "good question",
    "great question",
    "lovely",
    "wonderful",
    "friend",
    "dear",
    "of course",
    "my pleasure",
    "thank you for",
    "thanks for asking",
    "no worries",
    "don't worry",
    "hope",
    "kind",
    "delight",
    "warm",
    "love to help",
    "here for you",
    "here to help",
    "gladly",
    "sweet",
    "nice of you",
    "pleased",
    "hello",
];

/// Words of encouragement, as stems.
const ENCOURAGING: [&str; 26] = [
    "you can do",
    "you've got this",
    "you got this",
    "good luck",
    "enjoy",
    "have fun",
    "keep going",
    "keep it up",
    "well done",
    "you'll do",
    "you will do",
    "i'm sure you",
    "i am sure you",
    "i believe in you",
    "happy cooking",
    "don't give up",
    "you'll be",
    "you will be",
    "proud",
    "great job",
    "best of luck",
    "go for it",
    "you are doing",
    "you're doing",
    "wish you",
    "believe in yourself",
];

/// Units that are not metric, as whole words.
const IMPERIAL: [&str; 26] = [
    "inch",
    "inches",
    "foot",
    "feet",
    "ft",
    "yard",
    "yards",
    "mile",
    "miles",
    "mph",
    "pound",
    "pounds",
    "lb",
    "lbs",
    "ounce",
    "ounces",
    "oz",
    "fahrenheit",
    "°f",
    "gallon",
    "gallons",
    "pint",
    "pints",
    "quart",
    "quarts",
    "cups",
];

const NUMBERS: [&str; 27] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "fifteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty",
    "ninety", "hundred", "thousand", "million", "half", "dozen", "zero",
];

/// A number counts as first within so many words: "It takes about 8 minutes" is a number first to anybody.
const FIRST_WORDS: usize = 8;

/// Praise for a pupil, as stems.
const PRAISE: [&str; 18] = [
    "good work",
    "good job",
    "good start",
    "good effort",
    "good thinking",
    "good try",
    "nice work",
    "nice try",
    "nice job",
    "nicely",
    "great work",
    "great effort",
    "great start",
    "excellent",
    "well thought",
    "almost there",
    "very close",
    "like how you",
];

/// What a line is headed by when a machine writes down a calculation.
const HEADINGS: [&str; 12] = [
    "answer",
    "the answer",
    "final answer",
    "solution",
    "explanation",
    "calculation",
    "conclusion",
    "result",
    "reasoning",
    "given",
    "problem",
    "summary",
];

/// What hardly anybody but a machine says.
const MACHINELY: [&str; 10] = [
    "final answer",
    "step-by-step",
    "step by step",
    "let's break",
    "break it down",
    "here is the solution",
    "here's the solution",
    "as an ai",
    "certainly!",
    "i hope this helps",
];

/// Whether a kind word is in it.
pub fn is_kind(reply: &str) -> bool {
    text::mentions(reply, &KIND)
}

/// Whether a kind, encouraging or praising word is in it.
pub fn is_friendly(reply: &str) -> bool {
    is_kind(reply) || text::mentions(reply, &ENCOURAGING) || text::mentions(reply, &PRAISE)
}

/// Whether the last sentence encourages.
pub fn ends_encouraging(sentences: &[&str]) -> bool {
    let last = sentences.last();
    last.is_some_and(|last| text::mentions(last, &ENCOURAGING))
}

/// Whether it is labelled as machines label what they calculate: "Step 1", "Final answer:".
pub fn has_labels(reply: &str) -> bool {
    let lower = reply.to_lowercase();
    let words = text::words(reply);
    let counts =
        |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) || NUMBERS.contains(&word);
    let steps = words
        .windows(2)
        .any(|pair| pair[0] == "step" && counts(&pair[1]));
    let heading = lower.lines().any(|line| {
        let before = line.split_once(':').map(|(before, _)| before);
        let mark = |c: char| !c.is_alphanumeric();
        before.is_some_and(|before| HEADINGS.contains(&before.trim_matches(mark)))
    });
    steps || heading || MACHINELY.iter().any(|phrase| lower.contains(phrase))
}

/// Whether a number is among the first words.
pub fn number_first(reply: &str) -> bool {
    let first = text::words(reply).into_iter().take(FIRST_WORDS);
    first.into_iter().any(|word| {
        word.chars().any(|c| c.is_ascii_digit())
            || word.split('-').any(|part| NUMBERS.contains(&part))
    })
}

/// Whether a unit that is not metric is in it, also with the number in front: `350°f`, `12oz`.
pub fn is_imperial(reply: &str) -> bool {
    let number = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let words = text::words(reply);
    words
        .iter()
        .any(|word| IMPERIAL.contains(&word.trim_start_matches(number)))
}
