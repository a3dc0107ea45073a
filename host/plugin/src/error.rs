//! The four ways in which a guest goes wrong, and what a loop needs to know of each.

use serde::{Deserialize, Serialize};

use crate::limits::Limit;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a guest says no.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// It does not offer the function.
    Unsupported,
    /// The arguments make no sense to it.
    InvalidInput,
    /// Its config is unusable.
    InvalidConfig,
    /// Anything else.
    Internal,
}

/// The guest's last log lines, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogTail(pub Vec<String>);

impl std::fmt::Display for LogTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; its last log lines: {}", self.0.join(" | "))
    }
}

/// What went wrong with a guest. None of them ends the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host refused the plugin before it ran.
    #[error("load plugin {plugin}")]
    Load {
        /// The name in the manifest, or a stand-in when the manifest cannot be read.
        plugin: String,
        /// Why.
        #[source]
        problem: LoadProblem,
    },
    /// The engine could not be made.
    #[error("start the plugin host: {problem}")]
    Start {
        /// Why.
        problem: String,
    },
    /// A fault: the guest said no.
    #[error("plugin {plugin} said no in {function}: {text}")]
    Fault {
        /// The plugin.
        plugin: String,
        /// The exported function.
        function: &'static str,
        /// Which kind of no.
        kind: FaultKind,
        /// The guest's own words: untrusted, cut to 2,000 characters.
        text: String,
    },
    /// A trap: the guest broke. Its instance is gone.
    #[error("plugin {plugin} broke in {function}: {trap}{log}")]
    Trap {
        /// The plugin.
        plugin: String,
        /// The exported function.
        function: &'static str,
        /// What wasmtime says.
        trap: String,
        /// What the guest said last.
        log: LogTail,
    },
    /// A limit: the host stopped the guest. Its instance is gone.
    #[error(
        "plugin {plugin} was stopped in {function} by its limit of {limit}: {used} of {allowed}{log}"
    )]
    Limit {
        /// The plugin.
        plugin: String,
        /// The exported function.
        function: &'static str,
        /// Which limit.
        limit: Limit,
        /// How much it used or asked for.
        used: u64,
        /// How much it may use.
        allowed: u64,
        /// What the guest said last.
        log: LogTail,
    },
    /// The guest answered with something that the contract rules out. Refused, never repaired.
    #[error("plugin {plugin} answered {function} with {what}")]
    Answer {
        /// The plugin.
        plugin: String,
        /// The exported function.
        function: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The episode's instance ended earlier; an episode is not restarted.
    #[error("plugin {plugin}: {function} on an episode whose instance has ended")]
    Ended {
        /// The plugin.
        plugin: String,
        /// The exported function.
        function: &'static str,
    },
}

/// Why a plugin was refused before it ran.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LoadProblem {
    /// The manifest is not valid.
    #[error("its manifest is not valid: {0}")]
    Manifest(String),
    /// A capability was not granted.
    #[error("it asks for the capability `{0}`, which is not granted to it")]
    NotGranted(String),
    /// The recipe's section does not match the schema.
    #[error("config key `{key}`: {problem}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The component is too large.
    #[error("the component has {bytes} bytes, and {allowed} are allowed")]
    Size {
        /// Its size.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// One function is too large to compile in bounded time.
    #[error("a function of the component has {bytes} bytes, and {allowed} are allowed")]
    Function {
        /// Its size.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// It is not a valid component.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It imports something that its manifest does not list.
    #[error("it imports `{import}`, which its manifest does not list")]
    Import {
        /// The import's name.
        import: String,
    },
    /// It does not export what its world demands, or does not compile.
    #[error("the component does not fit the world `{world}`: {problem}")]
    World {
        /// The world in the manifest.
        world: String,
        /// What wasmtime says.
        problem: String,
    },
    /// It was asked to act as another kind of plugin.
    #[error("it is of the world `{is}`, and `{wanted}` is wanted")]
    Kind {
        /// The world in the manifest.
        is: String,
        /// The world that the caller wants.
        wanted: String,
    },
}

impl Error {
    /// Whether the guest said no by itself: calling again changes nothing, and nothing broke.
    pub fn is_fault(&self) -> bool {
        matches!(self, Error::Fault { .. })
    }

    /// Whether the guest does not offer the function.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Error::Fault {
                kind: FaultKind::Unsupported,
                ..
            }
        )
    }
}

impl From<Error> for rl::Error {
    fn from(error: Error) -> Self {
        let (plugin, function) = match &error {
            Error::Fault {
                plugin, function, ..
            }
            | Error::Trap {
                plugin, function, ..
            }
            | Error::Limit {
                plugin, function, ..
            }
            | Error::Answer {
                plugin, function, ..
            }
            | Error::Ended { plugin, function } => (plugin.clone(), *function),
            Error::Load { plugin, problem } => {
                return rl::Error::Failed {
                    what: format!("load plugin {plugin}"),
                    why: problem.to_string(),
                };
            }
            Error::Start { problem } => {
                return rl::Error::Failed {
                    what: "start the plugin host".into(),
                    why: problem.clone(),
                };
            }
        };
        match error {
            Error::Fault {
                kind: FaultKind::InvalidInput,
                text,
                ..
            } => rl::Error::Refused {
                what: format!("plugin {plugin} in {function}"),
                why: text,
            },
            Error::Ended { .. } => rl::Error::Refused {
                what: format!("plugin {plugin} in {function}"),
                why: "the episode's instance has ended".into(),
            },
            other => rl::Error::Guest {
                plugin,
                function: function.to_owned(),
                why: other.to_string(),
            },
        }
    }
}
