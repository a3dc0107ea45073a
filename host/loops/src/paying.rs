//! Pays hosted episodes whose reward rule sees more than a turn: when all attempts of a group are over and judged, the rule
//! gets them with their outcomes, and every turn of theirs its advantage and its sample, all in one group of records.
//!
//! A kill before that leaves the group to be paid at the next start, after it nothing. Forgotten attempts are not seen. It judges
//! nothing ([`crate::judging`]) and plays nothing ([`crate::rollout`]). Start at [`Purse::pay`].

use std::collections::HashSet;

use ledger::{Ledger, Seq};
use rl::{
    JudgedTurn, NotTrainable, Sees, TurnId, TurnReward, VoteValue,
    algorithm::{Judged, Method},
};

use crate::{
    Error, Result,
    belief::refused,
    judging::{Dossier, Turnwise, sample_of},
    queue::Tail,
    records::{
        self, Attempt, Closing, EpisodeRecord, GROUP, GroupRecord, JUDGED, JudgedRecord, Paid,
        PaidRecord,
    },
    status::Before,
};

/// Groups read at a time.
const READ: usize = 64;

/// A group that is over and not paid yet.
struct Open {
    group: GroupRecord,
    /// A turn that is not judged yet: there is no point in looking again before it is.
    waits_for: Option<TurnId>,
}

/// The groups that are over and not paid yet.
pub(crate) struct Purse {
    turnwise: Turnwise,
    groups: Tail,
    open: Vec<Open>,
}

/// One attempt, with everything that is known of its turns.
struct Member {
    episode: EpisodeRecord,
    turns: Vec<Dossier>,
}

impl Member {
    fn judged_turns(&self) -> Vec<JudgedTurn> {
        self.turns.iter().map(Dossier::judged_turn).collect()
    }

    fn outcome(&self) -> Option<f64> {
        self.episode.outcome.as_ref().map(|outcome| outcome.score)
    }
}

/// What a rule made of a group: one entry an attempt, in it one a turn.
struct Ruled {
    rewards: Vec<Vec<TurnReward>>,
    advantages: Vec<Vec<Option<f32>>>,
}

impl Purse {
    /// Reads the groups from the beginning: those that are paid are told by their records.
    pub(crate) fn new(turnwise: Turnwise) -> Self {
        let groups = Tail::new(turnwise.parts.ledger.clone(), "judge", GROUP, Seq::FIRST);
        Self {
            turnwise,
            groups,
            open: Vec::new(),
        }
    }

    /// Reads the groups that ended since.
    pub(crate) async fn read(&mut self) -> Result<()> {
        loop {
            let records = self.groups.take(READ).await?;
            if records.is_empty() {
                return Ok(());
            }
            let ledger = self.turnwise.parts.ledger.clone();
            let unpaid = move || {
                let mut unpaid = Vec::new();
                for record in records {
                    let group: GroupRecord = records::decode(&record)?;
                    let paid = ledger
                        .by_key(&records::paid_key(&group.group))
                        .map_err(Error::ledger("judge", "look up a payment"))?;
                    if paid.is_none() {
                        unpaid.push(group);
                    }
                }
                Ok::<_, Error>(unpaid)
            };
            let unpaid =
                tokio::task::spawn_blocking(unpaid)
                    .await
                    .map_err(|_| Error::Panicked {
                        what: "looking up payments".to_owned(),
                    })??;
            let open = |group| Open {
                group,
                waits_for: None,
            };
            self.open.extend(unpaid.into_iter().map(open));
        }
    }

    /// A turn was judged: its group may be due.
    pub(crate) fn judged(&mut self, turn: &TurnId) {
        for open in &mut self.open {
            if open.waits_for.as_ref() == Some(turn) {
                open.waits_for = None;
            }
        }
    }

    /// Pays what is due. Turns that are being judged at this moment (`busy`) are waited for.
    pub(crate) async fn pay(&mut self, busy: &HashSet<TurnId>) -> Result<()> {
        for open in std::mem::take(&mut self.open) {
            if open.waits_for.is_some() {
                self.open.push(open);
                continue;
            }
            let group = open.group;
            let waits_for = loop {
                match self.pay_group(&group, busy).await {
                    // Something of it was forgotten since it was read: what is left is paid otherwise.
                    Err(error) if error.is_erased() => {}
                    paid => break paid?,
                }
            };
            if waits_for.is_some() {
                self.open.push(Open { group, waits_for });
            }
        }
        Ok(())
    }

    /// Pays a group, or gives the turn that it waits for.
    async fn pay_group(
        &self,
        group: &GroupRecord,
        busy: &HashSet<TurnId>,
    ) -> Result<Option<TurnId>> {
        let (ledger, of) = (self.turnwise.parts.ledger.clone(), group.clone());
        let gathered = tokio::task::spawn_blocking(move || gather(&ledger, &of))
            .await
            .map_err(|_| Error::Panicked {
                what: "reading a group's records".to_owned(),
            })??;
        let turns = gathered.iter().flatten().flat_map(|m| &m.episode.turns);
        let being_judged = turns.into_iter().find(|turn| busy.contains(*turn));
        match (being_judged.cloned(), gathered) {
            (None, Ok(members)) => {
                Self::settle(&self.turnwise.of_this_moment(), group, members).await?;
                Ok(None)
            }
            (Some(turn), _) | (None, Err(turn)) => Ok(Some(turn)),
        }
    }

    async fn settle(turnwise: &Turnwise, group: &GroupRecord, members: Vec<Member>) -> Result<()> {
        let parts = &turnwise.parts;
        let ruled = ask(turnwise, &members).await;
        let equal = parts.config.drop_equal_groups && equal_outcomes(&members);
        let mut paid = PaidRecord {
            group: group.group.clone(),
            rule: parts.rule.name(),
            attempts: Vec::new(),
            why: ruled.as_ref().err().map(ToString::to_string),
        };
        if let Err(error) = &ruled {
            tracing::warn!(group = group.group, %error, "the reward rule failed");
            parts.board.plugin_failed("reward");
        }
        let mut decided = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            let outcome = member.outcome();
            let (rewards, advantages) = match &ruled {
                Ok(ruled) => (&*ruled.rewards[index], &*ruled.advantages[index]),
                Err(_) => (&[][..], &[][..]),
            };
            paid.attempts.push(Attempt {
                episode: member.episode.episode.clone(),
                outcome,
                turns: member.episode.turns,
                rewards: rewards.iter().map(|reward| reward.reward).collect(),
                advantages: advantages.to_vec(),
            });
            for (turn, dossier) in member.turns.into_iter().enumerate() {
                let known = Paid {
                    group: group.group.clone(),
                    outcome,
                    advantage: advantages.get(turn).copied().flatten(),
                };
                let reward = rewards.get(turn).copied();
                let why = paid.why.as_deref();
                decided.extend(turn_paid(turnwise, dossier, known, reward, (equal, why)));
            }
        }
        let mut entries = vec![paid.to_entry()?];
        for (record, _) in &decided {
            entries.push(record.to_entry()?);
        }
        let receipts = parts
            .ledger
            .append_all(entries)
            .await
            .map_err(Error::ledger("judge", "record a payment"))?;
        for ((record, dossier), receipt) in decided.iter().zip(&receipts[1..]) {
            let before = dossier.before();
            if record.sample.is_some() {
                parts.board.train.added((JUDGED, receipt.seq));
            }
            if let Some(served) = &dossier.record {
                parts.board.judged(record, &served.turn.session, before);
            }
        }
        tracing::debug!(group = group.group, turns = decided.len(), "paid a group");
        Ok(())
    }
}

/// What a turn is paid; none for a turn that was decided otherwise, or never can be trained.
fn turn_paid(
    turnwise: &Turnwise,
    dossier: Dossier,
    paid: Paid,
    reward: Option<TurnReward>,
    (equal, failed): (bool, Option<&str>),
) -> Option<(JudgedRecord, Dossier)> {
    let served = dossier.record.as_ref()?;
    let awaits = |judged: &JudgedRecord| {
        judged.paid.is_none() && judged.not_trainable == Some(NotTrainable::AwaitsGroup)
    };
    if served.not_trainable.is_some() || dossier.is_spent() {
        return None;
    }
    let earlier = match (dossier.judged(), &dossier.closing) {
        (Some(judged), _) if awaits(judged) => Some(judged.clone()),
        // The last turn of an episode: nothing reacts to it, and the outcome is about it all the same. A turn that was orphaned or
        // cancelled is no part of what was played.
        (None, Some(Closing::Without(NotTrainable::NoNextState))) => None,
        _ => return None,
    };
    let parts = &turnwise.parts;
    let revision = earlier.as_ref().map_or(0, |judged| judged.revision + 1);
    let mut record = earlier.unwrap_or_else(|| turnwise.unjudged(&served.turn.id));
    record.revision = revision;
    record.rule = parts.rule.name();
    record.reward = reward;
    let advantage = paid.advantage;
    record.paid = Some(paid);
    let judged = Judged {
        turn: &served.turn,
        reward: advantage,
        rl_weight: reward.map_or(0.0, |reward| reward.rl_weight),
        opd_weight: reward.map_or(0.0, |reward| reward.opd_weight),
        teachers: record.teachers.clone(),
    };
    (record.sample, record.not_trainable) = match failed {
        Some(why) => {
            record.notes.push(format!("no reward: {why}"));
            (None, Some(NotTrainable::RewardRefused))
        }
        None if equal => (None, Some(NotTrainable::NoAdvantage)),
        None => match sample_of(&*parts.rule, &parts.algorithm, &judged) {
            Ok((None, _)) if advantage == Some(0.0) && judged_by_reward(parts) => {
                (None, Some(NotTrainable::NoAdvantage))
            }
            Ok(sample) => sample,
            Err(error) => {
                record.notes.push(format!("no advantages: {error}"));
                (None, Some(NotTrainable::RewardRefused))
            }
        },
    };
    Some((record, dossier))
}

/// The rule's word on the whole group, checked.
async fn ask(turnwise: &Turnwise, members: &[Member]) -> rl::Result<Ruled> {
    let rule = turnwise.parts.rule.clone();
    let trajectories: Vec<_> = members
        .iter()
        .map(|member| (member.judged_turns(), member.outcome()))
        .collect();
    turnwise
        .rule
        .call("the reward rule", move |_| {
            let mut rewards = Vec::with_capacity(trajectories.len());
            for (turns, outcome) in &trajectories {
                let paid = rule.turn_rewards(turns, *outcome)?;
                if paid.len() != turns.len() || !paid.iter().all(is_finite) {
                    let why = format!("{} usable rewards for {} turns", paid.len(), turns.len());
                    return Err(refused(why));
                }
                rewards.push(paid);
            }
            let bare = |paid: &Vec<TurnReward>| paid.iter().map(|one| one.reward).collect();
            let rewards_gt: Vec<Vec<Option<f32>>> = rewards.iter().map(bare).collect();
            let advantages = match rule.sees() {
                Sees::Group => rule.advantages(&rewards_gt)?,
                Sees::Turn | Sees::Episode => rewards_gt
                    .iter()
                    .map(|one| {
                        let mut alone = rule.advantages(std::slice::from_ref(one))?;
                        alone
                            .pop()
                            .ok_or_else(|| refused("no advantages".to_owned()))
                    })
                    .collect::<rl::Result<_>>()?,
            };
            let shape = |group: &[Vec<Option<f32>>]| {
                let turns = group.iter().map(|turns| turns.iter().map(Option::is_some));
                turns.map(Iterator::collect).collect::<Vec<Vec<bool>>>()
            };
            let mut numbers = advantages.iter().flatten().flatten();
            if shape(&advantages) != shape(&rewards_gt) || !numbers.all(|a| a.is_finite()) {
                let why = "advantages that are not finite, or not one a reward".to_owned();
                return Err(refused(why));
            }
            Ok(Ruled {
                rewards,
                advantages,
            })
        })
        .await
}

fn judged_by_reward(parts: &crate::judge::Parts) -> bool {
    matches!(parts.algorithm.method, Method::Binary | Method::Combined)
}

fn is_finite(reward: &TurnReward) -> bool {
    let numbers = [
        reward.reward.unwrap_or(0.0),
        reward.rl_weight,
        reward.opd_weight,
    ];
    numbers.iter().all(|number| number.is_finite())
        && reward.rl_weight >= 0.0
        && reward.opd_weight >= 0.0
}

fn equal_outcomes(members: &[Member]) -> bool {
    let mut outcomes = members.iter().map(Member::outcome);
    let first = outcomes.next();
    first.is_some_and(|first| outcomes.all(|outcome| outcome == first))
}

/// The attempts of a group with their turns, or the first turn that is not judged yet. An attempt of which something was forgotten
/// is left out.
fn gather(
    ledger: &Ledger,
    group: &GroupRecord,
) -> Result<std::result::Result<Vec<Member>, TurnId>> {
    let mut members = Vec::with_capacity(group.episodes.len());
    for episode in &group.episodes {
        let record = ledger
            .by_key(&records::episode_key(episode))
            .map_err(Error::ledger("judge", "read an episode"))?;
        let Some(record) = record.filter(|record| !record.erased) else {
            continue;
        };
        let episode: EpisodeRecord = records::decode(&record)?;
        let mut turns = Vec::with_capacity(episode.turns.len());
        for turn in &episode.turns {
            let dossier = Dossier::load(ledger, turn)?;
            if !dossier.is_settled() {
                return Ok(Err(turn.clone()));
            }
            turns.push(dossier);
        }
        if turns.iter().all(|dossier| dossier.record.is_some()) {
            members.push(Member { episode, turns });
        }
    }
    Ok(Ok(members))
}

impl Dossier {
    /// Whether nothing more is to be heard about it: it is judged, never will be, or is forgotten.
    fn is_settled(&self) -> bool {
        let Some(record) = &self.record else {
            return true;
        };
        record.not_trainable.is_some()
            || self.judged().is_some()
            || matches!(self.closing, Some(Closing::Without(_)))
    }

    /// The turn as a reward rule sees it.
    pub(crate) fn judged_turn(&self) -> JudgedTurn {
        let votes = self.judged().map_or(&[][..], |judged| &judged.votes);
        let turn = self.record.as_ref().map(|record| &record.turn);
        JudgedTurn {
            verdict: self.judged().and_then(|judged| judged.verdict),
            process: mean(votes.iter().filter_map(|vote| vote.value)),
            tokens: turn.map_or(0, |turn| {
                u32::try_from(turn.response.len()).unwrap_or(u32::MAX)
            }),
            cut: turn.is_some_and(|turn| turn.finish == rl::FinishReason::Length),
        }
    }

    /// How the turn was counted before it was paid.
    fn before(&self) -> Before {
        match (self.judged(), &self.closing) {
            (Some(judged), _) => Before {
                reason: judged.not_trainable,
                sample: judged.sample.is_some(),
            },
            (None, Some(Closing::Without(reason))) => Before {
                reason: Some(*reason),
                sample: false,
            },
            _ => Before::default(),
        }
    }
}

/// The process reward of algorithms §6: the mean of the votes that are present.
pub(crate) fn mean(values: impl Iterator<Item = VoteValue>) -> Option<f32> {
    let signs: Vec<f32> = values.map(VoteValue::sign).collect();
    let count = signs.len();
    (count > 0).then(|| signs.iter().sum::<f32>() / count as f32)
}
