//! The personas: what each wants and never says, as a program.
//!
//! The rule is the oracle of an episode: it measures, and decides whether the scripted user complains. Nothing in here is a
//! text that anybody says; those are in [`crate::phrases`].

use sdk::{Fault, NamedValue, OutcomeScore};

use crate::{questions::Question, text};

/// A user with a preference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persona {
    /// Plain text without markup, at most two sentences.
    Brief,
    /// Addressed kindly, and the answer ends on encouragement.
    Warm,
    /// A number first, and metric units only.
    Metric,
}

/// What a reply did wrong, in a user's eyes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Violation {
    /// Empty, or no word of it is about the question.
    OffTopic,
    /// It says the same thing again and again.
    Repetition,
    /// It was cut off at its limit of tokens.
    Unfinished,
    /// Lists, headings, bold.
    Markup,
    /// More than two sentences.
    TooLong,
    /// No kind word in it.
    Cold,
    /// It does not end on encouragement.
    NoEncouragement,
    /// Its first words hold no number.
    NoNumber,
    /// Inches, pounds, Fahrenheit.
    Imperial,
}

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

impl Persona {
    /// Every persona.
    pub const ALL: [Persona; 3] = [Persona::Brief, Persona::Warm, Persona::Metric];

    /// Its name in task ids.
    pub fn name(self) -> &'static str {
        match self {
            Persona::Brief => "brief",
            Persona::Warm => "warm",
            Persona::Metric => "metric",
        }
    }

    /// The persona of this name.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let found = Self::ALL.into_iter().find(|persona| persona.name() == name);
        found.ok_or_else(|| Fault::InvalidInput(format!("there is no persona `{name}`")))
    }

    /// Words of an acceptable answer, least and most: a guard against gaming the rule, not the rule.
    fn length_band(self) -> (usize, usize) {
        match self {
            Persona::Brief => (4, 60),
            Persona::Warm => (8, 150),
            Persona::Metric => (3, 120),
        }
    }
}

/// A reply as a persona sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Review {
    /// What broke the persona's own preference.
    pub preference: Vec<Violation>,
    /// What would annoy any user.
    pub guards: Vec<Violation>,
    band: bool,
    empty: bool,
}

/// Looks at a reply.
pub fn review(persona: Persona, question: &Question, reply: &str, truncated: bool) -> Review {
    let count = text::words(reply).len();
    let empty = count == 0;
    let mut guards = Vec::new();
    if empty || !text::mentions(reply, question.keywords) {
        guards.push(Violation::OffTopic);
    }
    if text::repeats(reply) {
        guards.push(Violation::Repetition);
    }
    if truncated {
        guards.push(Violation::Unfinished);
    }
    let (least, most) = persona.length_band();
    let band = (least..=most).contains(&count);
    Review {
        preference: broken(persona, reply),
        guards,
        band,
        empty,
    }
}

fn broken(persona: Persona, reply: &str) -> Vec<Violation> {
    let sentences = text::sentences(reply);
    let rules = match persona {
        Persona::Brief => [
            (Violation::Markup, text::markup(reply).is_some()),
            (Violation::TooLong, sentences.len() > 2),
        ],
        Persona::Warm => [
            (Violation::Cold, !text::mentions(reply, &KIND)),
            (
                Violation::NoEncouragement,
                !sentences
                    .last()
                    .is_some_and(|last| text::mentions(last, &ENCOURAGING)),
            ),
        ],
        Persona::Metric => [
            (Violation::NoNumber, !number_first(reply)),
            (
                Violation::Imperial,
                text::words(reply).iter().any(|word| is_imperial(word)),
            ),
        ],
    };
    rules
        .into_iter()
        .filter(|(_, broken)| *broken)
        .map(|(violation, _)| violation)
        .collect()
}

fn number_first(reply: &str) -> bool {
    let first = text::words(reply).into_iter().take(FIRST_WORDS);
    first.into_iter().any(|word| {
        word.chars().any(|c| c.is_ascii_digit())
            || word.split('-').any(|part| NUMBERS.contains(&part))
    })
}

/// Also with the number in front: `350°f`, `12oz`.
fn is_imperial(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    IMPERIAL.contains(&unit)
}

impl Review {
    /// What the user complains about: what would annoy anybody first, then the preference.
    pub fn complaint(&self) -> Option<Violation> {
        let unfinished = self
            .guards
            .iter()
            .copied()
            .find(|guard| *guard == Violation::Unfinished);
        let annoying = self
            .guards
            .iter()
            .copied()
            .find(|guard| *guard != Violation::Unfinished);
        // A reply that was cut off because it went on and on is too long, before it is unfinished.
        annoying
            .or_else(|| self.preference.first().copied())
            .or(unfinished)
    }

    /// Whether the preference is kept by a finished reply. Truncation counts as not finished; an empty reply keeps nothing.
    pub fn kept(&self) -> bool {
        !self.empty && self.preference.is_empty() && !self.guards.contains(&Violation::Unfinished)
    }

    /// The oracle's word, with the guards beside it.
    pub fn outcome(&self) -> OutcomeScore {
        let unit = |yes: bool| if yes { 1.0 } else { 0.0 };
        let guard = |violation| unit(!self.guards.contains(&violation));
        let metrics = vec![
            NamedValue::new("non-empty", unit(!self.empty)),
            NamedValue::new("on-topic", guard(Violation::OffTopic)),
            NamedValue::new("length-band", unit(self.band)),
            NamedValue::new("no-repetition", guard(Violation::Repetition)),
            NamedValue::new("finished", guard(Violation::Unfinished)),
        ];
        OutcomeScore {
            value: unit(self.kept()),
            metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAD: Question = Question {
        text: "How do I store bread?",
        keywords: &["bread", "bag", "box"],
    };

    fn complaint(persona: Persona, reply: &str, truncated: bool, expected: Option<Violation>) {
        let review = review(persona, &BREAD, reply, truncated);
        assert_eq!(review.complaint(), expected, "{reply}");
        let guards_hold = review.guards.is_empty();
        if guards_hold {
            assert_eq!(review.kept(), expected.is_none(), "{reply}");
        }
    }

    #[test]
    fn brief_wants_two_plain_sentences() {
        use Violation::{Markup, OffTopic, Repetition, TooLong, Unfinished};
        let check = |reply, expected| complaint(Persona::Brief, reply, false, expected);
        check("Keep the bread in a paper bag.", None);
        check("Keep the bread in a paper bag. Freeze what is left.", None);
        check(
            "Keep the bread in a bag. Freeze some. Eat the rest.",
            Some(TooLong),
        );
        check("- Put the bread in a bag", Some(Markup));
        check("", Some(OffTopic));
        check("The moon is far away.", Some(OffTopic));
        check(
            "Keep your bread in a bag. Keep your bread in a bag.",
            Some(Repetition),
        );
        complaint(
            Persona::Brief,
            "Keep the bread in a",
            true,
            Some(Unfinished),
        );
        complaint(
            Persona::Brief,
            "Keep the bread. In a bag. Or in",
            true,
            Some(TooLong),
        );
    }

    #[test]
    fn warm_wants_kindness_and_encouragement_at_the_end() {
        use Violation::{Cold, NoEncouragement};
        let check = |reply, expected| complaint(Persona::Warm, reply, false, expected);
        check(
            "Good question, my friend! Keep the bread in a bag. You can do it!",
            None,
        );
        check("Keep the bread in a bag. Good luck!", Some(Cold));
        check(
            "Happy to help! Keep the bread in a bag.",
            Some(NoEncouragement),
        );
        check(
            "Good luck, dear friend. Keep the bread in a bag.",
            Some(NoEncouragement),
        );
    }

    #[test]
    fn metric_wants_a_number_first_and_no_imperial_units() {
        use Violation::{Imperial, NoNumber};
        let check = |reply, expected| complaint(Persona::Metric, reply, false, expected);
        check("3 days in a bag at 20 degrees Celsius.", None);
        check("Bread keeps for about two days.", None);
        check(
            "Bread should be kept in a bag in a cool and dry place for 3 days.",
            Some(NoNumber),
        );
        check("2 days, in a box of 12 inches.", Some(Imperial));
        check("2 days, in a box at 70°F.", Some(Imperial));
        check("2 loaves of bread at 350°F", Some(Imperial));
        check("3 days: do not feed the birds with bread.", None);
    }

    #[test]
    fn an_outcome_holds_the_rule_and_the_guards_apart() {
        let outcome = review(Persona::Brief, &BREAD, "Yes.", false).outcome();
        let metric = |name: &str| {
            outcome
                .metrics
                .iter()
                .find(|metric| metric.name == name)
                .map(|metric| metric.value)
        };
        assert_eq!(outcome.value, 1.0);
        assert_eq!(
            (metric("on-topic"), metric("length-band")),
            (Some(0.0), Some(0.0))
        );
        assert_eq!(
            (metric("non-empty"), metric("finished")),
            (Some(1.0), Some(1.0))
        );
        assert_eq!(
            review(Persona::Brief, &BREAD, "", false).outcome().value,
            0.0
        );
        assert_eq!(
            review(Persona::Brief, &BREAD, "Keep the bread", true)
                .outcome()
                .value,
            0.0
        );
    }

    #[test]
    fn an_unknown_persona_is_a_fault() {
        assert!(matches!(
            Persona::parse("grumpy"),
            Err(Fault::InvalidInput(_))
        ));
    }
}
