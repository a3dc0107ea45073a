//! Short ways to write this crate's errors.

use std::fmt::Display;

use crate::Error;

/// The caller asked for what it may not have.
pub(super) fn refused(action: impl Into<String>, why: impl Display) -> Error {
    Error::Refused {
        action: action.into(),
        why: why.to_string(),
    }
}

/// It broke.
pub(super) fn failed(action: impl Into<String>, why: impl Display) -> Error {
    Error::Failed {
        action: action.into(),
        why: why.to_string(),
    }
}

/// This computer cannot offer a shell at all.
pub(super) fn unavailable(why: impl Display) -> Error {
    Error::Unavailable {
        capability: "shell",
        why: why.to_string(),
    }
}
