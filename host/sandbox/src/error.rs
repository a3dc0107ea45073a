//! What goes wrong, and whose fault it is.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a capability did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This machine cannot offer it: a program is missing, or the kernel does not allow it. Says what to do.
    #[error("{capability} is not available on this machine: {why}")]
    Unavailable {
        /// `shell`, `browser` or `http`.
        capability: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// The caller asked for something that it may not have: a path outside, a name that is unknown, too much.
    #[error("refused to {action}: {why}")]
    Refused {
        /// What was attempted, on what.
        action: String,
        /// Why not.
        why: String,
    },
    /// It broke, or the operating system said no.
    #[error("failed to {action}: {why}")]
    Failed {
        /// What was attempted, on what.
        action: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Whether another request, in place of this one, could be answered: the caller is at fault, not the host.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
