//! What is served, switched without the learner: it may be in the middle of a step that takes seconds.

use crate::{AdapterName, PolicyVersion, Result};

/// The adapter name under which a proposal can be asked before it is live.
///
/// ```
/// assert_eq!(rl::candidate_of(&"main".into()).as_str(), "main@candidate");
/// ```
pub fn candidate_of(adapter: &AdapterName) -> AdapterName {
    AdapterName::new(format!("{adapter}@candidate"))
}

/// The place that requests take an adapter's weights from.
///
/// New requests get what was shown last; those in flight finish on what they began with. The learner's own state is unchanged:
/// whoever moves the line restores it when it is free.
pub trait Shelf: Send + Sync {
    /// Whether the weights of this version can be shown again without their bytes.
    fn holds(&self, version: PolicyVersion) -> bool;

    /// Serves weights as `version`, at once: those of the version `of`, when the shelf still holds them; else the bytes; the
    /// base model when there are none.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the bytes do not fit the model.
    fn show(
        &self,
        version: PolicyVersion,
        of: Option<PolicyVersion>,
        adapter: Option<&[u8]>,
    ) -> Result<()>;
}
