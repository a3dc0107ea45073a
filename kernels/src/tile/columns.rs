//! The right operands of a register tile: where its columns are and how they become vectors of f32.
//!
//! They move numbers and widen them exactly; what is summed is [`super`]'s.

use crate::packed::{BLOCK, Codes, Line, PANEL};
use crate::simd::{LANES, Simd};
use std::mem::MaybeUninit;

/// The columns of a tile: `V` vectors for each k.
pub(super) trait Columns<S: Simd, const V: usize>: Copy {
    /// # Safety
    /// Row `k` exists.
    unsafe fn row(self, s: S, k: usize) -> [S::F; V];
}

#[derive(Clone, Copy)]
pub(super) struct Bf16Panel(pub(super) *const Line<u16>);

impl<S: Simd> Columns<S, 2> for Bf16Panel {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; 2] {
        // SAFETY: the caller promises that line k exists; it holds 32 values.
        unsafe { s.load_bf16(self.0.add(k).cast()) }
    }
}

/// Codes, and the scales of their blocks.
#[derive(Clone, Copy)]
pub(super) struct Q8Panel(pub(super) *const Codes, pub(super) *const Line<f32>);

impl<S: Simd> Columns<S, 2> for Q8Panel {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; 2] {
        // SAFETY: the caller promises that line k exists, and with it its block; each holds 32 values.
        unsafe {
            let scale = &(*self.1.add(k / BLOCK)).0;
            let [low, high] = s.load_i8(self.0.add(k).cast());
            let (first, second) = scale.split_at(LANES);
            [
                s.mul(low, s.load(&*first.as_ptr().cast())),
                s.mul(high, s.load(&*second.as_ptr().cast())),
            ]
        }
    }
}

/// Columns that are also written down as f32, line by line, for whoever reads them after.
#[derive(Clone, Copy)]
pub(super) struct Kept<B>(pub(super) B, pub(super) *mut Line<f32>);

impl<S: Simd, B: Columns<S, 2>> Columns<S, 2> for Kept<B> {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; 2] {
        // SAFETY: the caller promises that row k exists, in what is read and in what is written.
        unsafe {
            let columns = self.0.row(s, k);
            let to = self.1.add(k).cast::<f32>();
            for (v, &columns) in columns.iter().enumerate() {
                s.store(&mut *to.add(v * LANES).cast(), columns);
            }
            columns
        }
    }
}

/// `V` whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) *const f32, pub(super) usize);

impl<S: Simd, const V: usize> Columns<S, V> for Whole {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; V] {
        let mut row = [s.splat(0.0); V];
        for (v, to) in row.iter_mut().enumerate() {
            // SAFETY: the caller promises that row k exists, with V whole vectors.
            *to = unsafe { s.load(&*self.0.add(k * self.1 + v * LANES).cast()) };
        }
        row
    }
}

/// One vector of which only the first lanes exist.
#[derive(Clone, Copy)]
pub(super) struct Part(pub(super) *const f32, pub(super) usize, pub(super) usize);

impl<S: Simd> Columns<S, 1> for Part {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; 1] {
        // SAFETY: the caller promises that row k exists, with `self.2` columns.
        [unsafe { s.load_first(self.0.add(k * self.1), self.2) }]
    }
}

/// The first or the second half of columns.
#[derive(Clone, Copy)]
pub(super) struct Half<B, const H: usize>(pub(super) B);

impl<S: Simd, B: Columns<S, 2>, const H: usize> Columns<S, 1> for Half<B, H> {
    #[inline(always)]
    unsafe fn row(self, s: S, k: usize) -> [S::F; 1] {
        // SAFETY: the caller's promise.
        [unsafe { self.0.row(s, k) }[H]]
    }
}

/// Lines of the right operand that are gathered at most.
pub(super) const GATHERED: usize = 64;

/// A copy of some lines.
pub(super) struct Gathered(MaybeUninit<[Line<f32>; GATHERED]>);

impl Gathered {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Gathered(MaybeUninit::uninit())
    }

    /// Copies 32 columns of the first `k` rows.
    ///
    /// # Safety
    /// They exist, and `k` is not above [`GATHERED`].
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(&mut self, s: S, from: Whole, k: usize) -> Whole {
        let to = self.0.as_mut_ptr().cast::<f32>();
        for row in 0..k {
            // SAFETY: the caller promises the rows that are read, and that the lines which are written are here.
            unsafe {
                let columns: [S::F; 2] = from.row(s, row);
                for (v, columns) in columns.into_iter().enumerate() {
                    s.store(&mut *to.add(row * PANEL + v * LANES).cast(), columns);
                }
            }
        }
        Whole(to, PANEL)
    }
}
