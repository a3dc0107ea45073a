//! Ed25519 keys in files: the host's own, and a plugin author's.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;

use crate::durable;

/// The key in a file, which only its owner can read; made at first use. `what` is it for people.
///
/// # Errors
/// The file system's, or a damaged file.
pub(crate) fn key_at(path: &Path, what: &str) -> anyhow::Result<SigningKey> {
    if !path.exists() {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        durable::write(path, hex::encode(seed).as_bytes(), 0o600)
            .with_context(|| format!("failed to write {what} {}", path.display()))?;
    }
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read {what} {}", path.display()))?;
    let seed = hex::decode(text.trim())
        .ok()
        .and_then(|s| s.try_into().ok());
    let seed: [u8; 32] = seed.with_context(|| {
        format!(
            "{} is damaged: 64 hexadecimal digits are expected; restore it from a backup, or remove it to begin another identity",
            path.display()
        )
    })?;
    Ok(SigningKey::from_bytes(&seed))
}
