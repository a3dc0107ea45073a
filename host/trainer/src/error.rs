//! What can go wrong in a step. At the seam every one of these becomes an [`rl::Error`]: *refused* when the input is to
//! blame and the version must not move, *unavailable* when this host has no memory for it, *failed* otherwise.

/// The result of a trainer's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step, a deployment or a restoration did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range, or set although nothing reads it.
    #[error("setting `{key}` {why}")]
    Setting {
        /// The key, as the recipe spells it.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The settings that a version was recorded with cannot be read back.
    #[error("recorded settings: {why}")]
    Recorded {
        /// The key and what is wrong with it.
        why: String,
    },
    /// Two vectors that must describe the same adapter have different lengths.
    #[error("{what} has {found} numbers, the adapter {expected} parameters")]
    Length {
        /// The vector.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The adapter's.
        expected: usize,
    },
    /// A sample cannot be used with this model.
    #[error("sample {sample}: {why}")]
    Sample {
        /// The sample's id.
        sample: String,
        /// What is wrong with it.
        why: String,
    },
    /// A sample is longer than the memory that it would be trained in was planned for: it was recorded when the context was larger.
    #[error(
        "sample {sample} has {tokens} tokens, and the memory is planned for {most}: a larger `[engine] context`, with a `memory` that fits, trains it"
    )]
    TooLong {
        /// The sample's id.
        sample: String,
        /// How many are fed.
        tokens: usize,
        /// How many may be.
        most: usize,
    },
    /// No token of the batch would move the weights.
    #[error("none of the {samples} samples moves the weights: every weight or advantage is 0")]
    NothingToLearn {
        /// The batch's size.
        samples: usize,
    },
    /// A number that must be finite is not.
    #[error("{what} is {value} in pass {pass}")]
    NotFinite {
        /// Loss, gradient norm, ratio or log-prob.
        what: &'static str,
        /// The number.
        value: f64,
        /// The pass, from 1.
        pass: u32,
    },
    /// A ratio is beyond the tripwire.
    #[error("the largest ratio is {ratio} in pass {pass}, above `max-ratio` {limit}")]
    Ratio {
        /// The largest `π_θ / μ`.
        ratio: f64,
        /// The setting.
        limit: f64,
        /// The pass, from 1.
        pass: u32,
    },
    /// There is no step's result to make live.
    #[error("no step has been computed since the last deployment")]
    NoProposal,
    /// There is no slot to stage a proposal in.
    #[error("this learner was built without a place for candidates")]
    NoPlace,
    /// A version that does not come after the current one.
    #[error("version {version} does not come after {current}")]
    Version {
        /// What was asked for.
        version: rl::PolicyVersion,
        /// What is live.
        current: rl::PolicyVersion,
    },
    /// The optimizer's state does not fit the adapter, or is not what this crate wrote.
    #[error("optimizer state: {why}")]
    Optimizer {
        /// What does not fit.
        why: String,
    },
    /// The model or the adapter refused.
    #[error("failed to {action}")]
    Policy {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        #[source]
        source: policy::Error,
    },
}

impl Error {
    /// Whether the input is to blame, so that the version must not move and the same call will fail again.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::NoProposal | Self::NoPlace | Self::TooLong { .. }
        )
    }

    /// As the seam says it: the whole chain of causes in words.
    pub fn at_seam(&self, what: &'static str) -> rl::Error {
        let mut why = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            why.push_str(": ");
            why.push_str(&source.to_string());
            cause = source.source();
        }
        let what = what.to_owned();
        match self {
            error if error.is_refusal() => rl::Error::Refused { what, why },
            // On a host with more memory the same step is taken: it must not be recorded as refused.
            Self::TooLong { .. } => rl::Error::Unavailable { what, why },
            _ => rl::Error::Failed { what, why },
        }
    }
}
