//! Evidence that may be looked at after every observation: betting against "it is no worse".
//!
//! Pure arithmetic on pairs; no clock, no I/O, only products and sums, so that equal inputs give equal bits. The gate and the
//! live guard compare something new with what it would replace, again and again. A test with a fixed number of looks would
//! raise false alarms for certain if only it ran long enough; a bettor's wealth does not.
//!
//! # Source
//! Waudby-Smith & Ramdas 2020 ("Estimating means of bounded random variables by betting", arXiv 2010.09686): with stakes
//! `λ` that keep `1 + λx` non-negative, wealth `Π (1 + λ x_i)` is a supermartingale while the mean of every `x`, given what
//! came before, is at most 0. By Ville's inequality it ever reaches `1 / α` with probability at most `α`. Departs from it: fixed
//! stakes, averaged, instead of adaptive ones (Robbins' mixture), and, in [`Wealth::in_rounds`], starting times averaged,
//! too, so that a decline after a long good time is still found.

use serde::{Deserialize, Serialize};

/// Shares of the largest stake that can never be lost whole. Small ones find small differences, large ones find disasters soon.
const STAKES: [f64; 4] = [0.15, 0.35, 0.6, 0.9];

/// A bettor's wealth; begins at 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wealth {
    /// What is bet, one sum a stake.
    bet: [f64; STAKES.len()],
    /// What is kept for later rounds.
    reserve: f64,
    rounds: u32,
}

impl Wealth {
    /// Everything is bet from the first observation on.
    pub fn at_once() -> Self {
        Self {
            bet: [1.0; STAKES.len()],
            reserve: 0.0,
            rounds: 0,
        }
    }

    /// Round `j` begins with `1 / (j (j + 1))` of the first wealth fresh on the table; all rounds together bet 1.
    pub fn in_rounds() -> Self {
        Self {
            bet: [0.0; STAKES.len()],
            reserve: 1.0,
            rounds: 0,
        }
    }

    /// Puts the next round's share on the table. Without rounds nothing happens.
    pub fn begin_round(&mut self) {
        if self.reserve == 0.0 {
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        let round = f64::from(self.rounds);
        let fresh = 1.0 / (round * (round + 1.0));
        self.reserve = 1.0 / (round + 1.0);
        self.bet.iter_mut().for_each(|bet| *bet += fresh);
    }

    /// Sees how bad (0 to 1) the new one was and how bad the old one; a mean difference up to `tolerance` (0 to 1) is no
    /// evidence.
    pub fn see(&mut self, new: f64, old: f64, tolerance: f64) {
        let difference = new.clamp(0.0, 1.0) - old.clamp(0.0, 1.0) - tolerance;
        for (bet, stake) in self.bet.iter_mut().zip(STAKES) {
            *bet *= 1.0 + stake / (1.0 + tolerance) * difference;
        }
    }

    /// The wealth. At `1 / α` or more, "it is no worse" is given up at level `α`.
    pub fn value(&self) -> f64 {
        self.bet.iter().sum::<f64>() / STAKES.len() as f64 + self.reserve
    }
}

#[cfg(test)]
mod tests {
    use rl::Seed;

    use super::*;

    /// A fixed source of coin flips.
    struct Coins(Seed, u64);

    impl Coins {
        fn flip(&mut self, probability: f64) -> f64 {
            self.1 += 1;
            let place = self.0.derive(&self.1.to_string()).get() as f64 * 2f64.powi(-64);
            f64::from(u8::from(place < probability))
        }
    }

    /// The look at which the wealth reached `1 / alpha`, for each of `runs` seeded histories.
    fn alarms(
        runs: u64,
        looks: usize,
        start: fn() -> Wealth,
        new: impl Fn(usize) -> f64,
        old: f64,
    ) -> Vec<usize> {
        let alpha = 0.05;
        let run = |seed| {
            let mut coins = Coins(Seed::new(seed).derive("evidence"), 0);
            let mut wealth = start();
            (0..looks).find(|look| {
                if look % 8 == 0 {
                    wealth.begin_round();
                }
                let (new, old) = (coins.flip(new(*look)), coins.flip(old));
                wealth.see(new, old, 0.1);
                wealth.value() >= 1.0 / alpha
            })
        };
        (0..runs).filter_map(run).collect()
    }

    #[test]
    fn equal_quality_raises_false_alarms_at_most_at_the_level_over_all_looks_together() {
        for start in [Wealth::at_once, Wealth::in_rounds] {
            // Exactly at the edge of the tolerance, where alarms are most likely.
            let alarms = alarms(400, 400, start, |_| 0.4, 0.3);
            assert!(alarms.len() <= 20, "{} of 400 at level 0.05", alarms.len());
        }
    }

    #[test]
    fn a_disaster_is_found_within_a_dozen_pairs_and_a_decline_within_a_hundred() {
        let soon = alarms(50, 12, Wealth::at_once, |_| 0.98, 0.05);
        assert!(soon.len() >= 48, "{} of 50", soon.len());
        let slow = alarms(50, 100, Wealth::at_once, |_| 0.65, 0.2);
        assert!(slow.len() >= 45, "{} of 50", slow.len());
    }

    #[test]
    fn a_decline_after_a_long_good_time_is_found_by_the_rounds() {
        let late = |look: usize| if look < 400 { 0.1 } else { 0.9 };
        let found = alarms(50, 460, Wealth::in_rounds, late, 0.2);
        assert!(found.len() >= 48, "{} of 50", found.len());
        assert!(found.iter().all(|look| *look >= 400), "{found:?}");
        let blind = alarms(50, 460, Wealth::at_once, late, 0.2);
        assert!(blind.len() < found.len(), "{} of 50", blind.len());
    }

    #[test]
    fn wealth_is_the_same_after_it_was_written_and_read() {
        let mut wealth = Wealth::in_rounds();
        for look in 0..40 {
            wealth.begin_round();
            wealth.see(f64::from(look % 3 == 0), f64::from(look % 2), 0.1);
        }
        let read: Wealth = serde_json::from_str(&serde_json::to_string(&wealth).unwrap()).unwrap();
        assert_eq!(read.value().to_bits(), wealth.value().to_bits());
    }
}
