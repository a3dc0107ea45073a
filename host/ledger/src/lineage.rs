//! The history of a policy's weights: each version is a record that names its parent, what it was made from, and the blobs
//! that hold it.
//!
//! Like a commit, a version has a content hash; it says nothing of how samples became weights. Nothing here reads a blob.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Entry, Error, Ledger, Record, Result, Seq};

/// The kind of the records that hold versions.
pub const KIND: &str = "version";

/// One version of one adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its number; numbers only grow.
    pub version: u64,
    /// The adapter that it is a version of.
    pub adapter: String,
    /// The content hash of the version that it was made from; `None` for the first.
    pub parent: Option<Digest>,
    /// The samples that were consumed, in the order in which they were used.
    pub samples: Vec<String>,
    /// Every seed that was used, by purpose.
    pub seeds: BTreeMap<String, u64>,
    /// The settings that it was made with.
    pub settings: Value,
    /// What was measured while it was made. Finite numbers only.
    pub metrics: BTreeMap<String, f64>,
    /// The adapter's weights.
    pub adapter_blob: Option<Digest>,
    /// The optimizer's state.
    pub optimizer_blob: Option<Digest>,
}

/// How a version lies in a record's body: its content and the hash of it.
#[derive(Serialize, Deserialize)]
struct Stored {
    content: VersionRecord,
    hash: Digest,
}

impl VersionRecord {
    /// The content hash: SHA-256 of the canonical JSON (keys in byte order, no spaces) of all of the above.
    pub fn hash(&self) -> Digest {
        let mut text = String::new();
        // A derived `Serialize` of plain fields into a `Value` cannot fail; an empty text would only make a wrong hash.
        canonical(
            &serde_json::to_value(self).unwrap_or(Value::Null),
            &mut text,
        );
        Digest::of(text.as_bytes())
    }

    /// The entry that publishes this version: appending it twice publishes once.
    ///
    /// # Errors
    /// [`Error::VersionMetric`] when a metric is not finite: a version with such a number must never be committed.
    pub fn to_entry(&self) -> Result<Entry> {
        if let Some((name, _)) = self.metrics.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::VersionMetric {
                adapter: self.adapter.clone(),
                version: self.version,
                name: name.clone(),
            });
        }
        let stored = Stored {
            content: self.clone(),
            hash: self.hash(),
        };
        let body = serde_json::to_vec(&stored).map_err(|source| Error::Version {
            seq: Seq::ZERO,
            source: Arc::new(source),
        })?;
        let name = format!("{}:{}", self.adapter, self.version);
        Ok(Entry::new(KIND, name.clone(), body).with_key(format!("{KIND}/{name}")))
    }

    /// Reads a version back and checks its content hash.
    ///
    /// # Errors
    /// [`Error::Version`] when the body is not one; [`Error::VersionHash`] when its content is not what the hash names.
    pub fn from_record(record: &Record) -> Result<Self> {
        let stored: Stored =
            serde_json::from_slice(&record.body).map_err(|source| Error::Version {
                seq: record.seq,
                source: Arc::new(source),
            })?;
        let found = stored.content.hash();
        if found == stored.hash {
            return Ok(stored.content);
        }
        Err(Error::VersionHash {
            adapter: stored.content.adapter,
            version: stored.content.version,
            found,
            expected: stored.hash,
        })
    }
}

/// All versions in a ledger.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    versions: Vec<VersionRecord>,
    by_hash: HashMap<Digest, usize>,
}

impl Lineage {
    /// Reads every version in the ledger.
    ///
    /// # Errors
    /// Damage, or a record that is not a version.
    pub fn read(ledger: &Ledger) -> Result<Self> {
        let mut lineage = Self::default();
        for record in ledger.by_kind(KIND, Seq::FIRST) {
            lineage.add(VersionRecord::from_record(&record?)?);
        }
        Ok(lineage)
    }

    /// Adds a version that has just been committed.
    pub fn add(&mut self, version: VersionRecord) {
        self.by_hash.insert(version.hash(), self.versions.len());
        self.versions.push(version);
    }

    /// All of them, in the order of their commits.
    pub fn all(&self) -> &[VersionRecord] {
        &self.versions
    }

    /// The last one that was committed for an adapter: the one to serve.
    pub fn newest(&self, adapter: &str) -> Option<&VersionRecord> {
        self.versions
            .iter()
            .rev()
            .find(|version| version.adapter == adapter)
    }

    /// One version of an adapter.
    pub fn get(&self, adapter: &str, version: u64) -> Option<&VersionRecord> {
        self.versions
            .iter()
            .find(|v| v.version == version && v.adapter == adapter)
    }

    /// The version with this content hash.
    pub fn by_hash(&self, hash: &Digest) -> Option<&VersionRecord> {
        self.by_hash.get(hash).map(|&at| &self.versions[at])
    }

    /// A version, its parent, and so on to the first.
    pub fn ancestors<'a>(
        &'a self,
        version: &'a VersionRecord,
    ) -> impl Iterator<Item = &'a VersionRecord> {
        std::iter::successors(Some(version), |v| {
            v.parent.and_then(|hash| self.by_hash(&hash))
        })
    }
}

/// Writes `value` with the keys of every object in byte order, whatever order they are held in.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, parent: Option<&VersionRecord>) -> VersionRecord {
        VersionRecord {
            version: number,
            adapter: "default".to_owned(),
            parent: parent.map(VersionRecord::hash),
            samples: vec![format!("turn-{number}")],
            seeds: BTreeMap::from([("shuffle".to_owned(), 7)]),
            settings: serde_json::json!({"lr": 1e-4, "loss": "ppo", "clip": {"low": 0.2, "high": 0.28}}),
            metrics: BTreeMap::from([("loss".to_owned(), -0.125), ("kl".to_owned(), 1.0 / 3.0)]),
            adapter_blob: Some(Digest::of(b"weights")),
            optimizer_blob: Some(Digest::of(b"moments")),
        }
    }

    fn record(entry: Entry) -> Record {
        Record {
            seq: Seq::FIRST,
            at_ms: 0,
            kind: entry.kind,
            subject: entry.subject,
            key: entry.key,
            body: entry.body,
            hash: Digest::of(b""),
        }
    }

    #[test]
    fn a_version_is_read_back_as_it_was_written() {
        let first = version(1, None);
        let second = version(2, Some(&first));
        let back = VersionRecord::from_record(&record(second.to_entry().unwrap())).unwrap();
        assert_eq!(back, second);
        assert_eq!(back.hash(), second.hash());
    }

    #[test]
    fn a_version_whose_content_was_changed_is_refused() {
        let mut entry = version(1, None).to_entry().unwrap();
        entry.body = String::from_utf8(entry.body)
            .unwrap()
            .replace("turn-1", "turn-9")
            .into_bytes();
        let error = VersionRecord::from_record(&record(entry)).unwrap_err();
        assert!(
            matches!(error, Error::VersionHash { version: 1, .. }),
            "{error}"
        );
        let garbage = record(Entry::new(KIND, "x", b"{}".to_vec()));
        assert!(matches!(
            VersionRecord::from_record(&garbage),
            Err(Error::Version { .. })
        ));
    }

    #[test]
    fn a_version_with_a_number_that_is_not_finite_cannot_be_committed() {
        let mut bad = version(1, None);
        bad.metrics.insert("grad-norm".to_owned(), f64::NAN);
        let error = bad.to_entry().unwrap_err();
        assert!(error.to_string().contains("grad-norm"), "{error}");
    }

    #[test]
    fn the_content_hash_does_not_depend_on_the_order_of_keys() {
        let mut a = String::new();
        let mut b = String::new();
        canonical(
            &serde_json::from_str(r#"{"b":[1,{"d":2,"c":"x"}],"a":null}"#).unwrap(),
            &mut a,
        );
        canonical(
            &serde_json::from_str(r#"{"a":null,"b":[1,{"c":"x","d":2}]}"#).unwrap(),
            &mut b,
        );
        assert_eq!(a, b);
        assert_eq!(a, r#"{"a":null,"b":[1,{"c":"x","d":2}]}"#);
    }

    #[test]
    fn ancestors_go_back_to_the_first_version() {
        let first = version(1, None);
        let second = version(2, Some(&first));
        let third = version(3, Some(&second));
        let mut lineage = Lineage::default();
        for v in [&first, &second, &third] {
            lineage.add(v.clone());
        }
        let newest = lineage.newest("default").unwrap();
        let line: Vec<_> = lineage.ancestors(newest).map(|v| v.version).collect();
        assert_eq!(line, [3, 2, 1]);
        assert_eq!(lineage.get("default", 2), Some(&second));
        assert!(lineage.newest("other").is_none());
    }
}
