//! Keys and values of finished sequences, kept for prompts that begin alike.
//!
//! An entry belongs to one scope and one adapter digest: another tenant's prompt is never reused (its timing would
//! tell), and an adapter's cache never serves another version. Bounded in bytes, least recently used out first. Reuse
//! changes no bit of any result. Holds no requests; [`super::worker`] asks before it computes a prompt.

use std::sync::Arc;

use policy::Kv;
use rl::{TenantId, TokenId};

/// Shorter common beginnings are computed again: copying them saves less than the bookkeeping costs.
pub(crate) const LEAST: usize = 16;

/// Whose, and by which weights. The digest is of everything that an adapter computes with: two versions that have one digest have the
/// same weights, and keys and values that are the same in every bit, so that a version's number adds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) tenant: TenantId,
    pub(crate) digest: Arc<str>,
}

#[derive(Debug)]
struct Entry {
    scope: Scope,
    tokens: Vec<TokenId>,
    kv: Kv,
}

/// The kept sequences, the least recently used first.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    limit: u64,
    bytes: u64,
    entries: Vec<Entry>,
}

impl PrefixCache {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: 0,
            entries: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops what was computed with weights of which `served` says that nobody gets them any more.
    pub(crate) fn retain(&mut self, served: impl Fn(&Arc<str>) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let keep = served(&entry.scope.digest);
            *bytes -= if keep { 0 } else { entry.kv.bytes() as u64 };
            keep
        });
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Fills `kv` with the longest kept beginning of `tokens`, at most `most` of them; gives how many.
    pub(crate) fn reuse(
        &mut self,
        scope: &Scope,
        tokens: &[TokenId],
        most: usize,
        kv: &mut Kv,
    ) -> policy::Result<usize> {
        let best = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.scope == *scope)
            .map(|(index, entry)| (common(&entry.tokens, tokens).min(most), index))
            .max();
        let Some((length, index)) = best.filter(|(length, _)| *length >= LEAST) else {
            return Ok(0);
        };
        let entry = self.entries.remove(index);
        let copied = kv.copy_prefix_from(&entry.kv, length);
        self.entries.push(entry);
        copied.map(|()| length)
    }

    /// Keeps a finished sequence. `tokens` are those that `kv` holds.
    pub(crate) fn keep(&mut self, scope: Scope, mut tokens: Vec<TokenId>, mut kv: Kv) {
        tokens.truncate(kv.len());
        kv.shrink();
        let size = kv.bytes() as u64;
        let covers = |long: &Entry, short: &[TokenId]| long.tokens.starts_with(short);
        if tokens.len() < LEAST
            || size > self.limit
            || self
                .entries
                .iter()
                .any(|entry| entry.scope == scope && covers(entry, &tokens))
        {
            return;
        }
        // What the new one begins with is of no further use.
        let entry = Entry { scope, tokens, kv };
        let mut freed = 0;
        self.entries.retain(|old| {
            let keep = old.scope != entry.scope || !covers(&entry, &old.tokens);
            freed += if keep { 0 } else { old.kv.bytes() as u64 };
            keep
        });
        self.bytes = self.bytes - freed + size;
        self.entries.push(entry);
        while self.bytes > self.limit {
            let oldest = self.entries.remove(0);
            self.bytes -= oldest.kv.bytes() as u64;
        }
    }
}

pub(crate) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
