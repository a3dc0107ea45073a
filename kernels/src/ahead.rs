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

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles of as many rows as each of these, one after another.
    fn tiles(heights: &[usize]) -> impl Iterator<Item = Range<usize>> {
        heights.iter().scan(0, |done, height| {
            let first = std::mem::replace(done, *done + height);
            Some(first..*done)
        })
    }

    #[test]
    fn all_tiles_of_a_product_together_ask_for_every_line_of_the_next_panel_in_order_and_hardly_more()
     {
        let panel = vec![[0_u16; 32]; 576];
        for heights in [&[14, 14, 4][..], &[14; 8], &[8], &[1], &[6, 6, 3]] {
            let all = heights.iter().sum();
            let mut lines = Vec::new();
            for rows in tiles(heights) {
                // Of few rows nothing is asked on some processors.
                let ahead = Ahead {
                    at: panel.as_ptr_range().end.cast(),
                    pace: size_of::<[u16; 32]>(),
                };
                let mut ahead = ahead.of(rows, all, panel.len());
                for _ in 0..panel.len() {
                    lines.push((ahead.at.addr() - panel.as_ptr_range().end.addr()) / 64);
                    ahead.ask();
                }
            }
            assert!(lines.windows(2).all(|two| two[1] <= two[0] + 1), "{all}");
            let most = lines.iter().copied().max().unwrap();
            lines.sort_unstable();
            lines.dedup();
            assert!(lines.len() >= panel.len(), "{all}: {}", lines.len());
            assert!(most <= panel.len() + panel.len() / 10, "{all}: {most}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_asked_for() {
        let part = [0.0_f32; 64];
        for ahead in [
            Ahead::behind(&part, 32, false),
            Ahead::rows(part.as_ptr(), 4, 4, 1, false),
        ] {
            let mut share = ahead.of(8..16, 16, 4);
            share.ask();
            assert_eq!(share.at, part.as_ptr().cast());
        }
        let wanted = Ahead::behind(&part, 32, true);
        assert_eq!(wanted.at, part.as_ptr_range().end.cast());
    }

    #[test]
    fn the_next_tiles_rows_are_asked_for_whole() {
        let x = vec![0.0_f32; 28 * 96];
        let mut rows = Ahead::rows(x.as_ptr(), 96, 14, 1, true);
        assert_eq!(rows.at, x[14 * 96..].as_ptr().cast());
        (0..96).for_each(|_| rows.ask());
        assert_eq!(rows.at, x.as_ptr_range().end.cast());
    }

    #[test]
    fn every_row_of_sums_is_asked_for_in_the_first_half_of_the_steps() {
        let sums = vec![0.0_f32; 14 * 96];
        for (rows, steps) in [(14, 576), (8, 64), (14, 28)] {
            let mut written = Written::new(sums.as_ptr(), 96, rows, steps);
            (0..steps / 2 + 1).for_each(|_| written.ask());
            let asked = (written.at.addr() - sums.as_ptr().addr()) / (96 * size_of::<f32>());
            assert!(
                (rows..=rows + 1).contains(&asked),
                "{asked} of {rows} rows in {steps} steps"
            );
        }
    }
}
