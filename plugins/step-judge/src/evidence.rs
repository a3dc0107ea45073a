//! What the environment itself knows about an action, as numbers: what they decide alone, and what they are in words.
//!
//! Only numbers are read here, never a text: whatever a tool's output or a page claims, it cannot change what is decided or how the
//! report reads.

use sdk::{Fault, Observation, Sign, config};

/// The numbers of an observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// How a command ended.
    pub exit_code: Option<f64>,
    /// Whether the action failed.
    pub error: Option<bool>,
    /// Whether it is the same action as before.
    pub repeated: Option<bool>,
    /// Whether it changed anything.
    pub changed: Option<bool>,
    /// What this judge has no words for: `tests-passed 3`. The names are the environment's.
    pub others: Vec<String>,
}

/// When an error decides without a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clarity {
    /// Every error.
    Always,
    /// Unless it is no more than a program's exit code.
    Clear,
    /// Only together with a repetition.
    Never,
}

impl Clarity {
    /// The config's.
    pub fn configured() -> Result<Self, Fault> {
        Ok(match config::text("error-decides")?.as_str() {
            "always" => Self::Always,
            "never" => Self::Never,
            _ => Self::Clear,
        })
    }
}

/// What a program may say by its exit code: `grep` found nothing, files differ, a test fails, and that is what was to be seen.
/// Beyond it a command did not run, ran out of time or was killed: 124 to 127 and 128 + signal, by the shell's convention.
const SAID: std::ops::RangeInclusive<f64> = 0.0..=123.0;

impl Evidence {
    /// Reads the numbers; one that is not finite is left out.
    pub fn of(next: &Observation) -> Self {
        const KNOWN: [&str; 4] = ["exit-code", "error", "repeated", "changed"];
        let number = |name| next.evidence(name).filter(|value| value.is_finite());
        let flag = |name| number(name).map(|value| value != 0.0);
        let others = next
            .evidence
            .iter()
            .filter(|number| number.value.is_finite() && !KNOWN.contains(&number.name.as_str()))
            .map(|number| format!("{} {}", number.name, rounded(number.value)));
        Self {
            exit_code: number("exit-code"),
            error: flag("error"),
            repeated: flag("repeated"),
            changed: flag("changed"),
            others: others.collect(),
        }
    }

    /// What the numbers decide alone. Never that an action was good: nothing in them says that it served the task.
    pub fn decide(&self, clarity: Clarity) -> Option<Sign> {
        let is = |flag: Option<bool>| flag == Some(true);
        let failed = is(self.error);
        let failed_again = is(self.repeated) && (failed || self.changed == Some(false));
        let is_clear = match clarity {
            Clarity::Always => failed,
            Clarity::Clear => failed && self.exit_code.is_none_or(|code| !SAID.contains(&code)),
            Clarity::Never => false,
        };
        (failed_again || is_clear).then_some(Sign::Bad)
    }

    /// Whether a number speaks of trouble.
    pub fn is_trouble(&self) -> bool {
        self.error == Some(true)
            || self.repeated == Some(true)
            || self.changed == Some(false)
            || self.exit_code.is_some_and(|code| code != 0.0)
    }

    /// The numbers that have words, in a fixed order; none without any.
    pub fn report(&self) -> Option<String> {
        let either = |flag: Option<bool>, yes, no| flag.map(|is| if is { yes } else { no });
        let words = [
            self.exit_code
                .map(|code| format!("exit code {}", rounded(code))),
            either(self.error, "an error", "no error").map(str::to_owned),
            either(self.repeated, "the same action as before", "").map(str::to_owned),
            either(self.changed, "the state changed", "nothing changed").map(str::to_owned),
        ];
        let words: Vec<_> = words
            .into_iter()
            .flatten()
            .filter(|word| !word.is_empty())
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// A number in at most a dozen characters: the contract keeps evidence within a billion.
fn rounded(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(numbers: &[(&str, f64)]) -> Evidence {
        let none = Observation::new(Vec::new());
        Evidence::of(
            &numbers
                .iter()
                .fold(none, |next, (name, value)| next.with_evidence(name, *value)),
        )
    }

    fn check(numbers: &[(&str, f64)], expected: [Option<Sign>; 3]) {
        let found = [Clarity::Always, Clarity::Clear, Clarity::Never]
            .map(|clarity| evidence(numbers).decide(clarity));
        assert_eq!(found, expected, "{numbers:?}");
    }

    #[test]
    fn errors_and_repetitions_without_effect_decide_and_success_never_does() {
        const BAD: Option<Sign> = Some(Sign::Bad);
        check(&[("error", 1.0)], [BAD, BAD, None]);
        check(&[("error", 1.0), ("repeated", 1.0)], [BAD; 3]);
        check(&[("repeated", 1.0), ("changed", 0.0)], [BAD; 3]);
        check(&[("repeated", 1.0), ("changed", 1.0)], [None; 3]);
        check(&[("repeated", 1.0)], [None; 3]);
        check(&[("changed", 0.0)], [None; 3]);
        check(
            &[("exit-code", 0.0), ("error", 0.0), ("changed", 1.0)],
            [None; 3],
        );
        check(&[], [None; 3]);
    }

    #[test]
    fn a_programs_exit_code_is_its_word_and_no_clear_error() {
        const BAD: Option<Sign> = Some(Sign::Bad);
        for code in [1.0, 2.0, 123.0] {
            check(&[("exit-code", code), ("error", 1.0)], [BAD, None, None]);
        }
        for code in [124.0, 127.0, 139.0, -9.0] {
            check(&[("exit-code", code), ("error", 1.0)], [BAD, BAD, None]);
        }
        check(
            &[("exit-code", 1.0), ("error", 1.0), ("repeated", 1.0)],
            [BAD; 3],
        );
    }

    #[test]
    fn the_report_is_made_of_our_words_and_numbers_alone() {
        let check = |numbers: &[(&str, f64)], expected: Option<&str>| {
            assert_eq!(evidence(numbers).report().as_deref(), expected);
        };
        check(
            &[
                ("changed", 1.0),
                ("error", 0.0),
                ("exit-code", 0.0),
                ("repeated", 0.0),
            ],
            Some("exit code 0, no error, the state changed"),
        );
        check(
            &[("repeated", 1.0), ("changed", 0.0), ("exit-code", 1.5)],
            Some("exit code 1.50, the same action as before, nothing changed"),
        );
        check(&[("tests-passed", 3.0)], None);
        check(&[("error", f64::NAN)], None);
        assert_eq!(
            evidence(&[("tests-passed", 3.0)]).others,
            ["tests-passed 3"]
        );
    }
}
