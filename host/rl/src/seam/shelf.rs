//! Which of the committed versions answers: switched at once, whatever the learner is busy with.

use crate::{PolicyVersion, Result};

/// A committed version's adapter, as the ledger keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its bytes (safetensors, PEFT names).
    pub bytes: &'a [u8],
    /// The content hash that its weights must have, when it is known.
    pub digest: Option<&'a str>,
}

impl<'a> Stored<'a> {
    /// Bytes whose content hash is not known.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            digest: None,
        }
    }

    /// The same, to be refused when its weights have another content hash.
    #[must_use]
    pub fn with_digest(self, digest: &'a str) -> Self {
        Self {
            digest: Some(digest),
            ..self
        }
    }
}

/// Switches what is served, without the learner.
///
/// What the learner trains from does not change: [`crate::Learner::restore`] does that, later.
pub trait Shelf: Send + Sync {
    /// Makes this version live: the next request gets it, and every trial ends. A version that [`Shelf::holds`] needs no
    /// bytes. Nothing changes when it fails.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the bytes are not this model's adapter or have another digest, or none are given for a
    /// version that is not held.
    fn show(&self, version: PolicyVersion, adapter: Option<Stored<'_>>) -> Result<()>;

    /// Makes the weights of `of` live as `version`, when it holds them; says whether it does. The base version's weights are
    /// always held.
    fn show_as(&self, version: PolicyVersion, of: PolicyVersion) -> bool;

    /// Whether this version can be shown without bytes. The base version always can.
    fn holds(&self, version: PolicyVersion) -> bool;

    /// Lets a share of the sessions have this version, until the trial ends or another version is made live. A share is above
    /// 0 and at most 1. Nothing changes when it fails.
    ///
    /// # Errors
    /// As [`Shelf::show`]; a share out of range.
    fn try_out(
        &self,
        version: PolicyVersion,
        adapter: Option<Stored<'_>>,
        share: f64,
    ) -> Result<()>;

    /// Everybody gets what is live. Without a trial nothing happens.
    fn end_trial(&self);

    /// Holds nothing but what is live any more; ends a trial. For an erasure: the weights held may have learned from what was
    /// erased.
    fn forget(&self);
}
