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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// What is there.
    host: Vec<RawSegment>,
    rows: usize,
}

/// Behind the last: no rows, after all others, so that kernels stop there.
const NONE: RawSegment = RawSegment {
    first: i32::MAX,
    count: 0,
    slot: -1,
    unused: 0,
};

/// What no call asks for.
const UNKNOWN: RawSegment = RawSegment {
    first: i32::MIN,
    ..NONE
};

impl Segments {
    /// Room for `capacity` segments of calls with `rows` rows; none is set.
    ///
    /// # Errors
    /// [`crate::Error::Argument`]; [`crate::Error::Driver`].
    pub fn new(on: &Stream, capacity: usize, rows: usize) -> Result<Segments> {
        let host = vec![NONE; capacity];
        Ok(Segments {
            device: on.upload(&host)?,
            host,
            rows,
        })
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
        self.host.len()
    }

    /// The segments from here on; `slots` are the table's. Copies nothing when they are what is there.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] unless they are ascending, disjoint, not empty, inside the rows and slots, and fit; [`crate::Error::Driver`].
    pub fn set(&mut self, on: &Stream, segments: &[Segment], slots: usize) -> Result<()> {
        self.set_for(on, self.rows, segments, slots)
    }

    /// [`Segments::set`] for calls with so many rows from here on.
    ///
    /// # Errors
    /// As [`Segments::set`].
    pub fn set_for(
        &mut self,
        on: &Stream,
        rows: usize,
        segments: &[Segment],
        slots: usize,
    ) -> Result<()> {
        let count = segments.len();
        require!(
            "adapters.segments",
            count = count as f64,
            count <= self.capacity(),
            "there is no room for more"
        );
        let mut end = 0;
        for segment in segments {
            let Segment { first, count, slot } = *segment;
            let sound = first >= end && count > 0 && count <= rows.saturating_sub(first);
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
            ints("adapters.segments", [end, slot])?;
        }
        self.rows = rows;
        let mut changed = false;
        let rest = std::iter::repeat(NONE);
        let all = segments.iter().map(raw).chain(rest);
        for (there, wanted) in self.host.iter_mut().zip(all) {
            changed |= *there != wanted;
            *there = wanted;
        }
        if changed {
            let written = on.write(&self.host, &mut self.device.view_mut());
            if written.is_err() {
                // Whatever is there, it is not what anybody asks for.
                self.host.fill(UNKNOWN);
            }
            return written;
        }
        Ok(())
    }
}

/// Its sizes are counted in 31 bits, as [`Segments::set`] checks.
fn raw(segment: &Segment) -> RawSegment {
    let int = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    RawSegment {
        first: int(segment.first),
        count: int(segment.count),
        slot: int(segment.slot),
        unused: 0,
    }
}
