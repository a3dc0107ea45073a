//! What a pass prepares once for all its layers: where each row is, which pages hold its sequence, whose adapter it has.

use super::Cuda;
use super::memory::Grown;
use super::pages::Cache;
use super::shelf::{Lease, SLOTS};
use crate::config::ModelConfig;
use crate::device::{Sequences, Span};
use crate::error::{Error, Result};
use kernels::cuda::adapters::{Segment, Segments};
use kernels::cuda::attention::{self, Heads, Room, Rows};
use kernels::cuda::attention_backward::Keys;
use kernels::cuda::decode_attention;
use kernels::cuda::kv::PageTable;
use parking_lot::{Mutex, MutexGuard};

/// A pass's lists on the GPU; they stay for the next pass where they are large enough.
#[derive(Default, Debug)]
pub(crate) struct Plan {
    pub(super) rows: usize,
    pub(super) tokens: Grown<u32>,
    /// Of each row.
    pub(super) positions: Grown<i32>,
    pub(super) sequences: Grown<i32>,
    table: Option<PageTable>,
    attention: Option<(Room, attention::Plan)>,
    /// For gradients, of training passes only.
    keys: Option<Keys>,
    decode: Option<(Room, Mutex<decode_attention::Work>)>,
    /// The most keys of a sequence, when each has one row.
    single: Option<usize>,
    segments: Option<Segments>,
    leases: Vec<Lease>,
    /// Whether any row has an adapter.
    pub(super) adapted: bool,
}

impl Plan {
    pub(super) fn lay<S: Sequences<Cuda>>(
        &mut self,
        device: &Cuda,
        config: &ModelConfig,
        batch: &S,
    ) -> Result<()> {
        let (mut positions, mut sequences, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            positions.extend((start..start + count).map(int));
            sequences.extend(std::iter::repeat_n(int(i), count));
            let sequence = i;
            parts.push(Rows {
                first,
                count,
                start,
                sequence,
            });
        }
        self.rows = positions.len();
        device.put(&positions, &mut self.positions)?;
        device.put(&sequences, &mut self.sequences)?;
        self.tables(device, batch)?;
        let keys = parts.iter().map(|p| p.start + p.count).max().unwrap_or(0);
        let single = !device.training && parts.iter().all(|p| p.count == 1);
        self.single = single.then_some(keys);
        let heads = heads(config);
        let rows = Room {
            rows: self.rows,
            sequences: parts.len(),
        };
        match self.single {
            Some(keys) => {
                // Room for another 512 keys: a decode step has one key more than the step before.
                let room = Room {
                    rows: keys.next_multiple_of(512),
                    ..rows
                };
                if self
                    .decode
                    .as_ref()
                    .is_none_or(|(has, _)| !holds(*has, room))
                {
                    let on = device.stream();
                    let work = decode_attention::Work::new(on, heads, room.sequences, room.rows)?;
                    self.decode = Some((room, Mutex::new(work)));
                }
            }
            None => {
                if self
                    .attention
                    .as_ref()
                    .is_none_or(|(has, _)| !holds(*has, rows))
                {
                    let plan = attention::Plan::new(device.gpu(), heads, rows)?;
                    self.attention = Some((rows, plan));
                }
                if let Some((_, plan)) = &mut self.attention {
                    plan.lay(device.stream(), &parts)?;
                    if device.training {
                        let mut keys = match self.keys.take() {
                            Some(keys) => keys,
                            None => Keys::new(device.gpu())?,
                        };
                        keys.lay(device.stream(), plan)?;
                        self.keys = Some(keys);
                    }
                }
            }
        }
        self.adapters(device, batch)
    }

    /// The page table of the batch.
    fn tables<S: Sequences<Cuda>>(&mut self, device: &Cuda, batch: &S) -> Result<()> {
        let (mut deepest, mut pool) = (1, 1);
        for i in 0..batch.count() {
            let cache: &Cache = batch.cache(i);
            deepest = deepest.max(cache.numbers().count());
            pool = pool.max(cache.pages().count());
        }
        let fits = |t: &PageTable| {
            t.sequences() >= batch.count() && t.ld() >= deepest && t.pages() == pool
        };
        let mut table = match self.table.take() {
            Some(table) if fits(&table) => table,
            _ => PageTable::new(device.stream(), batch.count(), deepest + deepest / 4, pool)?,
        };
        for i in 0..batch.count() {
            for (index, page) in batch.cache(i).numbers().enumerate() {
                table.set(i, index, page)?;
            }
        }
        table.upload(device.stream())?;
        self.table = Some(table);
        Ok(())
    }

    /// Leases the adapters of the batch and lists their rows.
    fn adapters<S: Sequences<Cuda>>(&mut self, device: &Cuda, batch: &S) -> Result<()> {
        self.leases.clear();
        let mut list: Vec<Segment> = Vec::new();
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                adapter,
                ..
            } = batch.span(i);
            let Some(adapter) = adapter else { continue };
            let lease = device.shelf(adapter)?;
            let slot = lease.slot;
            self.leases.push(lease);
            match list.last_mut() {
                Some(last) if last.slot == slot && last.first + last.count == first => {
                    last.count += count;
                }
                _ => list.push(Segment { first, count, slot }),
            }
        }
        self.adapted = !list.is_empty();
        if self.adapted {
            let mut segments = Segments::new(device.stream(), list.len(), self.rows)?;
            segments.set(device.stream(), &list, SLOTS)?;
            self.segments = Some(segments);
        }
        Ok(())
    }

    pub(super) fn table(&self) -> Result<&PageTable> {
        self.table.as_ref().ok_or_else(unlaid)
    }

    pub(super) fn segments(&self) -> Result<&Segments> {
        self.segments.as_ref().ok_or_else(unlaid)
    }

    pub(super) fn attention(&self) -> Result<&attention::Plan> {
        self.attention
            .as_ref()
            .map(|(_, plan)| plan)
            .ok_or_else(unlaid)
    }

    /// The keys of a training pass.
    pub(super) fn keys(&self) -> Result<&Keys> {
        self.keys.as_ref().ok_or_else(unlaid)
    }

    /// The most keys that a row sees, when every sequence has one row.
    pub(super) fn single(&self) -> Option<usize> {
        self.single
    }

    /// What single rows are computed in.
    pub(super) fn decode(&self) -> Result<MutexGuard<'_, decode_attention::Work>> {
        self.decode
            .as_ref()
            .map(|(_, work)| work.lock())
            .ok_or_else(unlaid)
    }
}

/// Whether what was made for `has` serves for `asked`.
fn holds(has: Room, asked: Room) -> bool {
    has.rows >= asked.rows && has.sequences >= asked.sequences
}

pub(super) fn heads(config: &ModelConfig) -> Heads {
    Heads {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    }
}

pub(super) fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn unlaid() -> Error {
    Error::Compute(kernels::Error::Argument {
        op: "policy.cuda",
        what: "plan",
        rule: "it is laid before a pass",
        found: 0.0,
    })
}
