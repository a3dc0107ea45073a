//! The programmatic oracle: a page's state against the state that the task asks for.
//!
//! Pure: states are JSON values that the page's own script gives. A state holds all that a person could change on the page and that
//! matters, so that a wrong extra change makes it differ. Nothing here reads what the model says.

use serde_json::Value;

/// What a task asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct Goal {
    /// The state to reach.
    pub expected: Value,
    /// Parts of the state (as JSON pointers) in which a wrong change cannot be taken back.
    pub irreversible: &'static [&'static str],
}

/// How far a page is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// In [0, 1]: 1 for the right state, at most half of it for a part.
    pub value: f64,
    /// Share of the changes that are made, less the wrong ones.
    pub parts_right: f64,
    /// Nothing can make this page right any more.
    pub lost: bool,
}

impl Score {
    /// Whether the state is right.
    pub fn is_solved(&self) -> bool {
        self.value >= 1.0
    }

    /// The score of a page that has a reward of its own, in [-1, 1], once it says that it is over.
    pub fn of_reward(reward: f64, over: bool) -> Self {
        let value = if over { reward.clamp(0.0, 1.0) } else { 0.0 };
        Self {
            value,
            parts_right: value,
            lost: over && value < 1.0,
        }
    }
}

impl Goal {
    /// Compares a state with the goal; `initial` is the state in which the page began.
    ///
    /// A page says by a true `final` that it took what it was given and takes nothing more: then only the right state has any value. So
    /// it is with a wrong change of an irreversible part.
    pub fn score(&self, initial: &Value, state: &Value) -> Score {
        if *state == self.expected {
            return Score {
                value: 1.0,
                parts_right: 1.0,
                lost: false,
            };
        }
        let (mut needed, mut right) = (0.0, 0.0_f64);
        let mut wrong = 0.0;
        let mut lost = state.get("final") == Some(&Value::Bool(true));
        for (pointer, expected) in leaves(&self.expected) {
            let (was, is) = (initial.pointer(&pointer), state.pointer(&pointer));
            if was != Some(expected) {
                needed += 1.0;
                right += f64::from(u8::from(is == Some(expected)));
            } else if is != Some(expected) {
                wrong += 1.0;
            }
            let moved = is != was && is != Some(expected);
            lost |= moved
                && self
                    .irreversible
                    .iter()
                    .any(|part| pointer.starts_with(part));
        }
        // What the goal has not heard of, for example an item too much.
        let unknown = leaves(state)
            .into_iter()
            .filter(|(pointer, value)| {
                self.expected.pointer(pointer).is_none() && initial.pointer(pointer) != Some(value)
            })
            .count();
        wrong += u32::try_from(unknown).map_or(f64::MAX, f64::from);
        let share = if needed > 0.0 {
            ((right - wrong) / needed).clamp(0.0, 1.0)
        } else {
            0.0
        };
        Score {
            value: if lost { 0.0 } else { share / 2.0 },
            parts_right: share,
            lost,
        }
    }
}

/// The parts of a state that are compared one by one, by JSON pointer. A list is one part: its order matters.
fn leaves(state: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let mut left = vec![(String::new(), state)];
    while let Some((pointer, value)) = left.pop() {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    left.push((format!("{pointer}/{key}"), value));
                }
            }
            _ => found.push((pointer, value)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(name: &str, city: &str, news: bool, sent: bool) -> Value {
        json!({"fields": {"Name": name, "City/Town": city, "News": news}, "final": sent})
    }

    fn score(state: &Value) -> Score {
        let goal = Goal {
            expected: form("Anna", "Oslo", false, true),
            irreversible: &[],
        };
        goal.score(&form("", "", false, false), state)
    }

    #[test]
    fn only_the_right_state_is_worth_everything() {
        let score = score(&form("Anna", "Oslo", false, true));
        assert_eq!(
            (score.value, score.parts_right, score.lost),
            (1.0, 1.0, false)
        );
    }

    #[test]
    fn right_parts_are_worth_at_most_half_and_the_beginning_is_worth_nothing() {
        assert_eq!(score(&form("", "", false, false)).value, 0.0);
        assert_eq!(score(&form("Anna", "", false, false)).value, 1.0 / 6.0);
        let nearly = score(&form("Anna", "Oslo", false, false));
        assert_eq!(nearly.value, 1.0 / 3.0);
        assert!(!nearly.is_solved());
    }

    #[test]
    fn a_wrong_extra_change_costs_a_right_one() {
        assert_eq!(score(&form("Anna", "", true, false)).value, 0.0);
        assert_eq!(score(&form("", "", true, false)).value, 0.0);
        let mut extra = form("Anna", "Oslo", false, false);
        extra["fields"]["Gift"] = json!("yes");
        assert_eq!(score(&extra).value, 1.0 / 6.0);
    }

    #[test]
    fn what_was_sent_wrong_is_worth_nothing_and_lost() {
        let sent = score(&form("Anna", "Bergen", false, true));
        assert_eq!((sent.value, sent.lost), (0.0, true));
        assert!(!score(&form("Anna", "Bergen", false, false)).lost);
    }

    #[test]
    fn a_wrong_change_of_an_irreversible_part_is_lost_and_a_right_one_is_not() {
        let goal = Goal {
            expected: json!({"deleted": {"a": true, "b": false}, "starred": {"a": false, "b": true}}),
            irreversible: &["/deleted"],
        };
        let state =
            |a, b, star| json!({"deleted": {"a": a, "b": b}, "starred": {"a": star, "b": false}});
        let initial = state(false, false, false);
        assert!(!goal.score(&initial, &state(true, false, false)).lost);
        assert!(!goal.score(&initial, &state(false, false, true)).lost);
        let lost = goal.score(&initial, &state(true, true, false));
        assert_eq!((lost.value, lost.lost), (0.0, true));
    }

    #[test]
    fn states_of_another_shape_are_simply_wrong() {
        for state in [json!(null), json!([]), json!({"fields": []}), json!("x")] {
            assert_eq!(score(&state).value, 0.0, "{state}");
        }
        let goal = Goal {
            expected: json!({"order": ["a", "b"]}),
            irreversible: &[],
        };
        let initial = json!({"order": ["b", "a"]});
        assert_eq!(goal.score(&initial, &json!({"order": ["b"]})).value, 0.0);
        assert!(
            goal.score(&initial, &json!({"order": ["a", "b"]}))
                .is_solved()
        );
    }

    #[test]
    fn a_pages_own_reward_counts_once_it_is_over() {
        assert_eq!(Score::of_reward(1.0, false).value, 0.0);
        assert!(Score::of_reward(1.0, true).is_solved());
        let bad = Score::of_reward(-1.0, true);
        assert_eq!((bad.value, bad.lost), (0.0, true));
        assert_eq!(Score::of_reward(0.5, true).value, 0.5);
    }
}
