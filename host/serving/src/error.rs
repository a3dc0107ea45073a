//! What can go wrong when serving is set up or stopped.
//!
//! Requests fail with [`crate::engine::Refusal`] (the engine's word) or with an OpenAI-shaped error (the gateway's);
//! this enum is for the operator, before the first request and after the last.

use std::io;
use std::net::SocketAddr;

/// What this crate's set-up functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to start, run or stop serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused the address.
    #[error("failed to listen on {addr}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Everybody who reaches the address could use the model and read replies.
    #[error(
        "failed to start the gateway on {addr}: it is not a loopback address and no API key is configured"
    )]
    KeysRequired {
        /// The configured address.
        addr: SocketAddr,
    },
    /// A configured API key cannot be used.
    #[error("failed to read API key `{name}`: {problem}")]
    Key {
        /// The key's public name.
        name: String,
        /// What is wrong with it.
        problem: KeyProblem,
    },
    /// A setting is out of range.
    #[error("setting `{key}` is {value}, but must be {rule}")]
    Setting {
        /// The setting, as the configuration file calls it.
        key: &'static str,
        /// What it says.
        value: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The engine's thread could not be started.
    #[error("failed to start the engine's thread")]
    Thread {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The engine's thread panicked; its requests were answered with an error.
    #[error("the engine stopped: {why}")]
    EngineStopped {
        /// The panic's message.
        why: String,
    },
    /// The model and the tokenizer do not fit each other.
    #[error("the tokenizer has {tokenizer} ids, more than the model's {model}")]
    Vocabulary {
        /// Ids that the tokenizer can produce.
        tokenizer: usize,
        /// Rows of the model's embedding table.
        model: usize,
    },
}

/// What is wrong with a configured API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// `sha256` is not a digest.
    #[error("`sha256` is not 64 hexadecimal digits")]
    Digest,
    /// Two keys have this name.
    #[error("its name is used twice")]
    DuplicateName,
    /// Two keys are the same secret, so that their tenants could not be told apart.
    #[error("another key has the same digest")]
    DuplicateDigest,
    /// A name or a tenant is empty.
    #[error("its name or tenant is empty")]
    Empty,
}
