//! Who has which low-rank adapter: packed adapters on the GPU, the table that kernels find them by, and the rows of a call.
//!
//! Knows nothing of training or of files. Publishing an adapter is one write to the table between two launches. Start at
//! [`Table`]; the products are in [`super::gemm`] and [`super::lora`].

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use parking_lot::Mutex;

use super::launch::{Argument, Grid};
use super::{Buffer, Element, Gpu, Stream, View};
use crate::error::{check, require};
use crate::{Error, Result};

mod pack;
mod segments;

use pack::{PACKED, Pack};
pub use segments::{Segment, Segments};

/// Terms of one step of the tensor cores; ranks, inputs and outputs are filled up to multiples of it.
pub(super) const STEP: usize = 16;

/// The most projections that one (fused) linear map has: query, key and value.
const PARTS: usize = 3;

/// What a projection maps: its outputs O and its inputs I.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// O, a multiple of 16.
    pub outputs: usize,
    /// I, a multiple of 16.
    pub inputs: usize,
}

/// An adapter's projections as products read them: bf16, both matrices in both orientations, the rank filled up with zeros, one after
/// another in one piece of memory.
#[derive(Debug)]
pub struct Packed {
    data: Buffer<bf16>,
    shapes: Vec<Shape>,
    rank: usize,
    scale: f32,
}

impl Packed {
    /// Memory for an adapter with these projections; [`Packed::pack`] fills it. `scale` is s = α / R.
    ///
    /// # Errors
    /// [`Error::Argument`] for rank 0, or sizes that are not multiples of 16; [`Error::Driver`].
    pub fn new(gpu: &Gpu, shapes: &[Shape], rank: usize, scale: f32) -> Result<Packed> {
        for shape in shapes {
            step("adapters.packed", "outputs", shape.outputs)?;
            step("adapters.packed", "inputs", shape.inputs)?;
        }
        require!(
            "adapters.packed",
            rank = rank as f64,
            rank > 0,
            "an adapter has a rank"
        );
        let padded = rank.next_multiple_of(STEP);
        let elements = shapes.iter().map(|s| 2 * (s.inputs + s.outputs) * padded);
        Ok(Packed {
            data: gpu.buffer(elements.sum())?,
            shapes: shapes.to_vec(),
            rank,
            scale,
        })
    }

    /// Whether an adapter with these projections takes exactly this memory.
    pub fn fits(&self, shapes: &[Shape], rank: usize) -> bool {
        rank > 0 && self.shapes == shapes && self.padded() == rank.next_multiple_of(STEP)
    }

    /// The same memory for another adapter. Whoever reads the old one must be done, or be waited for by the stream that fills this.
    ///
    /// # Errors
    /// [`Error::Argument`] for a rank that this memory does not [fit](Packed::fits).
    pub fn again(self, rank: usize, scale: f32) -> Result<Packed> {
        require!(
            "adapters.again",
            rank = rank as f64,
            self.fits(&self.shapes, rank),
            "an adapter takes as much memory"
        );
        Ok(Packed {
            rank,
            scale,
            ..self
        })
    }

    /// Rounds the masters of projections from `first` on, once: seven a launch.
    ///
    /// # Shapes
    /// Of each, `a`: (R, I) · `b`: (O, R).
    ///
    /// # Errors
    /// [`Error::Argument`] for projections that it has not; [`Error::Shape`]; [`Error::Driver`].
    pub fn pack(
        &mut self,
        on: &Stream,
        first: usize,
        masters: &[[View<'_, f32>; 2]],
    ) -> Result<()> {
        let (rank, padded) = (self.rank, self.padded());
        for (i, masters) in masters.chunks(PACKED).enumerate() {
            let mut launch = Pack::default();
            for (i, &[a, b]) in (first + i * PACKED..).zip(masters) {
                let Some(&Shape { outputs, inputs }) = self.shapes.get(i) else {
                    return Err(Error::Argument {
                        op: "adapters.pack",
                        what: "projection",
                        rule: "the adapter has fewer",
                        found: i as f64,
                    });
                };
                check!("adapters.pack", a: rank * inputs, b: outputs * rank);
                let [at_a, at_a_t, at_b, at_b_t] = self.places(i);
                on.uses(*a.address());
                on.uses(*b.address());
                launch.add(a, (rank, inputs), (padded, inputs), self.at([at_a, at_a_t]))?;
                launch.add(
                    b,
                    (outputs, rank),
                    (outputs, padded),
                    self.at([at_b, at_b_t]),
                )?;
            }
            on.uses(self.data.address());
            let grid = Grid {
                blocks: [launch.blocks, 1, 1],
                threads: 256,
                shared: 0,
            };
            // SAFETY: `Pack` is `lora::Matrices`; `Packed::new` made both outputs of each (tall, wide), which no other has, and the
            // check proved what they come from; blocks are counted with it.
            unsafe { on.launch("lora_pack", grid, &[&launch]) }?;
        }
        Ok(())
    }

    /// Addresses of elements.
    fn at<const N: usize>(&self, places: [usize; N]) -> [u64; N] {
        places.map(|at| self.data.address() + (at * size_of::<bf16>()) as u64)
    }

    /// Where a projection's A, its transpose, B and its transpose begin.
    fn places(&self, projection: usize) -> [usize; 4] {
        let padded = self.padded();
        let before = self.shapes[..projection].iter();
        let first: usize = before.map(|s| 2 * (s.inputs + s.outputs) * padded).sum();
        let Shape { outputs, inputs } = self.shapes[projection];
        let b = first + 2 * inputs * padded;
        [first, first + inputs * padded, b, b + outputs * padded]
    }

    /// What kernels find of a projection.
    fn entry(&self, projection: usize, rank: i32) -> Entry {
        let [a, a_t, b, b_t] = self.at(self.places(projection));
        Entry {
            a,
            b,
            a_t,
            b_t,
            rank,
            scale: self.scale,
        }
    }

    /// The rank, filled up.
    fn padded(&self) -> usize {
        self.rank.next_multiple_of(STEP)
    }
}

/// `adapter::Entry` of cuda/adapter.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Entry {
    a: u64,
    b: u64,
    a_t: u64,
    b_t: u64,
    rank: i32,
    scale: f32,
}

// SAFETY: plain numbers, 40 bytes without padding.
unsafe impl Element for Entry {}

/// Rank 0: it adds nothing.
const EMPTY: Entry = Entry {
    a: 0,
    b: 0,
    a_t: 0,
    b_t: 0,
    rank: 0,
    scale: 0.0,
};

/// Which adapter is in which slot, for every projection of a model.
///
/// An empty place counts as an adapter of rank 0, which adds nothing. Who computes with the table waits for nobody who changes it:
/// that is a copy to the GPU, in the order of its stream.
#[derive(Debug)]
pub struct Table {
    /// Of `places`, where kernels find it.
    address: u64,
    places: Mutex<Places>,
    shapes: Vec<Shape>,
    slots: usize,
    largest_rank: usize,
}

#[derive(Debug)]
struct Places {
    device: Buffer<Entry>,
    /// What the kernels' pointers point to.
    held: Vec<Option<Arc<Packed>>>,
}

impl Table {
    /// An empty table for `slots` adapters, of which each has the projections `shapes` and ranks up to `largest_rank`.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes that are not multiples of 16; [`Error::Driver`].
    pub fn new(on: &Stream, slots: usize, shapes: &[Shape], largest_rank: usize) -> Result<Table> {
        for shape in shapes {
            step("adapters.table", "outputs", shape.outputs)?;
            step("adapters.table", "inputs", shape.inputs)?;
        }
        let largest_rank = largest_rank.max(1).next_multiple_of(STEP);
        let places = slots * shapes.len();
        let mut device = on.gpu().buffer(places)?;
        on.zero(&mut device.view_mut())?;
        let held = vec![None; places];
        Ok(Table {
            address: device.address(),
            places: Mutex::new(Places { device, held }),
            shapes: shapes.to_vec(),
            slots,
            largest_rank,
        })
    }

    /// Puts an adapter's projections into the places of a slot from `first` on, or takes out what is at `first`. Work that is queued on
    /// `on` before sees what was there before.
    ///
    /// # Errors
    /// [`Error::Argument`] for a place that does not exist, another shape or too large a rank; [`Error::Driver`].
    pub fn publish(
        &self,
        on: &Stream,
        slot: usize,
        first: usize,
        adapter: Option<Arc<Packed>>,
    ) -> Result<()> {
        let count = adapter.as_ref().map_or(1, |packed| packed.shapes.len());
        let there = slot < self.slots && first + count <= self.shapes.len();
        require!(
            "adapters.publish",
            slot = slot as f64,
            there,
            "the table has that slot and those projections"
        );
        let mut entries = vec![EMPTY; count];
        if let Some(packed) = &adapter {
            let rank = packed.padded();
            let shapes = &self.shapes[first..first + count];
            let fits = packed.shapes == shapes && rank <= self.largest_rank;
            require!(
                "adapters.publish",
                rank = rank as f64,
                fits,
                "a projection has another shape, or the table smaller ranks"
            );
            let [rank] = ints("adapters.publish", [rank])?;
            for (projection, entry) in entries.iter_mut().enumerate() {
                *entry = packed.entry(projection, rank);
            }
        }
        let place = slot * self.shapes.len() + first;
        let Places { device, held } = &mut *self.places.lock();
        on.write(&entries, &mut device.part_mut(place..place + count)?)?;
        held[place..place + count].fill(adapter);
        Ok(())
    }

    /// Takes everything out of a slot. Work that is queued on `on` before sees what was there.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slot that does not exist; [`Error::Driver`].
    pub fn clear(&self, on: &Stream, slot: usize) -> Result<()> {
        require!(
            "adapters.clear",
            slot = slot as f64,
            slot < self.slots,
            "the table has that slot"
        );
        let places = slot * self.shapes.len()..(slot + 1) * self.shapes.len();
        let Places { device, held } = &mut *self.places.lock();
        on.zero(&mut device.part_mut(places.clone())?)?;
        held[places].fill(None);
        Ok(())
    }

    /// The largest rank, a multiple of 16: columns of each part of `u`.
    pub fn largest_rank(&self) -> usize {
        self.largest_rank
    }
}

/// The adapters beside one (fused) linear map.
#[derive(Clone, Copy, Debug)]
pub struct Adapters<'a> {
    /// Where they are found.
    pub table: &'a Table,
    /// Whose rows they are.
    pub segments: &'a Segments,
    /// The projections that are fused here: place in the table, and outputs of the map, both multiples of 16.
    pub parts: &'a [Part],
}

/// One projection of a (fused) linear map.
#[derive(Clone, Debug)]
pub struct Part {
    /// Place in the table.
    pub projection: usize,
    /// Its outputs among those of the map.
    pub outputs: Range<usize>,
}

/// Which side of the map an adapter's wide matrix has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Inputs,
    Outputs,
}

/// `adapter::Lora` of cuda/adapter.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    table: u64,
    segments: u64,
    u: u64,
    segment_count: i32,
    stride: i32,
    ldu: i32,
    part_count: i32,
    parts: [[i32; 4]; PARTS],
}

impl Argument for Raw {
    fn place(&self) -> (*const std::ffi::c_void, usize) {
        (std::ptr::from_ref(self).cast(), size_of::<Raw>())
    }
}

impl Raw {
    /// No adapters.
    pub(super) const NONE: Raw = Raw {
        table: 0,
        segments: 0,
        u: 0,
        segment_count: 0,
        stride: 0,
        ldu: 0,
        part_count: 0,
        parts: [[0; 4]; PARTS],
    };
}

impl Adapters<'_> {
    /// Columns of `u`: each part has as many as the table's largest rank.
    pub fn inner(&self) -> usize {
        self.parts.len() * self.table.largest_rank
    }

    /// What a kernel is told, for a map of this shape. Checks everything that the kernels take for granted.
    pub(super) fn raw(
        &self,
        on: &Stream,
        op: &'static str,
        rows: usize,
        map: Shape,
        u: &u64,
        side: Side,
    ) -> Result<Raw> {
        let bad = |what, rule, found: usize| {
            Err(Error::Argument {
                op,
                what,
                rule,
                found: found as f64,
            })
        };
        aligned(op, "inner", u)?;
        if self.segments.rows() > rows {
            let rule = "the segments are of a larger call";
            return bad("rows", rule, rows);
        }
        if self.parts.len() > PARTS {
            return bad("parts", "a map fuses three at most", self.parts.len());
        }
        let mut parts = [[0; 4]; PARTS];
        for (i, (to, part)) in parts.iter_mut().zip(self.parts).enumerate() {
            let Part {
                projection,
                outputs,
            } = part;
            let shape = Shape {
                outputs: outputs.len(),
                inputs: map.inputs,
            };
            if self.table.shapes.get(*projection) != Some(&shape) {
                return bad("projection", "it has another shape", *projection);
            }
            if outputs.end > map.outputs || !outputs.start.is_multiple_of(STEP) {
                return bad(
                    "outputs",
                    "a part lies inside the map and begins at a multiple of 16",
                    outputs.start,
                );
            }
            let (first, end) = match side {
                Side::Inputs => (0, map.inputs),
                Side::Outputs => (outputs.start, outputs.end),
            };
            *to = ints(op, [first, end, *projection, i * self.table.largest_rank])?;
        }
        for address in [self.table.address, self.segments.address()] {
            on.uses(address);
        }
        on.uses(*u);
        let counts = [
            self.segments.capacity(),
            self.table.shapes.len(),
            self.inner(),
            self.parts.len(),
        ];
        let [segment_count, stride, ldu, part_count] = ints(op, counts)?;
        Ok(Raw {
            table: self.table.address,
            segments: self.segments.address(),
            u: *u,
            segment_count,
            stride,
            ldu,
            part_count,
            parts,
        })
    }
}

/// Refuses a size that is not a positive multiple of 16.
pub(super) fn step(op: &'static str, what: &'static str, size: usize) -> Result<()> {
    if size > 0 && size.is_multiple_of(STEP) {
        return Ok(());
    }
    Err(Error::Argument {
        op,
        what,
        rule: "it is a positive multiple of 16",
        found: size as f64,
    })
}

/// Refuses memory that does not begin at a multiple of 16 bytes: kernels copy as many at a time.
pub(super) fn aligned(op: &'static str, what: &'static str, address: &u64) -> Result<()> {
    if address.is_multiple_of(16) {
        return Ok(());
    }
    Err(Error::Argument {
        op,
        what,
        rule: "it begins at a multiple of 16 bytes",
        found: (address % 16) as f64,
    })
}

/// Sizes as kernels take them.
pub(super) fn ints<const N: usize>(op: &'static str, sizes: [usize; N]) -> Result<[i32; N]> {
    let mut to = [0; N];
    for (to, size) in to.iter_mut().zip(sizes) {
        *to = i32::try_from(size).map_err(|_| Error::Argument {
            op,
            what: "size",
            rule: "kernels count to 2³¹",
            found: size as f64,
        })?;
    }
    Ok(to)
}
