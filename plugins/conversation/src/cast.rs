//! Who speaks, and by whose taste, at each question of a conversation: one persona, a taste that drifts, or two people who take turns.
//!
//! Named in task ids: `brief`, `brief-drift-warm`, `student-switch-teacher`. Nothing is said about a drift; the one who takes over says so.

use sdk::{Fault, Split};

use crate::{persona::Persona, questions, user::Asked};

/// What changes during a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The same person wants something else.
    Drift,
    /// Another person speaks.
    Switch,
}

/// The people of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cast {
    first: Persona,
    then: Option<(Change, Persona)>,
}

impl Change {
    const ALL: [Change; 2] = [Change::Drift, Change::Switch];

    fn name(self) -> &'static str {
        match self {
            Change::Drift => "drift",
            Change::Switch => "switch",
        }
    }
}

impl Cast {
    /// One persona, or a change to another one.
    ///
    /// # Errors
    /// `invalid-config` for names that are none.
    pub fn new(persona: &str, change: &str, to: &str) -> Result<Self, Fault> {
        let name = match change {
            "none" => persona.to_owned(),
            change => format!("{persona}-{change}-{to}"),
        };
        Self::parse(&name).map_err(|fault| Fault::InvalidConfig(fault.text().to_owned()))
    }

    /// The cast of this name.
    ///
    /// # Errors
    /// `invalid-input` for a name that is none.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let mut parts = name.split('-');
        let first = Persona::parse(parts.next().unwrap_or_default())?;
        let then = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => None,
            (Some(change), Some(to), None) => {
                let found = Change::ALL.into_iter().find(|one| one.name() == change);
                let unknown = || Fault::InvalidInput(format!("there is no change `{change}`"));
                Some((found.ok_or_else(unknown)?, Persona::parse(to)?))
            }
            _ => return Err(Fault::InvalidInput(format!("there is no cast `{name}`"))),
        };
        Ok(Self { first, then })
    }

    /// Its name in task ids.
    pub fn name(self) -> String {
        let first = self.first.name();
        match self.then {
            None => first.to_owned(),
            Some((change, to)) => format!("{first}-{}-{}", change.name(), to.name()),
        }
    }

    /// How many tasks it has in a split.
    pub fn tasks(self, split: Split, each: usize) -> usize {
        let questions = questions::of(self.first, split).len();
        match split {
            Split::Train => questions.div_ceil(each),
            Split::HeldOut => questions,
        }
    }

    /// The questions of a training task: a block of the list, so that all tasks together ask everything. From the place `after` on
    /// what changes has changed.
    pub fn block(self, task: usize, each: usize, after: usize) -> Vec<Asked> {
        let places = (0..each).map(|place| (task * each + place, place >= after));
        places
            .map(|(at, changed)| self.asked(Split::Train, at, changed))
            .collect()
    }

    /// The question of a held-out task, which measures: of a drift what it came to, of two people now the one and now the other.
    pub fn held_out(self, task: usize) -> Asked {
        let changed = match self.then {
            Some((Change::Switch, _)) => task % 2 == 1,
            _ => true,
        };
        self.asked(Split::HeldOut, task, changed)
    }

    fn asked(self, split: Split, at: usize, changed: bool) -> Asked {
        let (speaker, rule) = match self.then.filter(|_| changed) {
            None => (self.first, self.first),
            Some((Change::Drift, to)) => (self.first, to),
            Some((Change::Switch, to)) => (to, to),
        };
        let all = questions::of(speaker, split);
        Asked {
            question: all[at % all.len()].clone(),
            speaker,
            rule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(name: &str) -> Cast {
        Cast::parse(name).unwrap()
    }

    fn who(name: &str, after: usize) -> Vec<(Persona, Persona)> {
        let block = cast(name).block(1, 3, after);
        block.iter().map(|ask| (ask.speaker, ask.rule)).collect()
    }

    #[test]
    fn names_are_read_and_written_alike_and_others_refused() {
        for name in ["ta", "brief-drift-warm", "student-switch-teacher"] {
            assert_eq!(cast(name).name(), name);
        }
        for name in [
            "",
            "tall",
            "brief-drift",
            "brief-shift-warm",
            "brief-drift-warm-ta",
        ] {
            assert!(
                matches!(Cast::parse(name), Err(Fault::InvalidInput(_))),
                "{name}"
            );
        }
        assert_eq!(Cast::new("ta", "none", "warm").unwrap().name(), "ta");
        assert_eq!(
            Cast::new("ta", "switch", "warm").unwrap(),
            cast("ta-switch-warm")
        );
        assert!(matches!(
            Cast::new("ta", "swap", "warm"),
            Err(Fault::InvalidConfig(_))
        ));
    }

    #[test]
    fn a_drift_changes_the_taste_and_a_switch_the_person() {
        use Persona::{Brief, Student, Warm};
        assert_eq!(who("brief", 1), [(Brief, Brief); 3]);
        assert_eq!(
            who("brief-drift-warm", 2),
            [(Brief, Brief), (Brief, Brief), (Brief, Warm)]
        );
        assert_eq!(
            who("brief-switch-student", 1),
            [(Brief, Brief), (Student, Student), (Student, Student)]
        );
        let plain = cast("brief").block(1, 3, 2);
        let drifted = cast("brief-drift-warm").block(1, 3, 2);
        assert!(
            plain
                .iter()
                .zip(&drifted)
                .all(|(one, other)| one.question == other.question)
        );
    }

    #[test]
    fn held_out_questions_measure_the_taste_that_a_drift_came_to_and_both_people_of_a_switch() {
        use Persona::{Brief, Ta, Warm};
        let rules = |name: &str| [0, 1].map(|task| cast(name).held_out(task).rule);
        assert_eq!(rules("brief"), [Brief, Brief]);
        assert_eq!(rules("brief-drift-warm"), [Warm, Warm]);
        assert_eq!(rules("brief-switch-ta"), [Brief, Ta]);
    }
}
