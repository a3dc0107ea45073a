//! Adapters on a GPU: packed before a step needs them, found by their digest, thrown out when their place is needed.
//!
//! A pass holds the [`Leases`] of its adapters: what is leased is never thrown out, and what was let go of waits for the work that was
//! queued before, no more. Packing has a queue and memory of its own, so that serving goes on meanwhile: a step that meets an adapter for
//! the first time finds it in the table. Start at [`Cuda::lease`].

use super::{Cuda, Shared};
use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use kernels::Error as Refused;
use kernels::cuda::adapters::{Packed, Shape, Table};
use kernels::cuda::{Buffer, Event, Gpu, Priority, Staging, Stream};
use std::sync::{Arc, Weak};

/// Adapters that are on a GPU at the same time.
pub(super) const SLOTS: usize = 64;

/// What is in the table's slots.
#[derive(Debug)]
pub(super) struct Shelf {
    slots: Vec<Option<Arc<Held>>>,
    /// Counts up; the slot that was used longest ago goes first.
    clock: u64,
    used: Vec<u64>,
}

/// An adapter in a slot.
#[derive(Debug)]
struct Held {
    digest: String,
    packed: Arc<Packed>,
}

/// A slot that is not emptied while this exists.
#[derive(Debug)]
pub(super) struct Lease {
    slot: usize,
    held: Arc<Held>,
}

/// Those of a pass.
#[derive(Default, Debug)]
pub(super) struct Leases {
    list: Vec<Lease>,
    reader: Option<Reader>,
}

/// The queue that reads adapters. A caller's buffers have it as long as they like: it keeps no model.
#[derive(Debug)]
struct Reader {
    model: Weak<Shared>,
    stream: Arc<Stream>,
    training: bool,
}

impl Leases {
    /// Lets go of those that nobody in a pass has; no more work will be queued that reads them.
    pub(super) fn keep(&mut self, wanted: &[&Adapter]) -> Result<()> {
        let digests: Vec<String> = wanted.iter().map(|adapter| adapter.digest()).collect();
        let stays = |lease: &Lease| digests.contains(&lease.held.digest);
        if self.list.iter().all(stays) {
            return Ok(());
        }
        let reader = self.reader.as_ref();
        let model = reader.and_then(|reader| Some((reader, reader.model.upgrade()?)));
        if let Some((reader, shared)) = model {
            // First of all: whoever finds a slot free also finds this mark.
            let mark = &shared.let_go[usize::from(reader.training)];
            reader.stream.record(mark)?;
            let mut shelf = shared.shelf.lock();
            for lease in self.list.iter().filter(|lease| !stays(lease)) {
                shelf.touch(lease.slot);
            }
        }
        self.list.retain(stays);
        if self.list.is_empty() {
            self.reader = None;
        }
        Ok(())
    }

    /// The slot of an adapter, which is packed when it is met for the first time.
    pub(super) fn slot(&mut self, device: &Cuda, adapter: &Adapter) -> Result<usize> {
        let digest = adapter.digest();
        if let Some(lease) = self.list.iter().find(|l| l.held.digest == digest) {
            return Ok(lease.slot);
        }
        let lease = device.lease(adapter)?;
        let slot = lease.slot;
        self.reader.get_or_insert_with(|| Reader {
            model: Arc::downgrade(&device.shared),
            stream: Arc::clone(&device.stream),
            training: device.training,
        });
        self.list.push(lease);
        Ok(slot)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // A GPU that cannot mark its queue computes nothing any more.
        let _ = self.keep(&[]);
    }
}

/// What adapters are packed with, one at a time.
#[derive(Debug)]
pub(super) struct Packing {
    stream: Stream,
    /// One is filled while the GPU reads the other.
    staging: Option<[Staging<f32>; 2]>,
    masters: Option<Buffer<f32>>,
    /// Memory of adapters that gave their place to one of another size, the newest last; nobody reads it.
    spare: Vec<Packed>,
}

/// Adapters whose memory is kept while nobody has it: to give it back waits for everything that is queued, training, too. Ranks that come in
/// turn take from here; of a model of 4 billion parameters and rank 16 it is half a gigabyte.
const SPARE: usize = 4;

/// An empty table for adapters up to a rank.
pub(super) fn table(on: &Stream, config: &ModelConfig, rank: usize) -> Result<Table> {
    let shapes = shapes(config.layers, |p| p.shape(config));
    Ok(Table::new(on, SLOTS, &shapes, rank)?)
}

impl Default for Shelf {
    fn default() -> Self {
        Shelf {
            slots: vec![None; SLOTS],
            clock: 0,
            used: vec![0; SLOTS],
        }
    }
}

impl Shelf {
    /// The slot of an adapter, if it is here.
    fn lease(&mut self, digest: &str) -> Option<Lease> {
        let is = |held: &Option<Arc<Held>>| held.as_ref().is_some_and(|h| h.digest == digest);
        let slot = self.slots.iter().position(is)?;
        self.touch(slot);
        let held = Arc::clone(self.slots[slot].as_ref()?);
        Some(Lease { slot, held })
    }

    /// It was used last.
    fn touch(&mut self, slot: usize) {
        self.clock += 1;
        self.used[slot] = self.clock;
    }

    /// A slot that nobody leases, empty from here on, and what was in it.
    fn empty(&mut self) -> Result<(usize, Option<Arc<Packed>>)> {
        let free =
            |held: &Option<Arc<Held>>| held.as_ref().is_none_or(|h| Arc::strong_count(h) == 1);
        let slot = (0..SLOTS)
            .filter(|&i| free(&self.slots[i]))
            .min_by_key(|&i| (self.slots[i].is_some(), self.used[i]))
            .ok_or_else(full)?;
        let before = self.slots[slot].take();
        Ok((slot, before.map(|held| Arc::clone(&held.packed))))
    }

    fn put(&mut self, slot: usize, digest: String, packed: Arc<Packed>) -> Lease {
        let held = Arc::new(Held { digest, packed });
        self.touch(slot);
        self.slots[slot] = Some(Arc::clone(&held));
        Lease { slot, held }
    }
}

impl Packing {
    pub(super) fn new(gpu: &Gpu) -> Result<Packing> {
        Ok(Packing {
            // Somebody waits for a version, too, and it is little work.
            stream: gpu.stream(Priority::High)?,
            staging: None,
            masters: None,
            spare: Vec::new(),
        })
    }

    /// Memory for an adapter.
    fn room(&mut self, adapter: &Adapter) -> Result<Packed> {
        let shapes = shapes(adapter.layers(), |p| adapter.shape(p));
        let (rank, scale) = (adapter.rank(), adapter.scale());
        let fits = |spare: &Packed| spare.fits(&shapes, rank);
        let room = match self.spare.iter().rposition(fits) {
            Some(place) => self.spare.remove(place).again(rank, scale)?,
            None => Packed::new(self.stream.gpu(), &shapes, rank, scale)?,
        };
        let more = self.spare.len().saturating_sub(SPARE);
        self.spare.drain(..more);
        Ok(room)
    }

    /// Packs an adapter, layer by layer, and waits for it.
    fn pack(&mut self, adapter: &Adapter) -> Result<Packed> {
        let mut packed = self.room(adapter)?;
        let (on, gpu) = (&self.stream, self.stream.gpu());
        let len = adapter.params().len() / adapter.layers().max(1);
        let mut staging = match self.staging.take() {
            Some(staging) if staging[0].capacity() >= len => staging,
            _ => [gpu.staging(len.max(1))?, gpu.staging(len.max(1))?],
        };
        let mut masters = match self.masters.take() {
            Some(masters) if masters.len() >= len => masters,
            _ => gpu.buffer(len)?,
        };
        for layer in 0..adapter.layers() {
            let first = layer * len;
            let params = &adapter.params()[first..first + len];
            on.write_by(
                &mut staging[layer % 2],
                params,
                &mut masters.part_mut(0..len)?,
            )?;
            let part = |range: std::ops::Range<usize>| {
                masters.view().part(range.start - first..range.end - first)
            };
            let of_layer = Projection::ALL.map(|projection| {
                let (a, b) = adapter.at(layer, projection);
                Ok([part(a)?, part(b)?])
            });
            let of_layer: Vec<_> = of_layer.into_iter().collect::<Result<_>>()?;
            packed.pack(on, layer * Projection::ALL.len(), &of_layer)?;
        }
        on.wait()?;
        (self.staging, self.masters) = (Some(staging), Some(masters));
        Ok(packed)
    }
}

impl Cuda {
    /// The slot of an adapter, which is packed when it is met for the first time.
    pub(super) fn lease(&self, adapter: &Adapter) -> Result<Lease> {
        let digest = adapter.digest();
        let shared = &self.shared;
        if let Some(lease) = shared.shelf.lock().lease(&digest) {
            return Ok(lease);
        }
        let mut packing = shared.packing.lock();
        // Whoever had it packed meanwhile has let go of `packing`.
        if let Some(lease) = shared.shelf.lock().lease(&digest) {
            return Ok(lease);
        }
        let (slot, before) = shared.shelf.lock().empty()?;
        if let Some(before) = before {
            // Whatever may still read it; not what training has queued since.
            shared.let_go.iter().try_for_each(Event::wait)?;
            shared.table.clear(&packing.stream, slot)?;
            packing.spare.extend(Arc::into_inner(before));
        }
        let packed = Arc::new(packing.pack(adapter)?);
        let on = &packing.stream;
        shared
            .table
            .publish(on, slot, 0, Some(Arc::clone(&packed)))?;
        // Ten kilobytes; from here on every queue finds it.
        on.wait()?;
        Ok(shared.shelf.lock().put(slot, digest, packed))
    }
}

/// The projections of all layers, in the table's order.
fn shapes(layers: usize, of: impl Fn(Projection) -> (usize, usize)) -> Vec<Shape> {
    let shape = |projection| {
        let (outputs, inputs) = of(projection);
        Shape { outputs, inputs }
    };
    (0..layers)
        .flat_map(|_| Projection::ALL)
        .map(shape)
        .collect()
}

fn full() -> Error {
    Error::Compute(Refused::Argument {
        op: "policy.cuda",
        what: "adapters",
        rule: "so many are in use at once that no place is left",
        found: SLOTS as f64,
    })
}
