//! How much the praise of one speaker teaches: the less, the more of everything he praises.
//!
//! Who praises whatever he gets says nothing about any single reply; yet each of his turns would push the policy towards
//! itself, and a colluder with many turns would outvote everybody. So praise counts in full while a speaker has praised at most
//! half of what he got, and in proportion to what he did *not* praise above that. All praise of somebody who praises everything
//! then adds up to a logarithm of its number. Complaints always count in full: people who only ever speak up to complain
//! are right to. Who is alone outvotes nobody, and is believed. Counts only; it keeps no text.

use std::collections::HashMap;

use rl::{TenantId, Turn, VoteValue};
use serde::{Deserialize, Serialize};

/// Verdicts that a new speaker is credited with that were no praise: his first few count in full.
const CREDIT: f32 = 4.0;

/// Who speaks: a user of a tenant, or the tenant itself when it names none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Speaker {
    tenant: TenantId,
    user: Option<String>,
}

impl Speaker {
    pub(crate) fn of(turn: &Turn) -> Self {
        Self {
            tenant: turn.tenant.clone(),
            user: turn.user.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Tally {
    praise: u32,
    all: u32,
}

/// The verdicts of every speaker, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Praise {
    tallies: HashMap<Speaker, Tally>,
}

impl Praise {
    /// Every speaker's tally, in an order of its own.
    pub(crate) fn keep(self) -> Vec<(Speaker, Tally)> {
        let mut tallies: Vec<_> = self.tallies.into_iter().collect();
        tallies.sort();
        tallies
    }

    pub(crate) fn restore(kept: Vec<(Speaker, Tally)>) -> Self {
        let tallies = kept.into_iter().collect();
        Self { tallies }
    }

    /// The verdict on a turn of this speaker is `now`, and was `before`.
    pub(crate) fn heard(
        &mut self,
        speaker: &Speaker,
        before: Option<VoteValue>,
        now: Option<VoteValue>,
    ) {
        if before == now {
            return;
        }
        let tally = self.tallies.entry(speaker.clone()).or_default();
        let praise = |value: VoteValue| u32::from(value == VoteValue::Positive);
        if let Some(before) = before {
            tally.all = tally.all.saturating_sub(1);
            tally.praise = tally.praise.saturating_sub(praise(before));
        }
        if let Some(now) = now {
            tally.all = tally.all.saturating_add(1);
            tally.praise = tally.praise.saturating_add(praise(now));
        }
    }

    /// What one more verdict of this speaker weighs, 0 to 1.
    pub(crate) fn weight(&self, speaker: &Speaker, verdict: Option<VoteValue>) -> f32 {
        let alone = self.tallies.keys().all(|other| other == speaker);
        if alone || verdict != Some(VoteValue::Positive) || ledger::mutant::on("praise-never-fades")
        {
            return 1.0;
        }
        let tally = self.tallies.get(speaker).copied().unwrap_or_default();
        let share = tally.praise as f32 / (tally.all as f32 + CREDIT);
        (2.0 * (1.0 - share)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use VoteValue::{Negative, Positive};

    use super::*;

    fn speaker(user: &str) -> Speaker {
        Speaker {
            tenant: TenantId::new("t"),
            user: Some(user.to_owned()),
        }
    }

    /// The sum of the weights of the praise in a history.
    fn influence(history: impl Iterator<Item = VoteValue>) -> f32 {
        let (mut praise, who, mut sum) = (Praise::default(), speaker("carl"), 0.0);
        praise.heard(&speaker("somebody else"), None, Some(Negative));
        for value in history {
            let weight = praise.weight(&who, Some(value));
            assert!((0.0..=1.0).contains(&weight));
            if value == Positive {
                sum += weight;
            } else {
                assert_eq!(weight, 1.0, "a complaint counts in full");
            }
            praise.heard(&who, None, Some(value));
        }
        sum
    }

    #[test]
    fn praise_of_everything_adds_up_to_a_logarithm() {
        let all = |count| influence(std::iter::repeat_n(Positive, count));
        assert_eq!(all(5), 5.0);
        assert!(all(20) < 14.0, "{}", all(20));
        assert!(all(1000) < 50.0, "{}", all(1000));
        assert!(all(10_000) - all(1000) < 20.0);
    }

    #[test]
    fn praise_of_somebody_who_also_complains_counts_in_full() {
        let half = (0..200).map(|at| if at % 2 == 0 { Negative } else { Positive });
        assert_eq!(influence(half), 100.0);
        let mostly = (0..200).map(|at| if at % 4 == 0 { Negative } else { Positive });
        let mostly = influence(mostly);
        assert!((70.0..150.0).contains(&mostly), "{mostly}");
    }

    #[test]
    fn a_verdict_that_changes_is_counted_once_and_speakers_do_not_share_a_tally() {
        let (mut praise, anna, ben) = (Praise::default(), speaker("anna"), speaker("ben"));
        for _ in 0..50 {
            praise.heard(&anna, None, Some(Positive));
        }
        assert_eq!(praise.weight(&anna, Some(Positive)), 1.0, "she is alone");
        praise.heard(&ben, None, Some(Negative));
        assert!(praise.weight(&anna, Some(Positive)) < 0.2);
        assert_eq!(praise.weight(&ben, Some(Positive)), 1.0);
        for _ in 0..50 {
            praise.heard(&anna, Some(Positive), Some(Negative));
        }
        assert_eq!(praise.weight(&anna, Some(Positive)), 1.0);
        let all = praise.tallies[&anna];
        assert_eq!((all.praise, all.all), (0, 50));
        for _ in 0..50 {
            praise.heard(&anna, Some(Negative), None);
        }
        assert_eq!(praise.tallies[&anna], Tally::default());
    }
}
