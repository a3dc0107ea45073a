//! [`rl::Shelf`] over a [`Slot`]: bytes become weights, are checked, and are swapped in.
//!
//! Trains nothing and keeps no more than the slot does. A version that the slot still holds is one pointer swap away.

use std::sync::Arc;

use rl::{PolicyVersion, Shelf, Stored};

use crate::{Adapter, Deployed, ModelConfig, Slot};

/// Switches the versions of one slot.
#[derive(Clone, Debug)]
pub struct SlotShelf {
    slot: Arc<Slot>,
    model: ModelConfig,
    rank: usize,
    alpha: f32,
}

impl SlotShelf {
    /// A shelf for adapters of this model with this rank and α, which the bytes of an adapter do not hold.
    pub fn new(slot: Arc<Slot>, model: ModelConfig, rank: usize, alpha: f32) -> Self {
        Self {
            slot,
            model,
            rank,
            alpha,
        }
    }

    /// The version from the slot, from the bytes, or the base.
    fn find(
        &self,
        version: PolicyVersion,
        adapter: Option<Stored<'_>>,
    ) -> rl::Result<Arc<Deployed>> {
        if let Some(kept) = self.slot.recent(version) {
            if let Some(digest) = adapter.and_then(|stored| stored.digest) {
                check_digest(version, kept.adapter.as_deref(), digest)?;
            }
            return Ok(kept);
        }
        match adapter {
            Some(stored) => self.read(version, stored),
            None if version == PolicyVersion::BASE => Ok(Arc::default()),
            None => Err(refused(
                version,
                "it is not held in memory, and no bytes were given",
            )),
        }
    }

    fn read(&self, version: PolicyVersion, stored: Stored<'_>) -> rl::Result<Arc<Deployed>> {
        let adapter = Adapter::from_safetensors(stored.bytes, &self.model, self.alpha);
        let adapter = adapter.map_err(|error| refused(version, with_causes(&error)))?;
        if adapter.rank() != self.rank {
            let why = format!(
                "its rank is {}, but this host's adapters have rank {}",
                adapter.rank(),
                self.rank
            );
            return Err(refused(version, why));
        }
        if let Some(digest) = stored.digest {
            check_digest(version, Some(&adapter), digest)?;
        }
        Ok(Arc::new(Deployed {
            version,
            adapter: Some(Arc::new(adapter)),
        }))
    }
}

impl Shelf for SlotShelf {
    fn show(&self, version: PolicyVersion, adapter: Option<Stored<'_>>) -> rl::Result<()> {
        self.slot.put(&self.find(version, adapter)?);
        Ok(())
    }

    fn show_as(&self, version: PolicyVersion, of: PolicyVersion) -> bool {
        let held = match self.slot.recent(of) {
            Some(held) => held,
            None if of == PolicyVersion::BASE => Arc::default(),
            None => return false,
        };
        let adapter = held.adapter.clone();
        self.slot.put(&Arc::new(Deployed { version, adapter }));
        true
    }

    fn holds(&self, version: PolicyVersion) -> bool {
        version == PolicyVersion::BASE || self.slot.recent(version).is_some()
    }

    fn try_out(
        &self,
        version: PolicyVersion,
        adapter: Option<Stored<'_>>,
        share: f64,
    ) -> rl::Result<()> {
        if !(share > 0.0 && share <= 1.0) {
            let why = format!("a share of {share} of the sessions is not above 0 and at most 1");
            return Err(refused(version, why));
        }
        self.slot.begin_trial(self.find(version, adapter)?, share);
        Ok(())
    }

    fn end_trial(&self) {
        self.slot.end_trial();
    }

    fn forget(&self) {
        self.slot.forget();
    }
}

fn check_digest(
    version: PolicyVersion,
    adapter: Option<&Adapter>,
    expected: &str,
) -> rl::Result<()> {
    let found = adapter.map(Adapter::digest).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    let why = format!("its weights have the digest {found:?}, expected {expected:?}");
    Err(refused(version, why))
}

fn refused(version: PolicyVersion, why: impl Into<String>) -> rl::Error {
    rl::Error::Refused {
        what: format!("serving {version}"),
        why: why.into(),
    }
}

fn with_causes(error: &crate::Error) -> String {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        why.push_str(": ");
        why.push_str(&source.to_string());
        cause = source.source();
    }
    why
}
