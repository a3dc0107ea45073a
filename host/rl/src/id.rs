//! Identities and counters as types, so that arithmetic that makes no sense does not compile.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An index into a model's vocabulary.
pub type TokenId = u32;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a name.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

name!(
    /// Somebody whose data must never meet another tenant's.
    TenantId
);
name!(
    /// A conversation between one user and the policy.
    SessionId
);
name!(
    /// One model call; also the reply's id that clients see (`chatcmpl-…`).
    TurnId
);
name!(
    /// One run of an environment through one task.
    EpisodeId
);
name!(
    /// A task of an environment.
    TaskId
);
name!(
    /// A sample that a version was trained on.
    SampleId
);
name!(
    /// A line of adapter versions, for example `main`.
    AdapterName
);

/// A version of the policy's weights. Versions only grow; 0 is the weights on disk at start.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PolicyVersion(u64);

impl PolicyVersion {
    /// The weights on disk at start, before any step.
    pub const BASE: PolicyVersion = PolicyVersion(0);

    /// The version with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many versions `self` lags behind `newest`; zero when it is not behind.
    ///
    /// ```
    /// use rl::PolicyVersion;
    /// assert_eq!(PolicyVersion::new(3).lag(PolicyVersion::new(7)), 4);
    /// assert_eq!(PolicyVersion::new(7).lag(PolicyVersion::new(3)), 0);
    /// ```
    pub const fn lag(self, newest: PolicyVersion) -> u64 {
        newest.0.saturating_sub(self.0)
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// Where randomness comes from: handed in, and derived by names, so that any event can be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(u64);

impl Seed {
    /// A seed with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seed of a part of what `self` seeds: the same path gives the same seed, different paths give
    /// unrelated ones.
    ///
    /// ```
    /// use rl::Seed;
    /// let run = Seed::new(7);
    /// assert_eq!(run.derive("vote-0"), run.derive("vote-0"));
    /// assert_ne!(run.derive("vote-0"), run.derive("vote-1"));
    /// ```
    #[must_use]
    pub fn derive(self, part: &str) -> Seed {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(part.as_bytes());
        let digest = hash.finalize();
        let mut first = [0u8; 8];
        first.copy_from_slice(&digest[..8]);
        Seed(u64::from_le_bytes(first))
    }
}
