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
/// The kind of the records that say which version answers: [`HeadRecord`].
pub const HEAD: &str = "head";
/// The kind of the records that name versions: [`RefRecord`].
pub const REF: &str = "ref";

/// Where a version's weights come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// An optimizer step on the samples, from the parent.
    #[default]
    Trained,
    /// The same, computed again without what somebody asked to forget.
    Rederived {
        /// The request to forget, by its id.
        forget: String,
    },
    /// The weights of an older version, bit for bit.
    Reverted {
        /// That version.
        to: u64,
    },
    /// The weights of a version that was not live (held by the gate, imported, of a branch), bit for bit.
    Promoted {
        /// That version.
        from: u64,
    },
    /// Weights from outside.
    Imported {
        /// Where from, in words.
        from: String,
    },
}

impl Origin {
    /// Whether the weights are the result of an optimizer step on the samples.
    pub fn is_step(&self) -> bool {
        matches!(self, Self::Trained | Self::Rederived { .. })
    }

    fn is_trained(&self) -> bool {
        *self == Self::Trained
    }
}

/// From here on this version answers (or, with a share, a part of the sessions).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The adapter.
    pub adapter: String,
    /// The version.
    pub version: u64,
    /// The share of the sessions that it answers while it is on trial; `None` for all of them.
    pub share: Option<f64>,
    /// Why: `trained`, `revert`, `promote`, `trip: …`.
    pub why: String,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefKind {
    /// Stays where it is.
    Tag,
    /// May be moved.
    Branch,
}

/// A name for a version; the last record of a name counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// The name: unique in an adapter's line.
    pub name: String,
    /// Tag or branch.
    pub kind: RefKind,
    /// The adapter.
    pub adapter: String,
    /// The version; `None` removes the name.
    pub version: Option<u64>,
}

/// One version of one adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    // Later fields are left out when they say nothing, so that the content hash of an older version stays what it was.
    /// Where its weights come from.
    #[serde(default, skip_serializing_if = "Origin::is_trained")]
    pub origin: Origin,
    /// The last record that the decision to make it had read; `None` in ledgers of the first programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// Optimizer steps between the base and its weights; see [`VersionRecord::steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The digest of the adapter's weights as replies carry it; see [`VersionRecord::fingerprint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_digest: Option<String>,
}

/// How a version lies in a record's body: its content and the hash of it.
#[derive(Serialize, Deserialize)]
struct Stored {
    content: VersionRecord,
    hash: Digest,
}

impl VersionRecord {
    /// Optimizer steps between the base and its weights.
    pub fn steps(&self) -> u64 {
        self.steps.unwrap_or(self.version)
    }

    /// The digest of the adapter's weights as replies carry it.
    pub fn fingerprint(&self) -> Option<&str> {
        self.adapter_digest
            .as_deref()
            .or_else(|| self.settings.get("adapter-digest")?.as_str())
    }

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
        let key = version_key(&self.adapter, self.version);
        Ok(Entry::new(KIND, name, body).with_key(key))
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

/// The key under which a version's record lies.
pub fn version_key(adapter: &str, version: u64) -> String {
    format!("{KIND}/{adapter}:{version}")
}

/// All versions in a ledger.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    versions: Vec<VersionRecord>,
    by_hash: HashMap<Digest, usize>,
    /// Every adapter counts its own.
    by_number: HashMap<u64, Vec<usize>>,
    heads: Vec<HeadRecord>,
    refs: BTreeMap<(String, String), RefRecord>,
}

impl Lineage {
    /// Reads every version in the ledger.
    ///
    /// # Errors
    /// Damage, or a record that is not a version.
    pub fn read(ledger: &Ledger) -> Result<Self> {
        let mut lineage = Self::default();
        // What is committed meanwhile is left out: else a head could name a version that was not there yet when versions were read.
        let until = ledger.durable();
        let of = |kind| {
            let records = ledger.by_kind(kind, Seq::FIRST);
            records.take_while(move |r| r.as_ref().map_or(true, |r| r.seq <= until))
        };
        for record in of(KIND) {
            lineage.add(VersionRecord::from_record(&record?)?);
        }
        for record in of(HEAD) {
            lineage.add_head(read_body(&record?)?);
        }
        for record in of(REF) {
            lineage.add_ref(read_body(&record?)?);
        }
        Ok(lineage)
    }

    /// Adds a decision about which version answers.
    pub fn add_head(&mut self, head: HeadRecord) {
        self.heads.push(head);
    }

    /// Adds, moves or removes a name.
    pub fn add_ref(&mut self, name: RefRecord) {
        let key = (name.adapter.clone(), name.name.clone());
        if name.version.is_some() {
            self.refs.insert(key, name);
        } else {
            self.refs.remove(&key);
        }
    }

    /// Every decision about which version answers, in order.
    pub fn heads(&self) -> &[HeadRecord] {
        &self.heads
    }

    /// The names of an adapter's versions, in alphabetical order.
    pub fn refs<'a>(&'a self, adapter: &'a str) -> impl Iterator<Item = &'a RefRecord> {
        self.refs.values().filter(move |r| r.adapter == adapter)
    }

    /// The version that answers: the last decision's, or the newest in ledgers whose program made no such decisions.
    pub fn live(&self, adapter: &str) -> Option<&VersionRecord> {
        let heads = self.heads.iter().rev();
        let mut whole = heads.filter(|h| h.adapter == adapter && h.share.is_none());
        match whole.next() {
            Some(head) => self.get(adapter, head.version),
            None if self.heads.iter().any(|h| h.adapter == adapter) => None,
            // Only those programs left `through` out: a version of a later one answers when a head says so.
            None => {
                let mut first = self.versions.iter().rev();
                first.find(|v| v.adapter == adapter && v.through.is_none())
            }
        }
    }

    /// Finds a version by what a person writes: `7`, `v7`, `head`, `head~2`, a name, or the first digits (at least 6) of its
    /// content hash.
    pub fn find(&self, adapter: &str, text: &str) -> Option<&VersionRecord> {
        if let Some((base, back)) = text.split_once('~') {
            let start = self.find(adapter, base)?;
            return self.ancestors(start).nth(back.parse().ok()?);
        }
        if text == "head" {
            return self.live(adapter);
        }
        if let Some(named) = self.refs.get(&(adapter.to_owned(), text.to_owned())) {
            return self.get(adapter, named.version?);
        }
        let number = text.strip_prefix('v').unwrap_or(text);
        if let Ok(number) = number.parse()
            && let Some(found) = self.get(adapter, number)
        {
            return Some(found);
        }
        let mut all = self.versions.iter().filter(|v| v.adapter == adapter);
        (text.len() >= 6)
            .then(|| all.find(|v| v.hash().to_string().starts_with(text)))
            .flatten()
    }

    /// Adds a version that has just been committed.
    pub fn add(&mut self, version: VersionRecord) {
        let at = self.versions.len();
        self.by_hash.insert(version.hash(), at);
        self.by_number.entry(version.version).or_default().push(at);
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
        let numbered = self.by_number.get(&version)?.iter();
        let mut numbered = numbered.map(|&at| &self.versions[at]);
        numbered.find(|v| v.adapter == adapter)
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

impl HeadRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Version`] when a number cannot be written as JSON.
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(Entry::new(HEAD, &*self.adapter, write_body(self)?))
    }
}

impl RefRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// As [`HeadRecord::to_entry`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(Entry::new(REF, &*self.adapter, write_body(self)?))
    }
}

fn write_body(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|source| Error::Version {
        seq: Seq::ZERO,
        source: Arc::new(source),
    })
}

fn read_body<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.body).map_err(|source| Error::Version {
        seq: record.seq,
        source: Arc::new(source),
    })
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
            ..VersionRecord::default()
        }
    }

    fn record(entry: Entry) -> Record {
        Record {
            erased: false,
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
    fn whoever_reads_while_versions_are_committed_finds_the_one_that_answers() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), crate::Options::default()).unwrap();
        let commit = |number| {
            let head = HeadRecord {
                adapter: "default".to_owned(),
                version: number,
                share: None,
                why: "trained".to_owned(),
            };
            let version = version(number, None).to_entry().unwrap();
            let group = vec![version, head.to_entry().unwrap()];
            ledger.append_all(group).wait().unwrap();
        };
        commit(1);
        std::thread::scope(|threads| {
            let writing = threads.spawn(|| (2..400).for_each(commit));
            while !writing.is_finished() {
                let lineage = Lineage::read(&ledger).unwrap();
                let head = lineage.heads().last().unwrap().version;
                let live = lineage.live("default").map(|v| v.version);
                assert_eq!(live, Some(head));
            }
        });
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
