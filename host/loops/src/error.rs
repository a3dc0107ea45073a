//! The crate's errors. What crosses a seam is an [`rl::Error`]; the conversion is here.

use std::sync::Arc;

use ledger::Seq;

/// The result of a loop's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a loop failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ledger refused or failed.
    #[error("the {looped} loop could not {action}")]
    Ledger {
        /// The loop.
        looped: &'static str,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<ledger::Error>,
    },
    /// A record does not hold what its kind says.
    #[error("record {seq} of kind {kind:?} cannot be read")]
    Record {
        /// The record.
        seq: Seq,
        /// Its kind.
        kind: String,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A value could not be written as a record.
    #[error("a record of kind {kind:?} about {subject} cannot be written")]
    Encode {
        /// The record's kind.
        kind: &'static str,
        /// What it is about.
        subject: String,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// The other side of a seam failed.
    #[error("the {looped} loop could not {action}")]
    Seam {
        /// The loop.
        looped: &'static str,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rl::Error,
    },
    /// Code behind a seam panicked.
    #[error("{what} panicked")]
    Panicked {
        /// The call.
        what: String,
    },
    /// A setting is out of range.
    #[error("`{key}` is {value}; {allowed}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A turn that was never begun here, or was given up.
    #[error("turn {turn} was not begun, or was given up as abandoned")]
    UnknownTurn {
        /// Its id.
        turn: String,
    },
    /// A served turn holds a log-prob that no record can hold, and nothing could be learned from.
    #[error("turn {turn} was served with a log-prob that is not a finite number, at token {at}")]
    NotFinite {
        /// Its id.
        turn: String,
        /// The first such token.
        at: usize,
    },
    /// A version that cannot be gone back to.
    #[error("{version} cannot be used: {why}")]
    NoVersion {
        /// The version.
        version: rl::PolicyVersion,
        /// Why.
        why: &'static str,
    },
    /// A record does not hold the sample that a batch needs.
    #[error(
        "record {at} does not hold sample {sample}: it was erased, or the ledger is of another program"
    )]
    NoSample {
        /// The sample.
        sample: String,
        /// The record.
        at: Seq,
    },
    /// A ledger that says nothing of the settings that training went by.
    #[error(
        "the ledger does not say with which settings it was trained: it is of a program that did not record them"
    )]
    NoRun,
    /// Nothing is meant by what was asked to be forgotten.
    #[error(
        "nothing in the ledger is meant: there is no such user, session or sample, or it is forgotten already"
    )]
    NothingToForget,
    /// The ledger was upgraded from a format in which text is not sealed.
    #[error(
        "this ledger was upgraded from format 1, whose text lies in it unsealed and cannot be erased: nothing was forgotten; to be rid of it, remove the data folder"
    )]
    Unsealed,
    /// A request to forget is not finished yet.
    #[error(
        "request {id} to forget is not finished yet; it goes on when the host runs, or with `nextstate forget --resume`"
    )]
    Forgetting {
        /// The request's id.
        id: String,
    },
    /// A hosted episode went with something that was forgotten while it was played.
    #[error("episode {episode} may have read something that was forgotten since it began")]
    Forgotten {
        /// The episode.
        episode: rl::EpisodeId,
    },
    /// The host stops.
    #[error("the host stops, or the loop that was asked starts again; what was begun goes on then")]
    Stopping,
    /// Weights that are computed aside could not be put on a disk.
    #[error("failed to keep weights in a temporary file in {}", folder.display())]
    Spill {
        /// Where the file is.
        folder: std::path::PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Whoever asked for something to be computed waits no longer.
    #[error("nobody waits for what is computed any more")]
    Unawaited,
    /// Feedback on a reply that this tenant never got.
    #[error("there is no reply {turn}")]
    NoReply {
        /// Its id.
        turn: String,
    },
}

impl Error {
    /// Whether the same call can work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Ledger { source, .. } => source.is_retryable(),
            Self::Seam { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// Whether what should be recorded was forgotten meanwhile.
    pub(crate) fn is_erased(&self) -> bool {
        self.erased().is_some()
    }

    /// The subject that was forgotten meanwhile, when a record about it was refused.
    pub(crate) fn erased(&self) -> Option<&str> {
        match self {
            Self::Ledger { source, .. } => match &**source {
                ledger::Error::Erased { subject } => Some(subject),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn ledger(
        looped: &'static str,
        action: &'static str,
    ) -> impl FnOnce(ledger::Error) -> Self {
        move |source| Self::Ledger {
            looped,
            action,
            source: Box::new(source),
        }
    }

    pub(crate) fn seam(
        looped: &'static str,
        action: &'static str,
    ) -> impl FnOnce(rl::Error) -> Self {
        move |source| Self::Seam {
            looped,
            action,
            source,
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<Error> for rl::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Seam { source, .. } => source,
            Error::UnknownTurn { .. } | Error::NoReply { .. } => Self::Refused {
                what: "the turn sink".to_owned(),
                why: error.to_string(),
            },
            error if error.is_retryable() => Self::Unavailable {
                what: "the ledger".to_owned(),
                why: error.chain(),
            },
            error => Self::Failed {
                what: "recording the turn".to_owned(),
                why: error.chain(),
            },
        }
    }
}
