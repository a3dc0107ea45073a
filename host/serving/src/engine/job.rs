//! What the engine is asked, what it answers, and how it refuses.
//!
//! Data only. The queue that holds jobs is [`super::queue`]; who computes them is [`super::step`].

use std::sync::Arc;

use rl::{AdapterName, FinishReason, PolicyVersion, Sampling, TenantId, TokenId, Weights};

/// Who waits for a job. Users go first: a judge never makes somebody wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// A request of the gateway.
    User,
    /// A loop's own work: votes, hints, teacher log-probs, rollouts.
    Loop,
}

/// Tokens, please.
#[derive(Clone, Debug)]
pub struct SampleJob {
    /// Which weights; the newest version is read when the job starts and kept until it ends.
    pub weights: Weights,
    /// The session's place among all, which decides whether it takes part in a trial ([`policy::Slot::load_for`]);
    /// [`policy::NO_BUCKET`] takes part in none.
    pub bucket: u64,
    /// The prompt's ids.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Alternatives reported with each token.
    pub top_logprobs: usize,
}

/// A job that left the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The version that serves it, to its end.
    pub version: PolicyVersion,
    /// The adapter's content hash; empty for the base weights.
    pub adapter_digest: Arc<str>,
    /// Prompt tokens whose keys and values were copied from an earlier sequence that has ended. One that still runs may give more.
    pub reused: usize,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Its log-prob at the sampling temperature, before truncation.
    pub logprob: f32,
    /// The most likely tokens at this position, best first.
    pub top: Vec<(TokenId, f32)>,
    /// Text that became certain with this token: may be empty, may hold earlier tokens' bytes.
    pub text: String,
    /// Whether it ends the reply and is not part of its text.
    pub is_stop: bool,
}

/// What happens to a sample job.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It left the queue.
    Started(Started),
    /// A token was sampled.
    Token(Token),
    /// It is complete. `text` was held back until now: it could have been the beginning of a stop text.
    Done {
        /// Why it ended.
        finish: FinishReason,
        /// The rest of the text.
        text: String,
    },
    /// It cannot be completed.
    Failed(Refusal),
}

/// Why a job is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The prompt leaves no room for a reply.
    #[error(
        "the prompt has {prompt} tokens, but this host holds at most {context} of prompt and reply together"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most tokens of prompt and reply.
        context: usize,
    },
    /// The job cannot be computed.
    #[error("the request cannot be computed: {why}")]
    Invalid {
        /// What is wrong with it.
        why: String,
    },
    /// Nobody deployed this adapter.
    #[error("there is no adapter `{name}`")]
    UnknownAdapter {
        /// What was asked for.
        name: AdapterName,
    },
    /// Too many jobs wait.
    #[error("{waiting} requests wait already; try again shortly")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// Too many jobs of this tenant wait.
    #[error("{waiting} requests of `{tenant}` wait already; try again shortly")]
    TenantFull {
        /// Whose.
        tenant: TenantId,
        /// How many.
        waiting: usize,
    },
    /// It waited for its turn longer than it may.
    #[error("the request waited {seconds} s for its turn; try again shortly")]
    WaitedTooLong {
        /// How long, in seconds.
        seconds: u64,
    },
    /// The host is stopping.
    #[error("the host is stopping; try again shortly")]
    Draining,
    /// The engine broke.
    #[error("the engine failed: {why}")]
    Stopped {
        /// The cause.
        why: String,
    },
}

impl From<Refusal> for rl::Error {
    fn from(refusal: Refusal) -> Self {
        let what = "engine".to_owned();
        let why = refusal.to_string();
        match refusal {
            Refusal::PromptTooLong { .. }
            | Refusal::Invalid { .. }
            | Refusal::UnknownAdapter { .. } => Self::Refused { what, why },
            Refusal::QueueFull { .. } | Refusal::TenantFull { .. } | Refusal::Draining => {
                Self::Unavailable { what, why }
            }
            // Its caller has waited already, and may not want to do so again.
            Refusal::WaitedTooLong { seconds } => Self::TimedOut {
                what: "the engine's queue".to_owned(),
                limit_ms: seconds.saturating_mul(1_000),
            },
            Refusal::Stopped { .. } => Self::Failed { what, why },
        }
    }
}
