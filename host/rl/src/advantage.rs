//! Rewards of a group of episodes become advantages (algorithms §6).
//!
//! Pure arithmetic. Does not know where a reward comes from; what follows is [`crate::algorithm`], which turns an
//! advantage into a sample. Start at [`by_turn_index`].

/// Added to the standard deviation, so that nearly equal rewards do not become huge advantages.
const STD_FLOOR: f64 = 1e-6;

/// Standardises by turn index across the group: `A_i = (r_i − mean_i) / (std_i + 1e-6)`.
///
/// `rewards_gt[g][t]` is the reward of turn `t` of episode `g`; episodes may differ in length. A missing reward
/// stays missing and takes no part in the mean. A turn index with one present member, or without spread, has
/// advantage 0 (which is a number: the turn was compared, or could not be, and nothing speaks for or against it).
/// `std` is the sample standard deviation (n − 1), as in `torch.std`. Rewards that are not finite count as missing.
///
/// # Source
/// OpenClaw-RL (arXiv 2603.10165) §3.4. Departs from it for a lone late turn, which there keeps its raw reward.
///
/// ```
/// use rl::advantage::by_turn_index;
/// let a = by_turn_index(&[vec![Some(1.0), Some(5.0)], vec![Some(3.0)], vec![None]]);
/// assert!((a[0][0].unwrap() + std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-5);
/// assert_eq!(a[0][1], Some(0.0)); // alone at its index
/// assert_eq!(a[2][0], None);
/// ```
pub fn by_turn_index(rewards_gt: &[Vec<Option<f32>>]) -> Vec<Vec<Option<f32>>> {
    let longest = rewards_gt.iter().map(Vec::len).max().unwrap_or(0);
    let spreads: Vec<Option<Spread>> = (0..longest)
        .map(|turn| {
            let members = rewards_gt
                .iter()
                .filter_map(|rewards_t| present(*rewards_t.get(turn)?));
            Spread::of(&members.collect::<Vec<f64>>())
        })
        .collect();
    let standardise = |(reward, spread): (&Option<f32>, &Option<Spread>)| {
        let reward = present(*reward)?;
        Some(
            spread
                .as_ref()
                .map_or(0.0, |spread| spread.standardise(reward)),
        )
    };
    rewards_gt
        .iter()
        .map(|rewards_t| rewards_t.iter().zip(&spreads).map(standardise).collect())
        .collect()
}

fn present(reward: Option<f32>) -> Option<f64> {
    reward.filter(|r| r.is_finite()).map(f64::from)
}

/// Mean and standard deviation of the members of one turn index.
struct Spread {
    mean: f64,
    std: f64,
}

impl Spread {
    /// None when fewer than two members differ.
    fn of(members: &[f64]) -> Option<Self> {
        let first = members.first()?;
        if members.iter().all(|member| member == first) {
            return None;
        }
        let n = f64::from(u32::try_from(members.len()).ok()?);
        let mean = members.iter().sum::<f64>() / n;
        let squares: f64 = members.iter().map(|member| (member - mean).powi(2)).sum();
        Some(Self {
            mean,
            std: (squares / (n - 1.0)).sqrt(),
        })
    }

    fn standardise(&self, reward: f64) -> f32 {
        ((reward - self.mean) / (self.std + STD_FLOOR)) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::by_turn_index;

    #[test]
    fn a_group_is_standardised_by_turn_index_and_not_by_episode() {
        let rewards = [
            vec![Some(1.0), Some(0.0)],
            vec![Some(2.0), Some(0.0)],
            vec![Some(3.0), Some(6.0)],
        ];
        let got = by_turn_index(&rewards);
        let want = [
            [-1.0, -0.577_350_3],
            [0.0, -0.577_350_3],
            [1.0, 1.154_700_5],
        ];
        for (got, want) in got.iter().zip(want) {
            for (got, want) in got.iter().zip(want) {
                assert!((got.unwrap() - want).abs() < 1e-5, "{got:?} is not {want}");
            }
        }
    }

    #[test]
    fn a_lone_member_and_zero_spread_have_advantage_zero_and_missing_stays_missing() {
        let got = by_turn_index(&[vec![Some(0.1), Some(0.1)], vec![None, Some(0.1)], vec![]]);
        assert_eq!(
            got,
            [vec![Some(0.0), Some(0.0)], vec![None, Some(0.0)], vec![]]
        );
        assert_eq!(
            by_turn_index(&[vec![Some(f32::NAN), Some(1.0)]]),
            [vec![None, Some(0.0)]]
        );
        assert!(by_turn_index(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn shapes_and_missingness_are_kept_and_each_index_sums_to_zero(
            rewards in prop::collection::vec(
                prop::collection::vec(prop::option::of(-8.0f32..8.0), 0..6), 0..9)
        ) {
            let got = by_turn_index(&rewards);
            prop_assert_eq!(got.len(), rewards.len());
            for (got, rewards) in got.iter().zip(&rewards) {
                prop_assert_eq!(got.len(), rewards.len());
                for (got, reward) in got.iter().zip(rewards) {
                    prop_assert_eq!(got.is_some(), reward.is_some());
                    prop_assert!(got.is_none_or(f32::is_finite));
                }
            }
            for turn in 0..6 {
                let sum: f32 = got.iter().filter_map(|row| *row.get(turn)?).sum();
                prop_assert!(sum.abs() < 1e-3, "index {} sums to {}", turn, sum);
            }
        }

        #[test]
        fn a_better_reward_never_has_a_smaller_advantage(
            rewards in prop::collection::vec(-8.0f32..8.0, 2..9)
        ) {
            let group: Vec<_> = rewards.iter().map(|r| vec![Some(*r)]).collect();
            let got = by_turn_index(&group);
            for (i, a) in rewards.iter().enumerate() {
                for (j, b) in rewards.iter().enumerate() {
                    if a > b {
                        prop_assert!(got[i][0].unwrap() >= got[j][0].unwrap());
                    }
                }
            }
        }
    }
}
