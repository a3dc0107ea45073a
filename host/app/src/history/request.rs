//! What can be asked of a history: one variant a command, as it travels over the API.

use std::path::PathBuf;

use ledger::lineage::RefKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A command. Versions are what a person writes: `7`, `v7`, `base`, `head`, `head~2`, a name, or the first digits of a hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The versions, newest first.
    Log {
        /// At most so many.
        limit: Option<usize>,
    },
    /// One version: its samples and where they came from.
    Show {
        /// The version.
        version: String,
        /// Replies beside its parent's.
        behaviour: Option<Behaviour>,
    },
    /// Hosted episodes, newest first.
    Episodes {
        /// At most so many.
        limit: usize,
    },
    /// One episode or conversation, turn by turn.
    Episode {
        /// An episode, a session or a reply: its id, or the beginning of an episode's; `last` for the newest episode.
        id: String,
    },
    /// Two versions compared.
    Diff {
        /// The one.
        a: String,
        /// The other.
        b: String,
        /// Replies side by side.
        behaviour: Option<Behaviour>,
    },
    /// A new version with the weights of an old one, live at once.
    Revert {
        /// The old one.
        version: String,
    },
    /// A new version with the weights of one that is not live, live at once.
    Promote {
        /// That version.
        version: String,
    },
    /// All names of a kind.
    Names {
        /// Tags or branches.
        kind: RefKind,
    },
    /// Names a version.
    Name {
        /// Tag or branch.
        kind: RefKind,
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// Removes a name; the version stays.
    Unname {
        /// Tag or branch.
        kind: RefKind,
        /// The name.
        name: String,
    },
    /// Training run again from the ledger.
    Replay {
        /// The last version.
        to: Option<String>,
    },
    /// Which samples moved a reply's log-prob.
    Blame {
        /// What the user says.
        prompt: String,
        /// The reply; what the version answers, when it is not given.
        reply: Option<String>,
        /// The version.
        at: String,
        /// How it is measured.
        method: BlameMethod,
        /// So many samples.
        top: usize,
    },
    /// The version, then the sample, that broke a behaviour.
    Bisect {
        /// The behaviour.
        probe: Probe,
        /// A version that has it.
        good: String,
        /// A later one that does not.
        bad: String,
    },
    /// Erases what somebody said and everything that was learned from it.
    Forget {
        /// What.
        selector: Selector,
        /// Only says what it would do.
        plan: bool,
    },
    /// A version's adapter.
    Export {
        /// The version.
        version: String,
    },
    /// An adapter from outside as a new version.
    Import {
        /// The text of `adapter_config.json`.
        config: String,
        /// The bytes of `adapter_model.safetensors`.
        weights: Hex,
        /// Where from, in words.
        from: String,
        /// A branch that shall point to it.
        branch: Option<String>,
        /// Whether it goes live.
        promote: bool,
    },
    /// Checks every byte of the ledger.
    Verify {
        /// Also trains everything again and compares.
        replay: bool,
    },
    /// Copies what is sound into a new folder.
    Repair {
        /// The new folder.
        to: PathBuf,
    },
}

impl Request {
    /// The request's name, as it travels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Log { .. } => "log",
            Self::Show { .. } => "show",
            Self::Episodes { .. } => "episodes",
            Self::Episode { .. } => "episode",
            Self::Diff { .. } => "diff",
            Self::Revert { .. } => "revert",
            Self::Promote { .. } => "promote",
            Self::Names { .. } => "names",
            Self::Name { .. } => "name",
            Self::Unname { .. } => "unname",
            Self::Replay { .. } => "replay",
            Self::Blame { .. } => "blame",
            Self::Bisect { .. } => "bisect",
            Self::Forget { .. } => "forget",
            Self::Export { .. } => "export",
            Self::Import { .. } => "import",
            Self::Verify { .. } => "verify",
            Self::Repair { .. } => "repair",
        }
    }

    /// Whether it computes with the model, holds versions or reads everything, so that a host does one at a time.
    pub fn is_heavy(&self) -> bool {
        match self {
            Self::Show { behaviour, .. } => behaviour.is_some(),
            Self::Diff { .. }
            | Self::Export { .. }
            | Self::Replay { .. }
            | Self::Blame { .. }
            | Self::Bisect { .. }
            | Self::Verify { .. }
            | Self::Repair { .. } => true,
            _ => false,
        }
    }
}

/// Replies to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Behaviour {
    /// What the user says, each a conversation of its own.
    pub prompts: Vec<String>,
    /// Most tokens of a reply.
    pub max_tokens: u32,
}

/// How blame is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BlameMethod {
    /// Dot products of gradients, summed over the steps (TracIn): a first-order estimate for every sample.
    Gradient,
    /// The same, then the training run again without each of the top candidates: the exact difference.
    Replay,
}

/// A behaviour that a version has or does not have, on one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Probe {
    /// What the user says.
    pub prompt: String,
    /// What is asked of the reply.
    pub test: Test,
    /// Most tokens of a greedy reply.
    pub max_tokens: u32,
}

/// What is asked of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Test {
    /// The greedy reply contains this.
    Expect(String),
    /// The greedy reply does not contain this.
    Forbid(String),
    /// The log-prob of this reply (the sum over its tokens) is at least this.
    Likely {
        /// The reply.
        reply: String,
        /// The least log-prob.
        min_logprob: f64,
    },
}

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Selector {
    /// Everything that a user said.
    User {
        /// The name: the `user` of their requests, or the public name of their key.
        user: String,
        /// Whose user; any tenant's when it is not given.
        tenant: Option<String>,
    },
    /// A conversation.
    Session {
        /// Its id.
        session: String,
        /// Whose; any tenant's when it is not given.
        tenant: Option<String>,
    },
    /// The turn of a sample, and what quotes it.
    Sample(String),
    /// Everything of a tenant.
    Tenant(String),
}

/// Bytes that travel as hexadecimal text.
#[derive(Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hex({} bytes)", self.0.len())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(de::Error::custom)
    }
}
