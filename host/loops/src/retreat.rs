//! Going back further when the gate holds a version: what answers may be nearly as bad.
//!
//! A slide of which no step shows much (an attractor that gains a little at each) ends at the gate with the first version that shows
//! it, and would leave the one before it to answer everybody. But weights that are nearly alike say nearly the same: when a version's
//! replies are bad and their KL to what answers is small, what answers is bad as well, only its few probes did not show it.
//! So an older version answers again, the newest that is further away than such replies can hide. A version that fails far from
//! what answers fails by itself alone. A function of what the gate found on the way, and a part of the training fold: replay and
//! forgetting decide the same. It asks nobody and moves nothing. Start at [`versions`].

use serde_json::Value;

use crate::gate::Examination;

/// Guards of what replies are like. The others say how far a version went, which is no fault of where it came from.
const CONTENT: [&str; 5] = ["repetition", "errors", "off-topic", "score", "tolerance"];

/// What an examination says of a version's step from the one that it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stride {
    /// KL, nats a reply; none when it was not measured.
    pub(crate) nats: Option<f64>,
    /// Its replies are bad.
    bad: bool,
}

impl Stride {
    /// Of the examination as the gate writes it.
    pub(crate) fn of(examination: &Value) -> Self {
        let Ok(seen) = serde_json::from_value::<Examination>(examination.clone()) else {
            return Self::default();
        };
        let mut failed = seen.guards.iter().filter(|finding| !finding.passed);
        Self {
            nats: seen.metrics.get("nats-live").copied(),
            bad: failed.any(|finding| CONTENT.contains(&finding.name.as_str())),
        }
    }
}

/// How many versions are taken back with a held one. `before`: those that led to what answers, the newest first, each with its own step;
/// none for one that was not measured or that somebody went to on purpose, who trusts it. The oldest is never taken back: the base
/// model again is a person's decision. Within `nats` a reply versions say nearly the same.
pub(crate) fn versions(held: Stride, before: &[Option<f64>], nats: f64) -> usize {
    let Some(mut away) = held.nats.filter(|_| held.bad) else {
        return 0;
    };
    let mut back = 0;
    for step in before.iter().take(before.len().saturating_sub(1)) {
        let Some(step) = step.filter(|_| away < nats && !ledger::mutant::on("held-and-stays"))
        else {
            break;
        };
        away += step;
        back += 1;
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Stride = Stride {
        nats: Some(0.5),
        bad: true,
    };

    #[test]
    fn as_many_versions_go_back_as_are_near_and_never_all() {
        let near = Some(0.5);
        assert_eq!(versions(BAD, &[near, near, near, near, near], 2.0), 3);
        assert_eq!(versions(BAD, &[near, near], 2.0), 1);
        assert_eq!(versions(BAD, &[Some(5.0), near, near], 2.0), 1);
        assert_eq!(versions(BAD, &[], 2.0), 0);
        assert_eq!(versions(BAD, &[near, near], 0.0), 0);
    }

    #[test]
    fn what_is_far_or_not_bad_or_trusted_takes_nothing_with_it() {
        let near = Some(0.5);
        let far = Stride {
            nats: Some(3.0),
            ..BAD
        };
        assert_eq!(versions(far, &[near, near], 2.0), 0);
        assert_eq!(
            versions(Stride { bad: false, ..BAD }, &[near, near], 2.0),
            0
        );
        assert_eq!(
            versions(Stride { nats: None, ..BAD }, &[near, near], 2.0),
            0
        );
        assert_eq!(versions(BAD, &[None, near], 2.0), 0);
        assert_eq!(versions(BAD, &[near, None, near], 2.0), 1);
    }
}
