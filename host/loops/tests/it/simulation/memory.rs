//! What the world outside of the host knows: what it sent, what it was told, and what it saw. The checks compare it with
//! the ledger.

use std::collections::{BTreeMap, BTreeSet};

use ledger::lineage::RefRecord;
use loops::{forget::Selector, orders::Done};
use rl::{Feedback, Message, TurnId};

/// A turn that was begun.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) user: String,
    pub(super) session: String,
    /// The turn that its history ends with.
    pub(super) after: Option<TurnId>,
    pub(super) messages: Vec<Message>,
    pub(super) reply: String,
    /// Its end was sent: it may be in the ledger.
    pub(super) finished: bool,
    /// And acknowledged: it is.
    pub(super) answered: bool,
}

/// Something asked of the train loop.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) what: Request,
    /// For a move: the reason that is recorded with it, which no other has.
    pub(super) why: String,
    /// What was answered, when it was.
    pub(super) done: Option<Done>,
    /// Turns that were there when it was asked: what is forgotten at least.
    pub(super) known: BTreeSet<TurnId>,
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Revert(u64),
    Promote(u64),
    Name(RefRecord),
    Forget(Selector),
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) turns: BTreeMap<TurnId, Sent>,
    /// What was said in each conversation, whether or not a request got through with it.
    pub(super) said: BTreeMap<String, BTreeSet<String>>,
    /// In the order of their answers.
    pub(super) answered: Vec<TurnId>,
    /// Turns whose next state was brought by a request that was let in.
    pub(super) closed: BTreeSet<TurnId>,
    /// Feedback, and whether it was acknowledged.
    pub(super) feedback: Vec<(Feedback, bool)>,
    pub(super) asked: Vec<Asked>,
    /// The weights of versions that were seen live.
    pub(super) live: BTreeMap<u64, Vec<u8>>,
    /// What happened, in words.
    pub(super) trace: Vec<String>,
    pub(super) counts: BTreeMap<String, u64>,
}

impl Memory {
    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Whether a request to forget that was ever made means this turn.
    pub(super) fn may_be_forgotten(&self, turn: &TurnId) -> bool {
        self.asked
            .iter()
            .any(|asked| matches!(&asked.what, Request::Forget(whom) if self.means(whom, turn)))
    }

    /// Whether a selector means a turn.
    pub(super) fn means(&self, whom: &Selector, turn: &TurnId) -> bool {
        let Some(sent) = self.turns.get(turn) else {
            return false;
        };
        match whom {
            Selector::User { user, .. } => sent.user == *user,
            Selector::Session { session, .. } => sent.session == session.as_str(),
            Selector::Sample(sample) => {
                let mut at = Some(turn);
                while let Some(id) = at {
                    if format!("sample-{id}") == sample.as_str() {
                        return true;
                    }
                    at = self.turns.get(id).and_then(|sent| sent.after.as_ref());
                }
                false
            }
            Selector::Tenant(_) => true,
        }
    }
}
