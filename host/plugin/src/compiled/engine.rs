//! What an engine's code runs on, as a digest: wasmtime's version, the target, the processor's features, and every setting that code depends on.

use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

/// Two engines with the same digest can run each other's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EngineDigest(pub(super) [u8; 32]);

impl EngineDigest {
    pub(crate) fn of(engine: &Engine) -> Self {
        let mut all = All(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut all);
        Self(all.0.finalize().into())
    }
}

/// Takes all that is hashed: 64 bits, as `Hash` is made for, are too few to keep two engines apart.
struct All(Sha256);

impl Hasher for All {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0 // Nobody asks.
    }
}
