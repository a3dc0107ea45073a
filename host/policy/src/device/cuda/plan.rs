//! What a pass prepares once for all its layers: where each row is, which pages hold its sequence, whose adapter it has.

use super::Cuda;
use super::memory::Grown;
use super::pages::Cache;
use super::shelf::{Leases, SLOTS};
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::device::{Sequences, Span};
use crate::error::{Error, Result};
use kernels::cuda::adapters::{Segment, Segments};
use kernels::cuda::attention::{self, Heads, Room, Rows};
use kernels::cuda::attention_backward::Keys;
use kernels::cuda::decode_attention;
use kernels::cuda::kv::{PAGE, PageTable, SPLIT};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A pass's lists on the GPU; they stay for the next pass where they are large enough.
#[derive(Default, Debug)]
pub(crate) struct Plan {
    pub(super) rows: usize,
    pub(super) tokens: Grown<u32>,
    /// Of each row.
    pub(super) positions: Grown<i32>,
    pub(super) sequences: Grown<i32>,
    /// What `sequences` holds.
    numbers: Vec<i32>,
    /// How often the table or the decode step's memory was made anew.
    remade: u64,
    table: Option<PageTable>,
    attention: Option<(Room, attention::Plan)>,
    /// For gradients, of training passes only.
    keys: Option<Keys>,
    /// With the sequences and the splits of all of them that it has room for.
    decode: Option<(Room, Mutex<decode_attention::Work>)>,
    /// Room for the keys of every sequence, when each has one row.
    single: Option<usize>,
    /// By how many they have room for.
    segments: BTreeMap<usize, Segments>,
    leases: Leases,
    /// Which of the segments say who has which adapter, if any row has one.
    adapted: Option<usize>,
}

/// What the launches of a step depend on, besides the memory of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    rows: usize,
    keys: usize,
    adapted: Option<usize>,
    remade: u64,
}

impl Plan {
    pub(super) fn lay<S: Sequences<Cuda>>(
        &mut self,
        device: &Cuda,
        config: &ModelConfig,
        batch: &S,
        tokens: &[u32],
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
        if !tokens.is_empty() {
            device.put(tokens, &mut self.tokens)?;
        }
        device.put(&positions, &mut self.positions)?;
        if self.numbers != sequences {
            device.put(&sequences, &mut self.sequences)?;
            self.numbers = sequences;
        }
        self.tables(device, batch)?;
        let keys = parts.iter().map(|p| p.start + p.count).max().unwrap_or(0);
        let single = !device.training && parts.iter().all(|p| p.count == 1);
        // In whole splits of the kernel: a step's launches stay the same until it needs one more.
        self.single = single.then_some(keys.next_multiple_of(SPLIT));
        let heads = heads(config);
        let rows = Room {
            rows: self.rows,
            sequences: parts.len(),
        };
        match self.single {
            Some(keys) => {
                let splits = parts.len() * keys / SPLIT;
                let asked = Room {
                    rows: splits,
                    ..rows
                };
                let has = self.decode.as_ref().map(|(has, _)| *has);
                if let Some(room) = larger(has, asked) {
                    let (on, count) = (device.stream(), room.sequences);
                    let work = decode_attention::Work::with_splits(on, heads, count, room.rows)?;
                    self.decode = Some((room, Mutex::new(work)));
                    self.remade += 1;
                }
            }
            None => {
                let has = self.attention.as_ref().map(|(has, _)| *has);
                if let Some(room) = larger(has, rows) {
                    let plan = attention::Plan::new(device.gpu(), heads, room)?;
                    self.attention = Some((room, plan));
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
        let asked = Room {
            rows: deepest,
            sequences: batch.count(),
        };
        let of_pool = self.table.take().filter(|table| table.pages() == pool);
        let has = of_pool.as_ref().map(|table| Room {
            rows: table.ld(),
            sequences: table.sequences(),
        });
        let mut table = match (of_pool, larger(has, asked)) {
            (Some(table), None) => table,
            (_, room) => {
                self.remade += 1;
                let Room { rows, sequences } = room.unwrap_or(asked);
                PageTable::new(device.stream(), sequences, rows, pool)?
            }
        };
        for i in 0..batch.count() {
            for (index, page) in batch.cache(i).numbers().enumerate() {
                // Whole pages before a span are those of the spans that it goes on from.
                let (mut owner, mut span) = (i, batch.span(i));
                while let Some(parent) = span.parent.filter(|_| index * PAGE < span.start) {
                    (owner, span) = (parent, batch.span(parent));
                }
                let page = if owner == i {
                    page
                } else {
                    batch.cache(owner).numbers().nth(index).unwrap_or(page)
                };
                table.set(i, index, page)?;
            }
        }
        table.upload(device.stream())?;
        self.table = Some(table);
        Ok(())
    }

    /// Leases the adapters of the batch and lists their rows.
    fn adapters<S: Sequences<Cuda>>(&mut self, device: &Cuda, batch: &S) -> Result<()> {
        let mut wanted: Vec<&Adapter> = (0..batch.count())
            .filter_map(|i| batch.span(i).adapter)
            .collect();
        wanted.sort_by_key(|adapter| std::ptr::from_ref::<Adapter>(adapter));
        wanted.dedup_by_key(|adapter| std::ptr::from_ref::<Adapter>(adapter));
        self.leases.keep(&wanted)?;
        let mut list: Vec<Segment> = Vec::new();
        let mut met: BTreeMap<*const Adapter, usize> = BTreeMap::new();
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                adapter,
                ..
            } = batch.span(i);
            let Some(adapter) = adapter else { continue };
            let slot = match met.entry(std::ptr::from_ref(adapter)) {
                Entry::Occupied(slot) => *slot.get(),
                Entry::Vacant(place) => *place.insert(self.leases.slot(device, adapter)?),
            };
            match list.last_mut() {
                Some(last) if last.slot == slot && last.first + last.count == first => {
                    last.count += count;
                }
                _ => list.push(Segment { first, count, slot }),
            }
        }
        self.adapted = (!list.is_empty()).then(|| list.len().next_power_of_two());
        let Some(room) = self.adapted else {
            return Ok(());
        };
        let (on, rows) = (device.stream(), self.rows);
        let segments = match self.segments.entry(room) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Segments::new(on, room, rows)?),
        };
        Ok(segments.set_for(on, rows, &list, SLOTS)?)
    }

    /// What kind of step this is, when every sequence has one row.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.single.map(|keys| Kind {
            rows: self.rows,
            keys,
            adapted: self.adapted,
            remade: self.remade,
        })
    }

    pub(super) fn table(&self) -> Result<&PageTable> {
        self.table.as_ref().ok_or_else(unlaid)
    }

    /// Who has which adapter, when any row has one.
    pub(super) fn segments(&self) -> Option<&Segments> {
        self.adapted.and_then(|room| self.segments.get(&room))
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

    /// No fewer keys than a row sees, when every sequence has one row.
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

/// What to make anew when what there is has less room than is asked for: in powers of two, and with all the room that there was, so that
/// batches of several shapes that come in turn use the same memory, and the steps that were recorded with it.
fn larger(has: Option<Room>, asked: Room) -> Option<Room> {
    let has = has.unwrap_or(Room {
        rows: 0,
        sequences: 0,
    });
    let room = Room {
        rows: asked.rows.max(has.rows),
        sequences: asked.sequences.max(has.sequences),
    };
    (room != has).then(|| Room {
        rows: room.rows.next_power_of_two(),
        sequences: room.sequences.next_power_of_two(),
    })
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

#[cfg(test)]
mod tests {
    use super::{Room, larger};

    #[test]
    fn what_is_made_anew_has_room_for_what_there_was_room_for() {
        let room = |rows, sequences| Room { rows, sequences };
        let check = |has, asked, expected| assert_eq!(larger(has, asked), expected);
        check(None, room(5, 3), Some(room(8, 4)));
        check(Some(room(8, 4)), room(8, 1), None);
        check(Some(room(8, 4)), room(1, 5), Some(room(8, 8)));
        check(Some(room(8, 8)), room(9, 2), Some(room(16, 8)));
        // Without sequences there is nothing to make.
        check(None, room(0, 0), None);
    }
}
