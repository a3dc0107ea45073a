//! What the ledger says the trained adapter's versions look like: the digests that replies carry, remembered.
//!
//! A version's fingerprint never changes, so that one look into the ledger serves every reply of it. Who compares is
//! [`crate::turns`].

use std::{collections::HashMap, sync::Arc};

use ledger::{Record, lineage::VersionRecord};
use parking_lot::Mutex;
use rl::{AdapterName, PolicyVersion};

/// Versions remembered: more than answer at any time. The others are looked up again.
const REMEMBERED: usize = 64;

/// Fingerprints of versions that have answered.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints {
    known: Mutex<HashMap<(AdapterName, PolicyVersion), Arc<str>>>,
}

impl Fingerprints {
    /// The fingerprint of a version that was looked up before. The base never needs to be: it has none.
    pub(crate) fn get(&self, adapter: &AdapterName, version: PolicyVersion) -> Option<Arc<str>> {
        if version == PolicyVersion::BASE {
            return Some("".into());
        }
        let key = (adapter.clone(), version);
        self.known.lock().get(&key).cloned()
    }

    /// Remembers what the ledger says; none of a version that it does not know.
    ///
    /// # Errors
    /// The ledger's, for a record that is no version.
    pub(crate) fn learn(
        &self,
        adapter: &AdapterName,
        version: PolicyVersion,
        record: Option<&Record>,
    ) -> ledger::Result<Option<Arc<str>>> {
        let Some(record) = record.filter(|record| !record.erased) else {
            return Ok(None);
        };
        let version_record = VersionRecord::from_record(record)?;
        let fingerprint: Arc<str> = version_record.fingerprint().unwrap_or_default().into();
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((adapter.clone(), version), Arc::clone(&fingerprint));
        Ok(Some(fingerprint))
    }
}
