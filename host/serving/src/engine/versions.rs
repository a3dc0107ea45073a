//! How many versions of trained adapters running sequences hold.
//!
//! A sequence keeps the weights that it began with, so that a version that is long replaced stays in memory while a reply of it runs. Where
//! training is fast and replies are long, each of them could hold another one; the plan of a host's memory counts `max-versions`.

use std::sync::Arc;

use policy::{Adapter, Deployed};
use rl::PolicyVersion;

use super::sequence::{Loaded, Sequence};

/// Whether a sequence may begin beside `live` when they may hold `most` versions.
pub(super) fn fits(live: &[Sequence], next: &Deployed, most: usize) -> bool {
    let Some(next) = trained(next.version, next.adapter.as_ref()) else {
        return true;
    };
    let of = |Loaded {
                  version, adapter, ..
              }: &Loaded| trained(*version, adapter.as_ref());
    let mut held: Vec<_> = live.iter().filter_map(|s| of(&s.weights)).collect();
    held.push(next);
    held.sort_unstable();
    held.dedup();
    held.len() <= most
}

/// Which one it is. An adapter that is served and not trained has no version, and is in memory whether or not it is used.
fn trained(version: PolicyVersion, adapter: Option<&Arc<Adapter>>) -> Option<*const Adapter> {
    adapter
        .filter(|_| version != PolicyVersion::BASE)
        .map(Arc::as_ptr)
}
