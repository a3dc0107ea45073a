//! A version on trial: a share of the sessions gets it, the others get the live one, and both are compared.
//!
//! As pure as the live guard. Who feeds it switches the share on and off and acts on the decision.

use std::collections::VecDeque;

use rl::{PolicyVersion, Turn, VoteValue};
use serde::{Deserialize, Serialize};

use super::{
    compare::{Comparison, Signs},
    config::{GuardConfig, StageConfig},
};

/// Replies of one side that wait for their pair; older ones go first. The smaller side is what is learned from.
const WAITING: usize = 256;

/// What is to be done with the version on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not enough was seen.
    Wait,
    /// It is no worse over the turns that were asked for: make it live.
    Promote,
    /// It is worse, and how.
    Reject(String),
}

/// What one side of a trial has shown, paired or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Side {
    /// Replies.
    pub replies: u64,
    /// Of these, broken ones.
    pub broken: u64,
    /// Of these, cut off by a limit.
    pub cut_off: u64,
    /// Mean share of repeated phrases.
    pub repetition: f64,
    /// Mean tokens of a reply.
    pub tokens: f64,
    /// Verdicts.
    pub verdicts: u64,
    /// Of these, negative ones.
    pub negative: u64,
}

impl Side {
    fn reply(&mut self, signs: &Signs) {
        self.replies += 1;
        self.broken += u64::from(signs.broken.is_some());
        self.cut_off += u64::from(signs.cut_off);
        let count = self.replies as f64;
        self.repetition += (signs.repetition - self.repetition) / count;
        self.tokens += (signs.tokens - self.tokens) / count;
    }

    fn verdict(&mut self, negative: bool) {
        self.verdicts += 1;
        self.negative += u64::from(negative);
    }
}

/// A trial that is over, and what both sides have shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ended {
    /// The version that was on trial.
    pub version: PolicyVersion,
    /// The one that answered everybody else.
    pub against: PolicyVersion,
    /// Whether it answers everybody from now on.
    pub promoted: bool,
    /// Why, in words.
    pub why: String,
    /// The candidate's replies and verdicts.
    pub candidate: Side,
    /// The live version's, since the trial began.
    pub live: Side,
}

/// A trial.
#[derive(Clone, Debug)]
pub struct Trial {
    candidate: PolicyVersion,
    live: PolicyVersion,
    turns: u64,
    burst: usize,
    in_a_row: usize,
    comparison: Comparison,
    /// What the two have shown.
    shown: [Side; 2],
    /// Replies and verdicts that wait for one of the other side.
    new: VecDeque<Signs>,
    old: VecDeque<Signs>,
    new_verdicts: VecDeque<bool>,
    old_verdicts: VecDeque<bool>,
}

const CANDIDATE: usize = 0;
const LIVE: usize = 1;

impl Trial {
    /// A trial of `candidate` beside `live`. The limits are the live guard's.
    pub fn new(
        stage: &StageConfig,
        guard: &GuardConfig,
        candidate: PolicyVersion,
        live: PolicyVersion,
    ) -> Self {
        Self {
            candidate,
            live,
            turns: stage.turns,
            burst: guard.burst,
            in_a_row: 0,
            comparison: Comparison::new(guard),
            shown: [Side::default(); 2],
            new: VecDeque::new(),
            old: VecDeque::new(),
            new_verdicts: VecDeque::new(),
            old_verdicts: VecDeque::new(),
        }
    }

    /// The version on trial.
    pub fn candidate(&self) -> PolicyVersion {
        self.candidate
    }

    /// Replies of the candidate so far.
    pub fn replies(&self) -> u64 {
        self.shown[CANDIDATE].replies
    }

    /// A turn was served.
    pub fn served(&mut self, turn: &Turn) -> Decision {
        if let Some(signs) = Signs::of(turn) {
            if turn.version == self.candidate {
                self.shown[CANDIDATE].reply(&signs);
                self.in_a_row = match signs.broken {
                    Some(_) => self.in_a_row + 1,
                    None => 0,
                };
                queue(&mut self.new, signs);
            } else if turn.version == self.live {
                self.shown[LIVE].reply(&signs);
                queue(&mut self.old, signs);
            }
            while let Some((new, old)) = pair(&mut self.new, &mut self.old) {
                let usual = self.shown[LIVE].tokens;
                self.comparison.reply(&new, Some((&old, usual)));
            }
        }
        self.decision()
    }

    /// A turn was judged.
    pub fn judged(&mut self, version: PolicyVersion, verdict: VoteValue) -> Decision {
        let negative = verdict == VoteValue::Negative;
        if version == self.candidate {
            self.shown[CANDIDATE].verdict(negative);
            queue(&mut self.new_verdicts, negative);
        } else if version == self.live {
            self.shown[LIVE].verdict(negative);
            queue(&mut self.old_verdicts, negative);
        }
        while let Some((new, old)) = pair(&mut self.new_verdicts, &mut self.old_verdicts) {
            self.comparison.verdict(new, Some(old));
        }
        self.decision()
    }

    /// What follows from everything so far.
    pub fn decision(&self) -> Decision {
        if let Some(found) = self.comparison.found() {
            return Decision::Reject(format!("{}: {}", found.guard, found.why));
        }
        if self.in_a_row >= self.burst {
            return Decision::Reject(format!("burst: {} broken replies in a row", self.in_a_row));
        }
        // Without a pair nothing was compared, however much was served.
        if self.replies() >= self.turns && self.comparison.replies() > 0 {
            return Decision::Promote;
        }
        Decision::Wait
    }

    /// The end, when there is a decision.
    pub fn ended(&self) -> Option<Ended> {
        let (promoted, why) = match self.decision() {
            Decision::Wait => return None,
            Decision::Promote => (
                true,
                format!("no worse in {} pairs of replies", self.comparison.replies()),
            ),
            Decision::Reject(why) => (false, why),
        };
        Some(Ended {
            version: self.candidate,
            against: self.live,
            promoted,
            why,
            candidate: self.shown[CANDIDATE],
            live: self.shown[LIVE],
        })
    }
}

fn queue<T>(waiting: &mut VecDeque<T>, item: T) {
    if waiting.len() >= WAITING {
        waiting.pop_front();
    }
    waiting.push_back(item);
}

fn pair<T>(new: &mut VecDeque<T>, old: &mut VecDeque<T>) -> Option<(T, T)> {
    if new.is_empty() || old.is_empty() {
        return None;
    }
    new.pop_front().zip(old.pop_front())
}
