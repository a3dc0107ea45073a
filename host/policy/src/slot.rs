//! The place where the trainer puts a version and the engine finds it.
//!
//! Publishing is one pointer swap; a reader keeps what it has loaded for as long as it wants. Loops never see weights,
//! only the version number.

use crate::adapter::Adapter;
use arc_swap::ArcSwap;
use rl::PolicyVersion;
use std::sync::Arc;

/// A version and the adapter that makes it; without an adapter it is the base model.
#[derive(Clone, Debug, Default)]
pub struct Deployed {
    /// The version.
    pub version: PolicyVersion,
    /// Its adapter; none for the weights on disk.
    pub adapter: Option<Arc<Adapter>>,
}

/// The deployed version, read between steps and replaced at any time.
#[derive(Debug)]
pub struct Slot {
    deployed: ArcSwap<Deployed>,
}

impl Slot {
    /// A slot that holds `deployed`.
    pub fn new(deployed: Deployed) -> Slot {
        Slot {
            deployed: ArcSwap::from_pointee(deployed),
        }
    }

    /// What is deployed now.
    pub fn load(&self) -> Arc<Deployed> {
        self.deployed.load_full()
    }

    /// Replaces what is deployed; the next reader sees it.
    pub fn publish(&self, deployed: Deployed) {
        self.deployed.store(Arc::new(deployed));
    }
}

impl Default for Slot {
    /// The base model as version 0.
    fn default() -> Self {
        Slot::new(Deployed::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_its_version_while_another_is_published() {
        let slot = Slot::default();
        let before = slot.load();
        slot.publish(Deployed {
            version: PolicyVersion::new(3),
            adapter: None,
        });
        assert_eq!(before.version, PolicyVersion::new(0));
        assert_eq!(slot.load().version, PolicyVersion::new(3));
    }
}
