//! The register tile: the one place where products are summed.
//!
//! `C[i][j] (+)= Σ_k A[i][k]·B[k][j]`, with k ascending and a single fused multiply-add chain for each output. Every
//! product of this crate is made of such tiles, so that an output never depends on how many rows or columns are
//! computed beside it, on where a sum over k is interrupted and resumed, or on the instruction set.

mod columns;

use crate::ahead::{Ahead, Written};
use crate::gemm::Wants;
use crate::packed::{BLOCK, Line, PANEL, Q8Lines};
use crate::simd::{LANES, Simd, dispatch};
use columns::{Bf16Panel, Columns, GATHERED, Gathered, Half, Kept, Part, Q8Panel, Whole};
use std::cell::Cell;
use std::ops::Range;

/// Whether rows of this many elements lie in the same few sets of the L1 cache, which a tile that reads one element of each of its rows at a
/// time then throws out again and again: their distance is a multiple of 1 KiB.
pub(crate) fn meet(elements: usize) -> bool {
    elements.is_multiple_of(256)
}

/// The left operand: element (i, k) at `i * row + k * step`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) step: usize,
}

impl<'a> Lhs<'a> {
    /// A row-major matrix whose rows have `ld` elements.
    pub(crate) fn rows(data: &'a [f32], ld: usize) -> Lhs<'a> {
        Lhs {
            data,
            row: ld,
            step: 1,
        }
    }

    /// The transpose of such a matrix.
    pub(crate) fn columns(data: &'a [f32], ld: usize) -> Lhs<'a> {
        Lhs {
            data,
            row: 1,
            step: ld,
        }
    }
}

/// The right operand, rows of contiguous columns: element (k, j) at `k * ld + j`.
#[derive(Clone, Copy)]
pub(crate) struct Rhs<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) ld: usize,
}

impl<'a> Rhs<'a> {
    /// A row-major matrix whose rows have `ld` elements.
    pub(crate) fn rows(data: &'a [f32], ld: usize) -> Rhs<'a> {
        Rhs { data, ld }
    }
}

/// The output: element (i, j) at `i * ld + j` from `at`. Made by [`Out::new`] or by a promise of its maker.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    at: *mut f32,
    ld: usize,
    /// Elements from `at` on that may be written.
    room: usize,
}

impl Out {
    pub(crate) fn new(data: &mut [f32], ld: usize) -> Out {
        Out {
            at: data.as_mut_ptr(),
            ld,
            room: data.len(),
        }
    }

    /// # Safety
    /// The elements that a product writes lie within `room` of `at`, and nothing else uses them meanwhile.
    pub(crate) unsafe fn raw(at: *mut f32, ld: usize, room: usize) -> Out {
        Out { at, ld, room }
    }

    /// Row `i`, of which a product writes its columns.
    ///
    /// # Safety
    /// The row lies within the room.
    #[inline(always)]
    pub(crate) unsafe fn row(self, i: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.at.add(i * self.ld) }
    }

    /// # Panics
    /// When `m` rows of `width` columns do not lie within the room.
    #[inline(always)]
    pub(crate) fn check(self, m: usize, width: usize) {
        assert!((m - 1) * self.ld + width <= self.room, "output");
    }

    /// The same from another row and column on.
    ///
    /// # Panics
    /// When that is outside.
    pub(crate) fn from(self, row: usize, column: usize) -> Out {
        let offset = row * self.ld + column;
        assert!(offset < self.room, "inside the output");
        Out {
            // SAFETY: inside what may be written (asserted).
            at: unsafe { self.at.add(offset) },
            room: self.room - offset,
            ..self
        }
    }
}

/// Whether a product starts its sums at zero or goes on from what the output holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sums {
    Start,
    Resume,
}

/// Sizes of a product: `m` rows, `n` columns, `k` terms.
#[derive(Clone, Copy)]
pub(crate) struct Dims {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Dims {
    pub(crate) fn new(m: usize, n: usize, k: usize) -> Dims {
        Dims { m, n, k }
    }
}

/// What a column of tiles needs besides its columns.
#[derive(Clone, Copy)]
struct Strip {
    m: usize,
    k: usize,
    a: *const f32,
    row: usize,
    step: usize,
    c: *mut f32,
    ld: usize,
    /// Columns that exist, of the tile's vectors.
    width: usize,
    sums: Sums,
    /// The weights that are wanted next.
    ahead: Ahead,
    /// A tile asks for the rows of the next one.
    rows_ahead: bool,
}

/// One register tile of `M` rows from row `first` on.
///
/// # Safety
/// The operands hold the elements that the strip names.
#[inline(always)]
unsafe fn tile<S: Simd, B: Columns<S, V>, const V: usize, const M: usize>(
    s: S,
    t: &Strip,
    b: B,
    first: usize,
) {
    // SAFETY: of all of it: the caller promises that rows, columns and terms exist in every operand.
    unsafe {
        let a = t.a.add(first * t.row);
        let c = t.c.add(first * t.ld);
        let lanes = |v: usize| t.width.saturating_sub(v * LANES).min(LANES);
        let mut acc = [[s.splat(0.0); V]; M];
        if t.sums == Sums::Resume {
            for (i, row) in acc.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    let from = c.add(i * t.ld + v * LANES);
                    *sum = match lanes(v) {
                        LANES => s.load(&*from.cast()),
                        n => s.load_first(from, n),
                    };
                }
            }
        }
        let mut weights = t.ahead.of(first..first + M, t.m, t.k);
        let mut rows = Ahead::rows(a, t.row, M, 1, t.rows_ahead);
        let mut written = Written::new(c, t.ld, M, t.k);
        for k in 0..t.k {
            weights.ask();
            rows.ask();
            // Fewer rows are done before their lines have come.
            if M >= 8 && V == 2 {
                written.ask();
            }
            let columns = b.row(s, k);
            for (i, row) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.add(i * t.row + k * t.step));
                for (sum, &column) in row.iter_mut().zip(&columns) {
                    *sum = s.fma(x, column, *sum);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let to = c.add(i * t.ld + v * LANES);
                match lanes(v) {
                    LANES => s.store(&mut *to.cast(), sum),
                    n => s.store_first(to, sum, n),
                }
            }
        }
    }
}

/// Whether a tile of so many rows is next. The last eight are rather four and four than six and two, which have too few sums, and
/// the last sixteen eight and eight.
const fn fits<S: Simd>(rows: usize, left: usize) -> bool {
    S::ROWS >= rows && left >= rows && !matches!((rows, left), (6, 8) | (14, 16))
}

/// Rows of a strip, in tiles as tall as the registers allow.
///
/// # Safety
/// As [`tile`]; the rows are the strip's.
#[inline(always)]
unsafe fn strip<S: Simd, B: Columns<S, V>, const V: usize>(
    s: S,
    t: &Strip,
    b: B,
    rows: Range<usize>,
) {
    let mut first = rows.start;
    macro_rules! tiles_of {
        ($($rows:literal)*) => {$(
            while fits::<S>($rows, rows.end - first) {
                // SAFETY: rows `first..first + $rows` are below `rows.end`; the rest is the caller's promise.
                unsafe { tile::<S, B, V, $rows>(s, t, b, first) };
                first += $rows;
            }
        )*};
    }
    tiles_of!(14 8 6 4 3 2 1);
}

/// Rows below which the sums of 16 columns are too few to keep the multiply-adds busy: each waits for the one before.
pub(crate) const FEW: usize = 3;

/// Rows of the first or the second half of a strip's columns.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn half_strip<S: Simd, B: Columns<S, 2>, const H: usize>(
    s: S,
    t: &Strip,
    b: B,
    rows: Range<usize>,
) {
    let width = t.width.saturating_sub(H * LANES).min(LANES);
    if width == 0 {
        return;
    }
    let mut half = Strip { width, ..*t };
    if H == 1 {
        // SAFETY: the strip has columns there.
        half.c = unsafe { t.c.add(LANES) };
        half.ahead = Ahead::nothing(t.a);
        half.rows_ahead = false;
    }
    // SAFETY: the caller's promise, of which each half has its columns.
    unsafe { strip::<S, _, 1>(s, &half, Half::<B, H>(b), rows) };
}

/// Rows of a strip of up to 32 columns.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn wide_strip<S: Simd, B: Columns<S, 2>>(s: S, t: &Strip, b: B, rows: Range<usize>) {
    // SAFETY: of all of it: the caller's promise.
    unsafe {
        if S::COLUMNS == 2 || t.m < FEW {
            return strip::<S, _, 2>(s, t, b, rows);
        }
        half_strip::<S, B, 0>(s, t, b, rows.clone());
        half_strip::<S, B, 1>(s, t, b, rows);
    }
}

/// Rows from which on it is worth to widen a panel's weights once, and not for each tile of rows.
const MANY: usize = 28;

thread_local! {
    /// The widened weights of the part of a panel at hand.
    static WIDE: Cell<Vec<Line<f32>>> = const { Cell::new(Vec::new()) };
}

/// All rows of a strip. Of many rows those of the first tile, which waits for the weights most, widen them for the others: to widen and
/// to multiply want the same units, but the others' turn then is shorter.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn widening_strip<S: Simd, B: Columns<S, 2>>(s: S, t: &Strip, b: B) {
    // SAFETY: of all of it: the caller's promise; there are as many lines as terms, all of which the first rows write.
    unsafe {
        if t.m < MANY {
            return wide_strip(s, t, b, 0..t.m);
        }
        let mut wide = WIDE.take();
        if wide.len() < t.k {
            wide.resize(t.k, Line([0.0; PANEL]));
        }
        let lines = wide.as_mut_ptr();
        let widened = Whole(lines.cast(), PANEL);
        if S::COLUMNS == 2 {
            wide_strip(s, t, Kept(b, lines), 0..S::ROWS);
            wide_strip(s, t, widened, S::ROWS..t.m);
        } else {
            half_strip::<S, _, 0>(s, t, Kept(b, lines), 0..S::ROWS);
            half_strip::<S, _, 0>(s, t, widened, S::ROWS..t.m);
            half_strip::<S, _, 1>(s, t, widened, 0..t.m);
        }
        WIDE.set(wide);
    }
}

/// `C (+)= A·B` on one thread.
///
/// # Panics
/// When an operand is too short for the sizes.
#[inline(always)]
fn dense_kernel<S: Simd>(s: S, d: Dims, a: Lhs<'_>, b: Rhs<'_>, c: Out, sums: Sums) {
    let Dims { m, n, k } = d;
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        k == 0 || (m - 1) * a.row + (k - 1) * a.step < a.data.len(),
        "left operand"
    );
    assert!(
        k == 0 || (k - 1) * b.ld + n <= b.data.len(),
        "right operand"
    );
    c.check(m, n);
    // Few lines that lie in the same sets of the L1 cache are copied side by side before many rows read them.
    let gathers = m >= 8 && k <= GATHERED && meet(b.ld);
    let mut gathered = Gathered::new();
    let mut j = 0;
    while j < n {
        let width = (n - j).min(PANEL);
        // SAFETY: column j is below n, inside both operands (asserted).
        let (from, to) = unsafe { (b.data.as_ptr().add(j), c.at.add(j)) };
        let (row, step, ld) = (a.row, a.step, c.ld);
        let mut t = Strip {
            m,
            k,
            a: a.data.as_ptr(),
            row,
            step,
            c: to,
            ld,
            width,
            sums,
            ahead: Ahead::nothing(a.data.as_ptr()),
            rows_ahead: false,
        };
        // SAFETY: the assertions above cover m rows, k terms and columns j..j + width of every operand.
        unsafe {
            if width == PANEL && gathers {
                wide_strip(s, &t, gathered.fill(s, Whole(from, b.ld), k), 0..m);
                j += PANEL;
            } else if width == PANEL {
                wide_strip(s, &t, Whole(from, b.ld), 0..m);
                j += PANEL;
            } else if width >= LANES {
                t.width = LANES;
                strip::<S, _, 1>(s, &t, Whole(from, b.ld), 0..m);
                j += LANES;
            } else {
                strip::<S, _, 1>(s, &t, Part(from, b.ld, width), 0..m);
                j += width;
            }
        }
    }
}

dispatch! {
    /// `C (+)= A·B` of small dense f32 operands, on one thread.
    pub(crate) fn dense(d: Dims, a: Lhs<'_>, b: Rhs<'_>, c: Out, sums: Sums) = dense_kernel
}

/// Terms of a sum that are done before the next rows of the left operand: a panel's part then stays in the L2 cache, which gives a line
/// in less time than a tile of rows multiplies with one. Shorter parts, for the L1 cache, cost more in sums that go to memory and
/// come back. Whole blocks of eight-bit weights.
pub(crate) const TERMS: usize = 1536;

/// What a panel product needs besides the panel.
#[derive(Clone, Copy)]
pub(crate) struct PanelJob<'a> {
    /// Rows (m, k), contiguous.
    pub(crate) x: &'a [f32],
    pub(crate) wants: Wants,
    pub(crate) m: usize,
    pub(crate) k: usize,
    /// Columns that exist, of the panel's 32.
    pub(crate) width: usize,
    pub(crate) out: Out,
}

impl PanelJob<'_> {
    fn check(&self, lines: usize) {
        let PanelJob {
            x,
            m,
            k,
            width,
            out,
            ..
        } = *self;
        assert!(
            m > 0 && width > 0 && width <= PANEL,
            "a product has rows and columns"
        );
        assert!(m * k <= x.len() && k <= lines, "operands");
        out.check(m, width);
    }

    /// The rows, as a strip over the terms from `first` on. The weights that are wanted next begin where those of its terms end.
    fn strip<T>(&self, first: usize, part: &[T]) -> Strip {
        let sums = if first == 0 {
            Sums::Start
        } else {
            Sums::Resume
        };
        Strip {
            m: self.m,
            k: part.len(),
            a: self.x[first..].as_ptr(),
            row: self.k,
            step: 1,
            c: self.out.at,
            ld: self.out.ld,
            width: self.width,
            sums,
            ahead: Ahead::behind(
                part,
                self.m,
                self.wants.panel || first + part.len() < self.k,
            ),
            rows_ahead: self.wants.rows,
        }
    }

    /// Few rows read the panel once, in one go; many rows read it in parts that stay in the cache.
    fn terms(&self) -> usize {
        if self.m <= 14 { self.k } else { TERMS }
    }
}

#[inline(always)]
fn bf16_kernel<S: Simd>(s: S, job: PanelJob<'_>, panel: &[Line<u16>]) {
    job.check(panel.len());
    for first in (0..job.k).step_by(job.terms()) {
        let part = &panel[first..][..job.terms().min(job.k - first)];
        // SAFETY: `check` proved m rows, k lines and `width` columns.
        unsafe { widening_strip(s, &job.strip(first, part), Bf16Panel(part.as_ptr())) };
    }
}

#[inline(always)]
fn f32_kernel<S: Simd>(s: S, job: PanelJob<'_>, panel: &[Line<f32>]) {
    job.check(panel.len());
    for first in (0..job.k).step_by(job.terms()) {
        let part = &panel[first..][..job.terms().min(job.k - first)];
        let columns = Whole(part.as_ptr().cast(), PANEL);
        // SAFETY: `check` proved m rows, k lines and `width` columns.
        unsafe { wide_strip(s, &job.strip(first, part), columns, 0..job.m) };
    }
}

#[inline(always)]
fn q8_kernel<S: Simd>(s: S, job: PanelJob<'_>, panel: Q8Lines<'_>) {
    job.check(panel.codes.len().min(panel.scales.len() * BLOCK));
    for first in (0..job.k).step_by(job.terms()) {
        let part = &panel.codes[first..][..job.terms().min(job.k - first)];
        let columns = Q8Panel(part.as_ptr(), panel.scales[first / BLOCK..].as_ptr());
        // SAFETY: `check` proved m rows, k lines with their blocks and `width` columns; a part begins with a block.
        unsafe { widening_strip(s, &job.strip(first, part), columns) };
    }
}

dispatch! {
    /// `x·Wᵀ` for the outputs of one eight-bit panel.
    pub(crate) fn q8_panel(job: PanelJob<'_>, panel: Q8Lines<'_>) = q8_kernel
}

dispatch! {
    /// `x·Wᵀ` for the outputs of one bf16 panel.
    pub(crate) fn bf16_panel(job: PanelJob<'_>, panel: &[Line<u16>]) = bf16_kernel
}

dispatch! {
    /// `x·Wᵀ` for the outputs of one f32 panel.
    pub(crate) fn f32_panel(job: PanelJob<'_>, panel: &[Line<f32>]) = f32_kernel
}
