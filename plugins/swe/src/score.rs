//! Reads what the driver said, and grades it. Pure: the right answers are here and never on a machine.
//!
//! See `score/driver.py` for how the answers come about, and [`crate::oracle`] for where.

use std::collections::BTreeMap;

use sdk::{NamedValue, OutcomeScore};

/// One thing that must come out right: a hidden case or a unit test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The case's function, or the test's id.
    pub name: String,
    /// What the driver says when it is right.
    pub right: String,
    /// Whether it comes out wrong before anything is done.
    pub failing: bool,
    /// Whether the issue gives the answer away: such a check must be right, too, but earns nothing.
    pub shown: bool,
}

/// How the checks came out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grade {
    /// Whether all checks are right.
    pub resolved: bool,
    /// The share of the formerly failing checks that are right now, those that the issue shows left out.
    pub fixed_share: f64,
    /// How many checks were right before and are not any more.
    pub broke: usize,
}

/// The driver's answers by name. A check that was lost, or answered twice, has none.
pub fn answers(stdout: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut twice = Vec::new();
    for line in stdout.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some("case" | "test"), Some(name), Some(value)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if found.insert(name.to_owned(), value.to_owned()).is_some() {
            twice.push(name.to_owned());
        }
    }
    found.retain(|name, _| !twice.contains(name));
    found
}

/// Compares answers with the right ones.
pub fn grade(checks: &[Check], answers: &BTreeMap<String, String>) -> Grade {
    let right = |check: &&Check| answers.get(&check.name) == Some(&check.right);
    let unseen = |check: &&Check| check.failing && !check.shown;
    let failing = checks.iter().filter(unseen).count();
    let fixed = checks.iter().filter(unseen).filter(right).count();
    Grade {
        resolved: !checks.is_empty() && checks.iter().all(|check| right(&check)),
        fixed_share: share(fixed, failing),
        broke: checks
            .iter()
            .filter(|check| !check.failing && !right(check))
            .count(),
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    if whole == 0 {
        0.0
    } else {
        number(part) / number(whole)
    }
}

impl Grade {
    /// 1 for a repository that is whole; half of the share where nothing broke; else 0. `void` takes it all.
    pub fn value(&self, void: bool) -> f64 {
        match (void, self.resolved, self.broke) {
            (true, ..) => 0.0,
            (false, true, _) => 1.0,
            (false, false, 0) => 0.5 * self.fixed_share,
            (false, false, _) => 0.0,
        }
    }

    /// The oracle's word.
    pub fn outcome(&self, void: bool, edits: usize, commands: usize) -> OutcomeScore {
        let count = |count: usize| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
        let flag = |yes: bool| f64::from(u8::from(yes));
        OutcomeScore {
            value: self.value(void),
            metrics: vec![
                NamedValue::new("resolved", flag(self.resolved && !void)),
                NamedValue::new("fixed-share", self.fixed_share),
                NamedValue::new("broke", count(self.broke)),
                NamedValue::new("void", flag(void)),
                NamedValue::new("edits", count(edits)),
                NamedValue::new("commands", count(commands)),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        let check = |name: &str, failing, shown| Check {
            name: name.into(),
            right: "1".into(),
            failing,
            shown,
        };
        vec![
            check("a", false, false),
            check("b", true, true),
            check("c", true, false),
            check("d", true, false),
        ]
    }

    fn value(stdout: &str) -> f64 {
        grade(&checks(), &answers(stdout)).value(false)
    }

    #[test]
    fn all_right_is_one_and_nothing_done_is_zero() {
        let all = "case\ta\t1\ncase\tb\t1\ncase\tc\t1\ntest\td\t1\n";
        assert_eq!(value(all), 1.0);
        assert_eq!(
            value("case\ta\t1\ncase\tb\t0\ncase\tc\t0\ncase\td\t0\n"),
            0.0
        );
        assert_eq!(grade(&checks(), &answers(all)).value(true), 0.0);
    }

    #[test]
    fn a_part_counts_half_and_only_while_nothing_broke() {
        assert_eq!(
            value("case\ta\t1\ncase\tb\t1\ncase\tc\t1\ncase\td\t0\n"),
            0.25
        );
        assert_eq!(
            value("case\ta\t0\ncase\tb\t1\ncase\tc\t1\ncase\td\t1\n"),
            0.0
        );
    }

    #[test]
    fn the_answer_that_the_issue_shows_earns_nothing_by_itself() {
        assert_eq!(value("case\ta\t1\ncase\tb\t1\n"), 0.0);
        assert_eq!(
            value("case\ta\t1\ncase\tb\t0\ncase\tc\t1\ncase\td\t1\n"),
            0.5
        );
    }

    #[test]
    fn no_answer_a_lost_one_and_two_answers_are_not_right() {
        assert_eq!(value(""), 0.0);
        assert_eq!(
            value("lost\ta\t1\nlost\tb\t1\nlost\tc\t1\nlost\td\t1\n"),
            0.0
        );
        let twice = "case\ta\t1\ncase\tb\t1\ncase\tc\t1\ncase\td\t1\ncase\td\t1\n";
        assert!(!grade(&checks(), &answers(twice)).resolved);
        assert!(!grade(&[], &answers(twice)).resolved);
    }

    #[test]
    fn the_metrics_have_their_names() {
        let grade = grade(&checks(), &answers(""));
        let names: Vec<_> = grade.outcome(true, 2, 3).metrics;
        let names: Vec<_> = names
            .iter()
            .map(|metric| (metric.name.as_str(), metric.value))
            .collect();
        assert_eq!(
            names,
            [
                ("resolved", 0.0),
                ("fixed-share", 0.0),
                ("broke", 1.0),
                ("void", 1.0),
                ("edits", 2.0),
                ("commands", 3.0)
            ]
        );
    }
}
