//! The forget manifest: a signed statement of what was erased and what took its place.
//!
//! One JSON file for each request, `<data>/forgotten/<id>.json`, signed with the host's own Ed25519 key (`<data>/identity`, made
//! at first use). It names no person: the ledger's commitment to the request lets whoever knows the name check that it was meant.
//! Start at [`write()`]; [`check`] is for whoever is shown one.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use ledger::{Ledger, Seq};
use loops::forget::Forgotten;
use serde::{Deserialize, Serialize};

/// What was forgotten, as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Statement {
    /// The format of this file.
    pub format: u32,
    /// The request's id.
    pub id: String,
    /// The adapter.
    pub adapter: String,
    /// What was asked for: `user`, `session`, `sample` or `tenant`.
    pub selector: String,
    /// SHA-256 of `<id>/<selector>/<tenant>/<name>`.
    pub commitment: String,
    /// Turns whose text cannot be read any more: their keys were destroyed.
    pub turns: Vec<String>,
    /// Versions whose weights were erased.
    pub erased: Vec<u64>,
    /// The versions of the line that took their place.
    pub line: Vec<u64>,
    /// The version that answered before.
    pub before: u64,
    /// The version that answers now.
    pub after: u64,
    /// SHA-256 of the adapter's bytes that answer now; none for the base model.
    pub adapter_sha256: Option<String>,
    /// The ledger's last record then, and its hash: it names everything before it.
    pub ledger_seq: u64,
    /// See `ledger-seq`.
    pub ledger_hash: String,
}

/// A statement and who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// What is stated.
    pub statement: Statement,
    /// The host's public key, in hex.
    pub public_key: String,
    /// Ed25519 over the statement as compact JSON, in hex.
    pub signature: String,
}

const FORMAT: u32 = 1;

/// Writes the manifest of a request; durable on return. Gives its path.
///
/// # Errors
/// The file system's, or a damaged identity.
pub fn write(data: &Path, ledger: &Ledger, forgotten: &Forgotten) -> anyhow::Result<PathBuf> {
    let (request, record) = (&forgotten.request, &forgotten.record);
    let last = ledger.durable();
    let hash = match ledger.get(last)? {
        Some(record) => record.hash.to_string(),
        None => String::new(),
    };
    let lineage = ledger::lineage::Lineage::read(ledger)?;
    let after = lineage.get(&record.adapter, record.after.get());
    let numbers = |versions: &[rl::PolicyVersion]| versions.iter().map(|v| v.get()).collect();
    let statement = Statement {
        format: FORMAT,
        id: request.id.clone(),
        adapter: request.adapter.clone(),
        selector: request.selector.clone(),
        commitment: request.commitment.clone(),
        turns: request.turns.iter().map(ToString::to_string).collect(),
        erased: numbers(&record.erased),
        line: numbers(&record.line),
        before: record.before.get(),
        after: record.after.get(),
        adapter_sha256: after.and_then(|v| v.adapter_blob).map(|d| d.to_string()),
        ledger_seq: last.max(Seq::ZERO).get(),
        ledger_hash: hash,
    };
    let key = identity(data)?;
    let signature = key.sign(&serde_json::to_vec(&statement)?);
    let manifest = Manifest {
        statement,
        public_key: hex::encode(key.verifying_key().as_bytes()),
        signature: hex::encode(signature.to_bytes()),
    };
    let folder = data.join("forgotten");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let path = folder.join(format!("{}.json", request.id));
    durable(&path, &serde_json::to_vec_pretty(&manifest)?, 0o644)
        .with_context(|| format!("failed to write the manifest {}", path.display()))?;
    Ok(path)
}

/// Reads a manifest and checks its signature.
///
/// # Errors
/// A file that is no manifest, or whose signature does not fit.
pub fn check(path: &Path) -> anyhow::Result<Manifest> {
    let text = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a forget manifest", path.display()))?;
    let bytes = |hex: &str, what| {
        hex::decode(hex).with_context(|| format!("the manifest's {what} is not hex"))
    };
    let key: [u8; 32] = bytes(&manifest.public_key, "public key")?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the manifest's public key is not 32 bytes"))?;
    let key = VerifyingKey::from_bytes(&key).context("the manifest's public key is none")?;
    let signature = Signature::from_slice(&bytes(&manifest.signature, "signature")?)
        .context("the manifest's signature is none")?;
    key.verify_strict(&serde_json::to_vec(&manifest.statement)?, &signature)
        .with_context(|| format!("{} was changed after it was signed", path.display()))?;
    Ok(manifest)
}

/// The host's signing key, made at first use.
fn identity(data: &Path) -> anyhow::Result<SigningKey> {
    let path = data.join("identity");
    if !path.exists() {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        durable(&path, hex::encode(seed).as_bytes(), 0o600)
            .with_context(|| format!("failed to write the host's identity {}", path.display()))?;
    }
    let text = fs::read_to_string(&path)
        .with_context(|| format!("failed to read the host's identity {}", path.display()))?;
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

fn durable(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let temp = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ledger::{Entry, Options};
    use loops::records::{ForgetRecord, ForgottenRecord};
    use loops::schedule::Place;
    use rl::PolicyVersion;

    use super::*;

    fn forgotten() -> Forgotten {
        Forgotten {
            request: ForgetRecord {
                id: "abc".into(),
                adapter: "main".into(),
                selector: "user".into(),
                commitment: "00".into(),
                turns: vec!["t1".into()],
                subjects: vec![],
            },
            record: ForgottenRecord {
                id: "abc".into(),
                adapter: "main".into(),
                before: PolicyVersion::new(3),
                after: PolicyVersion::new(4),
                erased: vec![PolicyVersion::new(3)],
                line: vec![PolicyVersion::new(4)],
                computed: 1,
                place: Place {
                    through: Seq::ZERO,
                    waiting: vec![],
                    spent: vec![],
                },
            },
            keys: 1,
            blobs: 2,
        }
    }

    #[test]
    fn a_manifest_is_signed_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("ledger"), Options::default()).unwrap();
        let entry = Entry::new("note", "", b"x".to_vec());
        ledger.append(entry).wait().unwrap();
        let path = write(dir.path(), &ledger, &forgotten()).unwrap();
        let manifest = check(&path).unwrap();
        assert_eq!(manifest.statement.erased, [3]);
        let again = check(&write(dir.path(), &ledger, &forgotten()).unwrap()).unwrap();
        assert_eq!(again.public_key, manifest.public_key, "one identity a host");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"t1\"", "\"t2\"")).unwrap();
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains("changed"), "{error}");
        fs::write(dir.path().join("identity"), "short").unwrap();
        let error = write(dir.path(), &ledger, &forgotten()).unwrap_err();
        assert!(format!("{error:#}").contains("damaged"), "{error:#}");
    }
}
