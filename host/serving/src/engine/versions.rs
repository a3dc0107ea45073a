//! Which versions of trained adapters running sequences hold, and who may hold one more.
//!
//! A sequence keeps the weights that it began with, so that a version that is long replaced stays in memory while a reply of it runs. Where
//! training is fast and replies are long, each of them could hold another one; the plan of a host's memory counts `max-versions`.

use std::sync::Arc;

use policy::{Adapter, Deployed};
use rl::PolicyVersion;

use super::job::Priority;
use super::sequence::Sequence;

/// Places that users leave to the loops: the gate asks a version that nobody is served by yet, and training waits for its answers.
const FOR_LOOPS: usize = 1;

/// What running sequences hold. An adapter is known by its place in memory, which is its own while a sequence holds it.
pub(super) struct Held {
    all: Vec<*const Adapter>,
    by_users: Vec<*const Adapter>,
    most: usize,
}

impl Held {
    /// Of these sequences, which may hold `most` versions.
    pub(super) fn by(live: &[Sequence], most: usize) -> Self {
        let mut held = Self {
            all: Vec::new(),
            by_users: Vec::new(),
            most,
        };
        for sequence in live {
            let weights = &sequence.weights;
            let Some(own) = trained(weights.version, weights.adapter.as_ref()) else {
                continue;
            };
            add(&mut held.all, own);
            if sequence.priority == Priority::User {
                add(&mut held.by_users, own);
            }
        }
        held
    }

    /// Whether a sequence of this priority may begin with these weights.
    pub(super) fn has_place(&self, next: &Deployed, priority: Priority) -> bool {
        let Some(next) = trained(next.version, next.adapter.as_ref()) else {
            return true;
        };
        let room = |held: &[_], most| held.contains(&next) || held.len() < most;
        let for_users = self.most.saturating_sub(FOR_LOOPS);
        room(&self.all, self.most)
            && (priority == Priority::Loop || room(&self.by_users, for_users))
    }
}

fn add(held: &mut Vec<*const Adapter>, own: *const Adapter) {
    if !held.contains(&own) {
        held.push(own);
    }
}

/// Which one it is. An adapter that is served and not trained has no version, and is in memory whether or not it is used.
fn trained(version: PolicyVersion, adapter: Option<&Arc<Adapter>>) -> Option<*const Adapter> {
    adapter
        .filter(|_| version != PolicyVersion::BASE)
        .map(Arc::as_ptr)
}
