//! The forget manifest: a signed statement of what was erased and what took its place.
//!
//! One JSON file for each request, `<data>/forgotten/<id>.json`, signed with the host's own Ed25519 key (`<data>/identity`, made
//! at first use). It names no person: the ledger's commitment to the request lets whoever knows the name check that it was meant.
//! Start at [`write()`]; [`check`] is for whoever is shown one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use ledger::{Ledger, Seq};
use loops::records::{self, FORGET, FORGOTTEN, ForgetRecord, ForgottenRecord};
use serde::{Deserialize, Serialize};

use crate::{durable, signing};

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
pub fn write(
    data: &Path,
    ledger: &Ledger,
    request: &ForgetRecord,
    record: &ForgottenRecord,
) -> anyhow::Result<PathBuf> {
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
    let path = path(data, &request.id);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .and_then(|()| durable::sync_folder(data))
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    durable::write(&path, &serde_json::to_vec_pretty(&manifest)?, 0o644)
        .with_context(|| format!("failed to write the manifest {}", path.display()))?;
    Ok(path)
}

/// Writes the manifests that a host which ended in between did not come to.
///
/// # Errors
/// As [`write()`].
pub fn write_missing(data: &Path, ledger: &Ledger) -> anyhow::Result<()> {
    for record in ledger.by_kind(FORGOTTEN, Seq::FIRST) {
        let end: ForgottenRecord = records::decode(&record?)?;
        if path(data, &end.id).exists() {
            continue;
        }
        if let Some(begin) = ledger.by_key(&format!("{FORGET}/{}", end.id))? {
            write(data, ledger, &records::decode(&begin)?, &end)?;
        }
    }
    Ok(())
}

fn path(data: &Path, id: &str) -> PathBuf {
    data.join("forgotten").join(format!("{id}.json"))
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
    signing::key_at(&data.join("identity"), "the host's identity")
}

#[cfg(test)]
mod tests {
    use ledger::{Entry, Options};
    use loops::schedule::Place;
    use rl::PolicyVersion;

    use super::*;

    fn request() -> ForgetRecord {
        ForgetRecord {
            id: "abc".into(),
            adapter: "main".into(),
            selector: "user".into(),
            commitment: "00".into(),
            turns: vec!["t1".into()],
            subjects: vec![],
        }
    }

    fn end() -> ForgottenRecord {
        ForgottenRecord {
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
        }
    }

    #[test]
    fn a_manifest_is_signed_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("ledger"), Options::default()).unwrap();
        let entry = Entry::new("note", "", b"x".to_vec());
        ledger.append(entry).wait().unwrap();
        let path = write(dir.path(), &ledger, &request(), &end()).unwrap();
        let manifest = check(&path).unwrap();
        assert_eq!(manifest.statement.erased, [3]);
        let again = check(&write(dir.path(), &ledger, &request(), &end()).unwrap()).unwrap();
        assert_eq!(again.public_key, manifest.public_key, "one identity a host");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"t1\"", "\"t2\"")).unwrap();
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains("changed"), "{error}");
        fs::write(dir.path().join("identity"), "short").unwrap();
        let error = write(dir.path(), &ledger, &request(), &end()).unwrap_err();
        assert!(format!("{error:#}").contains("damaged"), "{error:#}");
    }

    #[test]
    fn a_manifest_that_was_not_written_before_the_end_is_written_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("ledger"), Options::default()).unwrap();
        let begin = records::encode(FORGET, "main", &request()).unwrap();
        let end = records::encode(FORGOTTEN, "main", &end()).unwrap();
        ledger.append(begin.with_key("forget/abc")).wait().unwrap();
        write_missing(dir.path(), &ledger).unwrap();
        assert!(!dir.path().join("forgotten").exists(), "it is not over yet");
        ledger.append(end.with_key("forgotten/abc")).wait().unwrap();
        write_missing(dir.path(), &ledger).unwrap();
        let path = dir.path().join("forgotten/abc.json");
        let first = fs::read(&path).unwrap();
        assert_eq!(check(&path).unwrap().statement.turns, ["t1"]);
        ledger
            .append(Entry::new("note", "", b"x".to_vec()))
            .wait()
            .unwrap();
        write_missing(dir.path(), &ledger).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "what is there stays");
    }
}
