//! What goes in ([`Entry`]), what comes out ([`Record`]), and the hash that chains them.
//!
//! The canonical encoding here is the one that `FORMAT.md` draws. It does not touch a file.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Digest, Error, Result};

/// The place of a record in the ledger. The first is 1; there are no gaps; order is this number, never a clock.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
    /// The first record.
    pub const FIRST: Self = Self(1);

    /// A sequence number that was stored elsewhere.
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Longest kind, in bytes: kinds are identifiers.
pub(crate) const MAX_KIND: usize = 64;
/// Longest subject or key, in bytes: they are indexed.
pub(crate) const MAX_NAME: usize = 1024;
/// Longest body, in bytes: larger values are blobs.
pub(crate) const MAX_BODY: usize = 64 << 20;

/// Something to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is, for example `turn`. 1 to 64 bytes.
    pub kind: String,
    /// What it is about, for example a turn's id; indexed. May be empty.
    pub subject: String,
    /// An idempotency key: a second append with the same key appends nothing and returns the first one's place.
    pub key: Option<String>,
    /// The content, never interpreted.
    pub body: Vec<u8>,
    /// Whether the body is kept encrypted under its subject's key: [`crate::Ledger::destroy_keys`] then erases it.
    pub sealed: bool,
}

impl Entry {
    /// An entry without an idempotency key.
    pub fn new(kind: impl Into<String>, subject: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            kind: kind.into(),
            subject: subject.into(),
            key: None,
            body,
            sealed: false,
        }
    }

    /// The same with a body that is sealed under the key of its subject, which is then not empty.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// The same with an idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let key = self.key.as_deref();
        for (field, len, least, most) in [
            ("kind", self.kind.len(), 1, MAX_KIND),
            (
                "subject",
                self.subject.len(),
                usize::from(self.sealed),
                MAX_NAME,
            ),
            ("key", key.map_or(1, str::len), 1, MAX_NAME),
            ("body", self.body.len(), 0, MAX_BODY),
        ] {
            if len < least || len > most {
                return Err(Error::Entry {
                    kind: self.kind.clone(),
                    field,
                    len,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place.
    pub seq: Seq,
    /// False when an earlier append with the same key had already put it there.
    pub fresh: bool,
}

/// A record that was read and whose hash was checked against its predecessor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// What the clock said when it was written, in milliseconds since 1970. For people; nothing is ordered by it.
    pub at_ms: i64,
    /// What it is.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// The content.
    pub body: Vec<u8>,
    /// The hash that chains it: over its predecessor's hash and all of the above, a sealed body as it lies on the disk.
    pub hash: Digest,
    /// True when the body was sealed and its key has been destroyed: there is no body any more.
    pub erased: bool,
}

/// The hash before the first record.
pub(crate) fn genesis() -> Digest {
    Digest::of(b"nextstate ledger 1")
}

/// The hash of a record that follows one whose hash is `prev`. The body enters by its own digest, so that the chain can be
/// checked without it. A sealed one enters as it lies on the disk, with the slot of its key.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each field that is hashed"
)]
pub(crate) fn chain(
    prev: &Digest,
    seq: Seq,
    at_ms: i64,
    kind: &str,
    subject: &str,
    key: Option<&str>,
    slot: Option<u32>,
    body: &[u8],
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(prev.as_bytes());
    hash.update(seq.get().to_le_bytes());
    hash.update(at_ms.to_le_bytes());
    for text in [kind, subject] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update([u8::from(key.is_some()) + if slot.is_some() { 2 } else { 0 }]);
    if let Some(key) = key {
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key.as_bytes());
    }
    if let Some(slot) = slot {
        hash.update(slot.to_le_bytes());
    }
    hash.update((body.len() as u64).to_le_bytes());
    hash.update(Digest::of(body).as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = (
        u64,
        i64,
        String,
        String,
        Option<String>,
        Vec<u8>,
        Option<u32>,
    );

    fn entries() -> impl Strategy<Value = Fields> {
        (
            1..u64::MAX,
            any::<i64>(),
            "[a-z]{1,8}",
            ".{0,8}",
            proptest::option::of(".{1,8}"),
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::option::of(any::<u32>()),
        )
    }

    fn hash(e: &Fields) -> Digest {
        chain(
            &genesis(),
            Seq::new(e.0),
            e.1,
            &e.2,
            &e.3,
            e.4.as_deref(),
            e.6,
            &e.5,
        )
    }

    proptest! {
        #[test]
        fn two_records_share_a_hash_only_when_every_field_is_equal(a in entries(), b in entries()) {
            prop_assert_eq!(hash(&a) == hash(&b), a == b);
        }

        #[test]
        fn moving_a_byte_from_one_field_to_the_next_changes_the_hash(mut a in entries()) {
            let before = hash(&a);
            let moved = a.2.pop();
            if let Some(c) = moved { a.3.insert(0, c); }
            prop_assert_ne!(hash(&a), before);
        }
    }

    #[test]
    fn the_hash_of_the_first_record_is_fixed_by_the_format() {
        let hash = chain(
            &genesis(),
            Seq::FIRST,
            0,
            "turn",
            "t-1",
            Some("k"),
            None,
            b"body",
        );
        assert_eq!(
            hash.to_string(),
            include_str!("../tests/golden/first-hash.txt").trim()
        );
    }

    #[test]
    fn an_entry_that_breaks_a_limit_is_refused_and_the_field_is_named() {
        let long = "x".repeat(MAX_NAME + 1);
        for (entry, field) in [
            (Entry::new("", "s", vec![]), "kind"),
            (Entry::new("x".repeat(65), "s", vec![]), "kind"),
            (Entry::new("k", long.clone(), vec![]), "subject"),
            (Entry::new("k", "s", vec![]).with_key(""), "key"),
            (Entry::new("k", "s", vec![]).with_key(long), "key"),
            (Entry::new("k", "s", vec![0; MAX_BODY + 1]), "body"),
            (Entry::new("k", "", vec![]).sealed(), "subject"),
        ] {
            let error = entry.check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
