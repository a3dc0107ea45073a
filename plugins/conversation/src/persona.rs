//! The personas: what each wants and never says, as a program.
//!
//! The rule is the oracle of an episode: it measures, and decides whether the scripted user complains. Nothing in here is a
//! text that anybody says; those are in [`crate::phrases`].

use sdk::{Fault, NamedValue, OutcomeScore};

use crate::{questions::Question, taste, text};

/// A user with a preference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persona {
    /// Plain text without markup, at most two sentences.
    Brief,
    /// Addressed kindly, and the answer ends on encouragement.
    Warm,
    /// A number first, and metric units only.
    Metric,
    /// Hands in homework that does not look as if a machine had written it.
    Student,
    /// Grades homework: feedback that names the mistake, and is friendly.
    Ta,
    /// Comments on homework: warm, and in detail.
    Teacher,
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
    /// "Step 1:", "Final answer:" and the like.
    Labels,
    /// Feedback that does not say which number is wrong.
    Vague,
    /// Fewer than three sentences.
    TooShort,
    /// The homework's right number is not in it.
    WrongNumber,
}

impl Persona {
    /// Every persona.
    pub const ALL: [Persona; 6] = [
        Persona::Brief,
        Persona::Warm,
        Persona::Metric,
        Persona::Student,
        Persona::Ta,
        Persona::Teacher,
    ];

    /// Its name in task ids.
    pub fn name(self) -> &'static str {
        match self {
            Persona::Brief => "brief",
            Persona::Warm => "warm",
            Persona::Metric => "metric",
            Persona::Student => "student",
            Persona::Ta => "ta",
            Persona::Teacher => "teacher",
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
            Persona::Student => (3, 100),
            Persona::Ta => (8, 120),
            Persona::Teacher => (20, 200),
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
    homework: bool,
}

/// Looks at a reply.
pub fn review(persona: Persona, question: &Question, reply: &str, truncated: bool) -> Review {
    let count = text::words(reply).len();
    let empty = count == 0;
    let mut guards = Vec::new();
    let right = question.sheet.as_ref().map(|sheet| sheet.is_right(reply));
    if empty || !(right == Some(true) || text::mentions(reply, question.keywords)) {
        guards.push(Violation::OffTopic);
    }
    if right == Some(false) {
        guards.push(Violation::WrongNumber);
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
        preference: broken(persona, question, reply),
        guards,
        band,
        empty,
        homework: right.is_some(),
    }
}

fn broken(persona: Persona, question: &Question, reply: &str) -> Vec<Violation> {
    use Violation::{
        Cold, Imperial, Labels, Markup, NoEncouragement, NoNumber, TooLong, TooShort, Vague,
    };
    let sentences = text::sentences(reply);
    let sheet = question.sheet.as_ref();
    let rules = match persona {
        Persona::Brief => [
            (Markup, text::markup(reply).is_some()),
            (TooLong, sentences.len() > 2),
        ],
        Persona::Warm => [
            (Cold, !taste::is_kind(reply)),
            (NoEncouragement, !taste::ends_encouraging(&sentences)),
        ],
        Persona::Metric => [
            (NoNumber, !taste::number_first(reply)),
            (Imperial, taste::is_imperial(reply)),
        ],
        Persona::Student => [
            (Markup, text::markup(reply).is_some()),
            (Labels, taste::has_labels(reply)),
        ],
        Persona::Ta => [
            (
                Vague,
                sheet.is_some_and(|sheet| !sheet.names_the_mistake(reply)),
            ),
            (Cold, !taste::is_friendly(reply)),
        ],
        Persona::Teacher => [
            (Cold, !taste::is_friendly(reply)),
            (TooShort, sentences.len() < 3),
        ],
    };
    let broken = rules.into_iter().filter(|(_, broken)| *broken);
    broken.map(|(violation, _)| violation).collect()
}

impl Review {
    /// What the user complains about: what would annoy anybody first, then the preference, then what a better style does not heal.
    pub fn complaint(&self) -> Option<Violation> {
        // A reply that was cut off because it went on and on is too long, before it is unfinished.
        let last = [Violation::WrongNumber, Violation::Unfinished];
        let (later, first): (Vec<_>, Vec<_>) =
            self.guards.iter().partition(|guard| last.contains(guard));
        let mut all = first.into_iter().chain(&self.preference).chain(later);
        all.next().copied()
    }

    /// Whether the preference is kept by a finished reply. Truncation counts as not finished; an empty reply keeps nothing, and homework
    /// that is wrong is of no use, in whatever style.
    pub fn kept(&self) -> bool {
        let spoilt = [Violation::Unfinished, Violation::WrongNumber];
        let spoils = |guard: &Violation| spoilt.contains(guard);
        !self.empty && self.preference.is_empty() && !self.guards.iter().any(spoils)
    }

    /// The oracle's word, with the guards beside it.
    pub fn outcome(&self) -> OutcomeScore {
        let unit = |yes: bool| if yes { 1.0 } else { 0.0 };
        let guard = |violation| unit(!self.guards.contains(&violation));
        let mut metrics = vec![
            NamedValue::new("non-empty", unit(!self.empty)),
            NamedValue::new("on-topic", guard(Violation::OffTopic)),
            NamedValue::new("length-band", unit(self.band)),
            NamedValue::new("no-repetition", guard(Violation::Repetition)),
            NamedValue::new("finished", guard(Violation::Unfinished)),
        ];
        if self.homework {
            let preference = unit(!self.empty && self.preference.is_empty());
            metrics.push(NamedValue::new("preference", preference));
            metrics.push(NamedValue::new("correct", guard(Violation::WrongNumber)));
        }
        OutcomeScore {
            value: unit(self.kept()),
            metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const BREAD: Question = Question {
        text: Cow::Borrowed("How do I store bread?"),
        keywords: &["bread", "bag", "box"],
        sheet: None,
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

    /// A homework of the generator's, whose numbers the replies below are written for.
    fn homework(persona: Persona, reply: &str) -> (Review, String) {
        let question = crate::questions::of(persona, sdk::Split::Train)[0].clone();
        let sheet = question.sheet.as_ref().unwrap();
        let claimed = sheet.claimed.unwrap_or_default().to_string();
        let right = sheet.answer.to_string();
        let reply = reply.replace("RIGHT", &right).replace("WRONG", &claimed);
        (review(persona, &question, &reply, false), reply)
    }

    #[test]
    fn homework_personas_want_their_style_and_the_right_number() {
        use Persona::{Student, Ta, Teacher};
        use Violation::{Cold, Labels, Markup, OffTopic, TooShort, Vague, WrongNumber};
        let table = [
            (
                Student,
                "I multiplied first and took the rest away, so RIGHT pens are left.",
                None,
            ),
            (Student, "There are RIGHT pens left.", None),
            (Student, "**RIGHT** pens are left.", Some(Markup)),
            (
                Student,
                "1. Multiply.\n2. Subtract.\nRIGHT pens are left.",
                Some(Markup),
            ),
            (
                Student,
                "Step 1: multiply. Step 2: subtract. RIGHT pens are left.",
                Some(Labels),
            ),
            (Student, "Answer: RIGHT", Some(Labels)),
            (
                Student,
                "Let's break it down. RIGHT pens are left.",
                Some(Labels),
            ),
            (Student, "There are 1 pens left.", Some(WrongNumber)),
            (Student, "**No** pens are left.", Some(Markup)),
            (Student, "I don't know.", Some(OffTopic)),
            (
                Ta,
                "Nice work on the pens! You wrote WRONG, but look at the last step: RIGHT are left.",
                None,
            ),
            (
                Ta,
                "Nice work! One step of the pens is not right, it should be RIGHT.",
                Some(Vague),
            ),
            (Ta, "You wrote WRONG pens. It is RIGHT.", Some(Cold)),
            (
                Ta,
                "Nice work! WRONG pens is a mistake, please try again.",
                Some(WrongNumber),
            ),
            (
                Teacher,
                "Well done, Ben! You multiplied first, and then took the rest away. RIGHT pens is right.",
                None,
            ),
            (Teacher, "Well done, RIGHT pens is right!", Some(TooShort)),
            (
                Teacher,
                "RIGHT is correct. The boxes were multiplied. The rest was subtracted.",
                Some(Cold),
            ),
            (
                Teacher,
                "Well done! The boxes of pens were multiplied. The rest was subtracted.",
                Some(WrongNumber),
            ),
        ];
        for (persona, reply, expected) in table {
            let (review, reply) = homework(persona, reply);
            assert_eq!(review.complaint(), expected, "{persona:?}: {reply}");
            assert_eq!(review.kept(), expected.is_none(), "{persona:?}: {reply}");
        }
    }

    #[test]
    fn wrong_homework_scores_nothing_and_says_that_its_style_was_kept() {
        let (review, _) = homework(Persona::Student, "There are 1 pens left.");
        let outcome = review.outcome();
        let metric = |name: &str| {
            let found = outcome.metrics.iter().find(|metric| metric.name == name);
            found.map(|metric| metric.value)
        };
        assert_eq!(outcome.value, 0.0);
        assert_eq!(
            (metric("preference"), metric("correct")),
            (Some(1.0), Some(0.0))
        );
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
