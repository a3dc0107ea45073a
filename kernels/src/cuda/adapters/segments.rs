//! Whose rows a call has: segments with an adapter each.
//!
//! Knows nothing of what an adapter is. Start at [`Segments::set`].

use super::ints;
use crate::Result;
use crate::cuda::{Buffer, Element, Stream};
use crate::error::require;

/// Rows of a call that have the adapter in `slot`; rows of no segment have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The first row.
    pub first: usize,
    /// Rows, at least one.
    pub count: usize,
    /// Place in the table.
    pub slot: usize,
}

/// `adapter::Segment` of cuda/adapter.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RawSegment {
    first: i32,
    count: i32,
    slot: i32,
    unused: i32,
}

// SAFETY: plain numbers, 16 bytes without padding.
unsafe impl Element for RawSegment {}

/// The segments of a call's rows, on the GPU. A recorded graph sees what was [set](Segments::set) last.
#[derive(Debug)]
pub struct Segments {
    device: Buffer<RawSegment>,
    capacity: usize,
    rows: usize,
}

impl Segments {
    /// Room for `capacity` segments of calls with `rows` rows; none is set.
    ///
    /// # Errors
    /// [`crate::Error::Argument`]; [`crate::Error::Driver`].
    pub fn new(on: &Stream, capacity: usize, rows: usize) -> Result<Segments> {
        let mut segments = Segments {
            device: on.gpu().buffer(capacity)?,
            capacity,
            rows,
        };
        segments.set(on, &[], 0)?;
        Ok(segments)
    }

    /// Rows of the calls.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn address(&self) -> u64 {
        self.device.address()
    }

    /// How many there can be.
    pub(in crate::cuda) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The segments from here on; `slots` are the table's.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] unless they are ascending, disjoint, not empty, inside the rows and slots, and fit; [`crate::Error::Driver`].
    pub fn set(&mut self, on: &Stream, segments: &[Segment], slots: usize) -> Result<()> {
        let count = segments.len();
        require!(
            "adapters.segments",
            count = count as f64,
            count <= self.capacity,
            "there is no room for more"
        );
        // Behind the last: no rows, after all others, so that kernels stop there.
        let none = RawSegment {
            first: i32::MAX,
            count: 0,
            slot: -1,
            unused: 0,
        };
        let mut raw = vec![none; self.capacity];
        let mut end = 0;
        for (to, segment) in raw.iter_mut().zip(segments) {
            let Segment { first, count, slot } = *segment;
            let sound = first >= end && count > 0 && count <= self.rows.saturating_sub(first);
            require!(
                "adapters.segments",
                first = first as f64,
                sound,
                "segments ascend, have rows, share none, and end inside the call"
            );
            require!(
                "adapters.segments",
                slot = slot as f64,
                slot < slots,
                "the table has no such slot"
            );
            end = first + count;
            let [first, count, slot] = ints("adapters.segments", [first, count, slot])?;
            *to = RawSegment {
                first,
                count,
                slot,
                unused: 0,
            };
        }
        on.write(&raw, &mut self.device.view_mut())
    }
}
