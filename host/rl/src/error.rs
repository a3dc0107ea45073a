//! What can go wrong behind a seam. A caller that must decide asks a question ([`Error::is_retryable`]),
//! not a variant.

use serde::{Deserialize, Serialize};

/// The result of a call through a seam.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure behind a seam, said so that the other side can act without knowing the implementation.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// The callee is overloaded, starting or stopping; the same call may work later.
    #[error("{what} is not available now: {why}")]
    Unavailable {
        /// The component that was asked.
        what: String,
        /// Why it cannot answer.
        why: String,
    },
    /// The call took longer than it may.
    #[error("{what} did not answer within {limit_ms} ms")]
    TimedOut {
        /// The component that was asked.
        what: String,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The caller asked for something that cannot be done.
    #[error("{what} refused the call: {why}")]
    Refused {
        /// The component that was asked.
        what: String,
        /// What is wrong with the request.
        why: String,
    },
    /// A guest said no (*fault*), broke (*trap*) or was stopped (*limit*).
    #[error("plugin {plugin} failed in {function}: {why}")]
    Guest {
        /// The plugin's name.
        plugin: String,
        /// The exported function that was called.
        function: String,
        /// The fault, trap or limit, in words.
        why: String,
    },
    /// The caller went away before the answer was complete.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was cancelled.
        what: String,
    },
    /// The ledger, the disk or the device failed. Not retried.
    #[error("{what} failed: {why}")]
    Failed {
        /// The operation.
        what: String,
        /// The cause, in words.
        why: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::TimedOut { .. })
    }

    /// Whether a guest is to blame, and not the host.
    pub fn is_guest(&self) -> bool {
        matches!(self, Error::Guest { .. })
    }
}
