//! A version on trial: a share of the sessions gets it, the others get the live one, and both are compared.
//!
//! As pure as the live guard. Who feeds it switches the share on and off and acts on the decision.

use std::collections::VecDeque;

use rl::{PolicyVersion, Turn, VoteValue};

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

/// A trial.
#[derive(Clone, Debug)]
pub struct Trial {
    candidate: PolicyVersion,
    live: PolicyVersion,
    turns: u64,
    burst: usize,
    in_a_row: usize,
    comparison: Comparison,
    /// Replies of the candidate.
    replies: u64,
    /// Replies and verdicts that wait for one of the other side.
    new: VecDeque<Signs>,
    old: VecDeque<Signs>,
    new_verdicts: VecDeque<bool>,
    old_verdicts: VecDeque<bool>,
    /// Mean length of the live version's replies so far.
    tokens: f64,
    old_replies: u64,
}

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
            replies: 0,
            new: VecDeque::new(),
            old: VecDeque::new(),
            new_verdicts: VecDeque::new(),
            old_verdicts: VecDeque::new(),
            tokens: 0.0,
            old_replies: 0,
        }
    }

    /// The version on trial.
    pub fn candidate(&self) -> PolicyVersion {
        self.candidate
    }

    /// Replies of the candidate so far.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// A turn was served.
    pub fn served(&mut self, turn: &Turn) -> Decision {
        if let Some(signs) = Signs::of(turn) {
            if turn.version == self.candidate {
                self.replies += 1;
                self.in_a_row = match signs.broken {
                    Some(_) => self.in_a_row + 1,
                    None => 0,
                };
                queue(&mut self.new, signs);
            } else if turn.version == self.live {
                self.old_replies += 1;
                self.tokens += (signs.tokens - self.tokens) / self.old_replies as f64;
                queue(&mut self.old, signs);
            }
            while let Some((new, old)) = pair(&mut self.new, &mut self.old) {
                self.comparison.reply(&new, Some((&old, self.tokens)));
            }
        }
        self.decision()
    }

    /// A turn was judged.
    pub fn judged(&mut self, version: PolicyVersion, verdict: VoteValue) -> Decision {
        let negative = verdict == VoteValue::Negative;
        if version == self.candidate {
            queue(&mut self.new_verdicts, negative);
        } else if version == self.live {
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
        if self.replies >= self.turns && self.comparison.replies() > 0 {
            return Decision::Promote;
        }
        Decision::Wait
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
