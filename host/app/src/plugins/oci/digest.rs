//! A content's SHA-256, as registries write it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::artifact::shown;

/// `sha256:` and 64 hexadecimal digits: the one algorithm that every registry must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let digits = text.strip_prefix("sha256:").with_context(|| {
            format!(
                "`{}` is no SHA-256 digest: sha256: and 64 digits",
                shown(text)
            )
        })?;
        // A digest is part of a path: one in capitals would be another name for the same thing.
        let lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
        let bytes = hex::decode(digits)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        ensure!(
            lower && bytes.is_some(),
            "`{}` is no SHA-256 digest: 64 lower-case hexadecimal digits follow sha256:",
            shown(text)
        );
        Ok(Self(bytes.unwrap_or_default()))
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}
