//! A bench: a learner and a policy of their own, away from what is served, on which steps are computed again.
//!
//! The application knows how to make one ([`MakeBench`]); replay and forgetting work on it. It shares nothing with the live
//! learner but the base weights.

use std::{fmt, sync::Arc};

use rl::{Learner, Policy};
use tokio::sync::Mutex;

use crate::records::RunRecord;

/// A learner that nobody is served by, and the policy that answers with its weights.
pub struct Bench {
    /// The learner; it starts from the fresh adapter of the run's seed.
    pub learner: Box<dyn Learner>,
    /// Answers with the base weights, with the learner's live version (under the adapter's name) and with its staged proposal
    /// (under [`rl::candidate_of`] it).
    pub policy: Arc<dyn Policy>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").finish_non_exhaustive()
    }
}

/// Held by whoever computes beside serving and training: a host has memory for one.
pub type Turn = Arc<Mutex<()>>;

/// Makes a bench for a run's settings.
pub type MakeBench = Arc<dyn Fn(&RunRecord) -> rl::Result<Bench> + Send + Sync>;
