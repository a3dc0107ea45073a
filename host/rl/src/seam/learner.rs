//! The optimizer, as the train loop sees it: a batch in, a proposal for the next version out.

use serde::{Deserialize, Serialize};

use crate::{AdapterName, Batch, PolicyVersion, Result, Sample, StepMetrics};

/// What follows an adapter's name in the name of its candidate. Clients cannot ask for such a name.
const CANDIDATE: &str = "@candidate";

/// The name under which a staged proposal of this adapter answers, for the gate's questions.
///
/// ```
/// assert_eq!(rl::candidate_of(&"main".into()).as_str(), "main@candidate");
/// ```
pub fn candidate_of(adapter: &AdapterName) -> AdapterName {
    AdapterName::new(format!("{adapter}{CANDIDATE}"))
}

/// Whether this is the name of a candidate, which no user may be served by.
pub fn is_candidate(adapter: &AdapterName) -> bool {
    adapter.as_str().ends_with(CANDIDATE)
}

/// A step's result, not yet live: it becomes a version when the ledger holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The version that the step started from.
    pub parent: PolicyVersion,
    /// The adapter's bytes (safetensors, PEFT names).
    pub adapter: Vec<u8>,
    /// The optimizer state's bytes.
    pub optimizer: Vec<u8>,
    /// The content hash of the adapter's weights; echoed with every reply that they serve.
    pub adapter_digest: String,
    /// What the step measured.
    pub metrics: StepMetrics,
    /// Every setting that the result depends on.
    pub settings: serde_json::Value,
}

/// The optimizer. One owner; called from one thread.
pub trait Learner: Send {
    /// The version whose weights the next step starts from.
    fn version(&self) -> PolicyVersion;

    /// Computes one step. Nothing is live until [`Learner::deploy`]; a second call without it starts again
    /// from the same weights.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the loss, the gradient or a ratio is not finite, or a sample is
    /// malformed: the version does not move.
    fn step(&mut self, batch: &Batch) -> Result<Proposal>;

    /// Why this host cannot train a sample that a host with more memory could, and what to change; `None` when it can.
    /// Whoever trains sets such a sample aside: [`Learner::step`] would put its whole batch off for ever.
    fn no_room_for(&self, sample: &Sample) -> Option<String> {
        let _ = sample;
        None
    }

    /// Puts the last proposal where it can be asked under the name [`candidate_of`] of its adapter. It is not live, and it
    /// stays the proposal that [`Learner::deploy`] makes live.
    ///
    /// # Errors
    /// [`crate::Error::Failed`] when there is no proposal, or no place for it.
    fn stage(&mut self) -> Result<()>;

    /// Takes the staged proposal away again. Without one nothing happens.
    fn unstage(&mut self);

    /// Makes the last proposal live under this version: one pointer swap between two decode steps.
    ///
    /// # Errors
    /// [`crate::Error::Failed`] when there is no proposal.
    fn deploy(&mut self, version: PolicyVersion) -> Result<()>;

    /// Back to the base model, live under this version: the next step starts from the fresh adapter of the learner's seed.
    ///
    /// # Errors
    /// [`crate::Error::Failed`] when no fresh adapter can be made.
    fn reset(&mut self, version: PolicyVersion) -> Result<()>;

    /// Loads a committed version and makes it live (recovery, revert).
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the bytes do not fit the model.
    fn restore(&mut self, version: PolicyVersion, adapter: &[u8], optimizer: &[u8]) -> Result<()>;
}
