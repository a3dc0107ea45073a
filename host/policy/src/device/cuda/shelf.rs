//! Adapters on a GPU: packed when they are first met, found by their digest, thrown out when their place is needed.
//!
//! A pass holds the [`Lease`]s of its adapters: what is leased is never thrown out. Publishing is a write to the table that kernels
//! read, queued between two passes. Start at [`Shelf::lease`].

use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use kernels::Error as Refused;
use kernels::cuda::adapters::{Packed, Shape, Table};
use kernels::cuda::{Event, Stream};
use std::sync::Arc;

/// Adapters that are on a GPU at the same time.
pub(super) const SLOTS: usize = 64;

/// The table and what is in it.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) table: Table,
    slots: Vec<Option<Arc<Held>>>,
    /// Counts up; the slot that was used longest ago goes first.
    clock: u64,
    used: Vec<u64>,
}

/// An adapter in a slot.
#[derive(Debug)]
struct Held {
    digest: String,
    /// Reached when it is packed.
    ready: Event,
}

/// A slot that is not emptied while this exists.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(super) slot: usize,
    _held: Arc<Held>,
}

impl Shelf {
    /// An empty shelf for adapters up to a rank.
    pub(super) fn new(on: &Stream, config: &ModelConfig, rank: usize) -> Result<Shelf> {
        let shapes: Vec<Shape> = (0..config.layers)
            .flat_map(|_| Projection::ALL)
            .map(|projection| {
                let (outputs, inputs) = projection.shape(config);
                Shape { outputs, inputs }
            })
            .collect();
        Ok(Shelf {
            table: Table::new(on, SLOTS, &shapes, rank)?,
            slots: vec![None; SLOTS],
            clock: 0,
            used: vec![0; SLOTS],
        })
    }

    /// The slot of an adapter; what is queued on `on` afterwards finds it there.
    pub(super) fn lease(&mut self, on: &Stream, adapter: &Adapter) -> Result<Lease> {
        let digest = adapter.digest();
        self.clock += 1;
        let there = self
            .slots
            .iter()
            .position(|held| held.as_ref().is_some_and(|h| h.digest == digest));
        let slot = match there {
            Some(slot) => slot,
            None => self.put(on, adapter, digest)?,
        };
        self.used[slot] = self.clock;
        match &self.slots[slot] {
            Some(held) => {
                on.wait_for(&held.ready)?;
                Ok(Lease {
                    slot,
                    _held: Arc::clone(held),
                })
            }
            None => Err(full()),
        }
    }

    fn put(&mut self, on: &Stream, adapter: &Adapter, digest: String) -> Result<usize> {
        let slot = (0..SLOTS)
            .filter(|&i| {
                self.slots[i]
                    .as_ref()
                    .is_none_or(|h| Arc::strong_count(h) == 1)
            })
            .min_by_key(|&i| (self.slots[i].is_some(), self.used[i]))
            .ok_or_else(full)?;
        let masters = on.upload(adapter.params())?;
        self.slots[slot] = None;
        let layers = adapter.layers();
        for layer in 0..layers {
            for projection in Projection::ALL {
                let place = layer * Projection::ALL.len() + projection as usize;
                let (a, b) = adapter.at(layer, projection);
                let (outputs, inputs) = adapter.shape(projection);
                let shape = Shape { outputs, inputs };
                let mut packed = Packed::new(on.gpu(), shape, adapter.rank(), adapter.scale())?;
                packed.pack(on, masters.view().part(a)?, masters.view().part(b)?)?;
                self.table
                    .publish(on, slot, place, Some(Arc::new(packed)))?;
            }
        }
        let ready = on.gpu().event()?;
        on.record(&ready)?;
        self.slots[slot] = Some(Arc::new(Held { digest, ready }));
        Ok(slot)
    }
}

fn full() -> Error {
    Error::Compute(Refused::Argument {
        op: "policy.cuda",
        what: "adapters",
        rule: "so many are in use at once that no place is left",
        found: SLOTS as f64,
    })
}
