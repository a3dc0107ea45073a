//! Asking for memory before it is read: at once, or little by little beside a computation.
//!
//! Changes the time that something takes and nothing else. Where there is no such instruction, nothing is done.

use crate::simd::{LANES, is_amd};
use std::ops::Range;

/// Asks for memory that will be read, all at once: what another core has just written comes slowly, line by line, else.
pub(crate) fn fetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// Rows below which a product waits for its weights.
const WAITING: usize = 4;

/// Memory that will be read next, asked for little by little by what is computed before: both at once take the time of the longer one.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    at: *const u8,
    /// Bytes for each step.
    pace: usize,
}

impl Ahead {
    /// Nothing but a place that is in the cache: a place without memory would be looked for each time.
    pub(crate) fn nothing<T>(here: *const T) -> Ahead {
        Ahead {
            at: here.cast(),
            pace: 0,
        }
    }

    /// As much as `part` has, from its end on, in one step for each element and row, if it is wanted.
    pub(crate) fn behind<T>(part: &[T], rows: usize, wanted: bool) -> Ahead {
        // Measured on an EPYC: with few rows the processor reads as fast as it can by itself, and asking costs time.
        if !wanted || rows < WAITING && is_amd() {
            return Ahead::nothing(part.as_ptr());
        }
        Ahead {
            at: part.as_ptr_range().end.cast(),
            pace: size_of::<T>(),
        }
    }

    /// What comes after some rows at this distance, if it is wanted: as many rows, in steps of so many of a row's elements.
    #[inline(always)]
    pub(crate) fn rows<T>(
        at: *const T,
        row: usize,
        rows: usize,
        step: usize,
        wanted: bool,
    ) -> Ahead {
        if !wanted {
            return Ahead::nothing(at);
        }
        Ahead {
            at: at.wrapping_add(rows * row).cast(),
            pace: rows * step * size_of::<T>(),
        }
    }

    /// The share of some of `all` rows, for each of which there are as many steps.
    #[inline(always)]
    pub(crate) fn of(self, rows: Range<usize>, all: usize, steps: usize) -> Ahead {
        Ahead {
            at: self.at.wrapping_add(self.pace * steps * rows.start / all),
            pace: (self.pace * rows.len()).div_ceil(all),
        }
    }

    /// A step.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: every x86-64 processor has the instruction, which reads nothing, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) };
        }
        self.at = self.at.wrapping_add(self.pace);
    }
}

/// Sums of two lines a row that a tile will write: a line that is far holds up the stores behind it.
pub(crate) struct Written {
    at: *const f32,
    /// Distance of two rows.
    row: usize,
    rows: usize,
    /// What is done of the steps between two rows.
    done: usize,
    steps: usize,
}

impl Written {
    /// All are asked for in the first half of the steps, if these are many.
    #[inline(always)]
    pub(crate) fn new(at: *const f32, row: usize, rows: usize, steps: usize) -> Self {
        Written {
            at,
            row,
            rows,
            done: steps,
            steps,
        }
    }

    /// A step.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        if self.done >= self.steps {
            self.done -= self.steps;
            #[cfg(target_arch = "x86_64")]
            for line in 0..2 {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                let at = self.at.wrapping_add(line * LANES);
                // SAFETY: every x86-64 processor has the instruction, which reads nothing, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
            }
            self.at = self.at.wrapping_add(self.row);
        }
        self.done += 2 * self.rows;
    }
}
