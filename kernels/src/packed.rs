//! Weight matrices in panels of 32 output columns, the form in which every product reads them.
//!
//! A panel holds, for each input k, the weights of its 32 outputs side by side, so that a product streams memory in
//! order with k ascending. The same panels serve `x·Wᵀ`, `dy·W` and the embedding lookup: there is no second copy.
//! The last panel is padded with zeros. Read [`crate::gemm`] next.

use crate::error::{check, require};
use crate::memory::{Numbers, Plain};
use crate::pairs::pair;
use crate::{Pool, Result};
use half::{bf16, f16};

/// Output columns of a panel.
pub(crate) const PANEL: usize = 32;

/// How weights are stored. But for [`Dtype::Bf16Pairs`], they are computed with in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    /// Rounded to bfloat16: half the memory and bandwidth.
    Bf16,
    /// As given.
    F32,
    /// Eight bits a weight and a scale for each 32 inputs of an output, as GGUF's `Q8_0`: about half of bf16. A checkpoint that
    /// is stored as `Q8_0` keeps its values exactly.
    Q8,
    /// As [`Dtype::Bf16`], and what is multiplied with them is rounded to bfloat16, too: processors that have an instruction for it
    /// compute two terms of a sum at once, see [`crate::gemm`]. Numbers below 2⁻¹²⁶ are zeros.
    Bf16Pairs,
}

/// One panel row, on a cache line of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub(crate) [T; PANEL]);

impl Line<f32> {
    /// The numbers of consecutive lines.
    pub(crate) fn flat(lines: &[Line<f32>]) -> &[f32] {
        // SAFETY: a line is 32 numbers without padding, of which 128 bytes are two cache lines.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * PANEL) }
    }
}

// SAFETY: 32 numbers of two or four bytes, a line or two; all bits of each may be zero.
unsafe impl Plain for Line<u16> {}
// SAFETY: as above.
unsafe impl Plain for Line<u32> {}
// SAFETY: as above.
unsafe impl Plain for Line<f32> {}

/// The panels; all of panel 0 (one line for each k), then panel 1, and so on.
pub(crate) enum Panels {
    /// Column c of the first half at 2c, of the second half at 2c + 1: a vector of 32-bit words holds one half in its
    /// low parts and the other in its high parts.
    Bf16(Numbers<Line<u16>>),
    F32(Numbers<Line<f32>>),
    Q8(Q8),
    /// One line for each pair of inputs: of each column the first in the low half of a word, the second in the high half. An odd
    /// last input is paired with zeros.
    Pairs(Numbers<Line<u32>>),
}

/// Inputs that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Panel rows of eight-bit codes. A weight is code × scale, which f32 holds exactly: 8 bits times 11.
pub(crate) struct Q8 {
    /// One for each k of each panel.
    pub(crate) codes: Numbers<Codes>,
    /// One line for each block of k of each panel.
    pub(crate) scales: Numbers<Line<f32>>,
}

/// The codes of one panel row, columns in order.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Codes(pub(crate) [i8; PANEL]);

// SAFETY: 32 bytes, half a line.
unsafe impl Plain for Codes {}

/// Panel rows from some input on, which begins a block.
#[derive(Clone, Copy)]
pub(crate) struct Q8Lines<'a> {
    pub(crate) codes: &'a [Codes],
    pub(crate) scales: &'a [Line<f32>],
}

impl Q8 {
    /// The rows of a panel from input `first` on, which begins a block.
    pub(crate) fn panel(&self, panel: usize, k: usize, first: usize) -> Q8Lines<'_> {
        debug_assert!(first.is_multiple_of(BLOCK), "a block is read whole");
        let blocks = k.div_ceil(BLOCK);
        Q8Lines {
            codes: &self.codes[panel * k + first..(panel + 1) * k],
            scales: &self.scales[panel * blocks + first / BLOCK..(panel + 1) * blocks],
        }
    }
}

/// The scale and the codes of a block, as GGUF makes `Q8_0`: the largest weight is code ±127, the scale is rounded to half precision.
/// A block in which something is not finite is NaN as a whole: damage must show, as it does in the other formats.
fn quantise(block: &[f32]) -> (f32, impl Iterator<Item = i8>) {
    let largest = block.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let whole = block.iter().all(|v| v.is_finite());
    let exact = if whole { largest / 127.0 } else { f32::NAN };
    let inverse = if exact > 0.0 { 1.0 / exact } else { 0.0 };
    // A float becomes an integer by saturation.
    let code = move |v: &f32| (v * inverse).round() as i8;
    (f16::from_f32(exact).to_f32(), block.iter().map(code))
}

fn pack_q8<'a>(
    pool: &Pool,
    n: usize,
    k: usize,
    row: impl Fn(usize) -> Option<&'a [f32]> + Sync,
) -> Q8 {
    let blocks = k.div_ceil(BLOCK);
    let mut codes = Numbers::<Codes>::zeros(n.div_ceil(PANEL) * k);
    let mut scales = Numbers::<Line<f32>>::zeros(n.div_ceil(PANEL) * blocks);
    let scale_rows = shared(&mut scales, blocks);
    fill(pool, &mut codes, k, |panel, codes| {
        let mut scales = scale_rows[panel].lock();
        for c in 0..PANEL {
            let Some(row) = row(panel * PANEL + c) else {
                break;
            };
            let parts = row.chunks(BLOCK).zip(codes.chunks_mut(BLOCK));
            for ((block, codes), line) in parts.zip(scales.iter_mut()) {
                let (scale, quantised) = quantise(block);
                line.0[c] = scale;
                for (to, code) in codes.iter_mut().zip(quantised) {
                    to.0[c] = code;
                }
            }
        }
    });
    drop(scale_rows);
    Q8 { codes, scales }
}

/// A weight matrix (N, K): N outputs, K inputs.
pub struct Packed {
    n: usize,
    k: usize,
    pub(crate) panels: Panels,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({}, {}, {:?})", self.n, self.k, self.dtype())
    }
}

impl Packed {
    /// Packs matrices with the same inputs under one another, as one matrix.
    ///
    /// # Shapes
    /// each of `parts`: (Nᵢ, K), row-major.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for no inputs; [`crate::Error::Shape`] for a part that is no whole number of rows.
    pub fn pack(pool: &Pool, parts: &[&[f32]], k: usize, dtype: Dtype) -> Result<Packed> {
        require!("packed.pack", k = k as f64, k > 0, "a matrix needs inputs");
        for part in parts {
            check!("packed.pack", part: part.len() / k * k);
        }
        let n: usize = parts.iter().map(|part| part.len() / k).sum();
        let row = |mut i: usize| {
            for part in parts {
                if i < part.len() / k {
                    return Some(&part[i * k..][..k]);
                }
                i -= part.len() / k;
            }
            None
        };
        let lines = n.div_ceil(PANEL) * k;
        let panels = match dtype {
            Dtype::Bf16 => {
                let mut all = Numbers::<Line<u16>>::zeros(lines);
                fill(pool, &mut all, k, |panel, lines| {
                    for c in 0..PANEL {
                        let Some(row) = row(panel * PANEL + c) else {
                            break;
                        };
                        let at = bf16_slot(c);
                        for (line, &v) in lines.iter_mut().zip(row) {
                            line.0[at] = bf16::from_f32(v).to_bits();
                        }
                    }
                });
                Panels::Bf16(all)
            }
            Dtype::F32 => {
                let mut all = Numbers::<Line<f32>>::zeros(lines);
                fill(pool, &mut all, k, |panel, lines| {
                    for c in 0..PANEL {
                        let Some(row) = row(panel * PANEL + c) else {
                            break;
                        };
                        for (line, &v) in lines.iter_mut().zip(row) {
                            line.0[c] = v;
                        }
                    }
                });
                Panels::F32(all)
            }
            Dtype::Q8 => Panels::Q8(pack_q8(pool, n, k, row)),
            Dtype::Bf16Pairs => {
                let pairs = k.div_ceil(2);
                let mut all = Numbers::<Line<u32>>::zeros(n.div_ceil(PANEL) * pairs);
                fill(pool, &mut all, pairs, |panel, lines| {
                    for c in 0..PANEL {
                        let Some(row) = row(panel * PANEL + c) else {
                            break;
                        };
                        for (line, two) in lines.iter_mut().zip(row.chunks(2)) {
                            line.0[c] = pair(two[0], two.get(1).copied().unwrap_or(0.0));
                        }
                    }
                });
                Panels::Pairs(all)
            }
        };
        Ok(Packed { n, k, panels })
    }

    /// Outputs, N.
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Inputs, K.
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// How the weights are stored.
    pub fn dtype(&self) -> Dtype {
        match self.panels {
            Panels::Bf16(_) => Dtype::Bf16,
            Panels::F32(_) => Dtype::F32,
            Panels::Q8(_) => Dtype::Q8,
            Panels::Pairs(_) => Dtype::Bf16Pairs,
        }
    }

    /// Memory of the weights, padding included.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::Bf16(lines) => std::mem::size_of_val(&**lines),
            Panels::F32(lines) => std::mem::size_of_val(&**lines),
            Panels::Pairs(lines) => std::mem::size_of_val(&**lines),
            Panels::Q8(Q8 { codes, scales }) => {
                std::mem::size_of_val(&**codes) + std::mem::size_of_val(&**scales)
            }
        }
    }

    /// Row `i` of the matrix: the embedding lookup.
    ///
    /// # Shapes
    /// `out`: (K).
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a row that is not there; [`crate::Error::Shape`].
    pub fn row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        check!("packed.row", out: self.k);
        require!(
            "packed.row",
            i = i as f64,
            i < self.n,
            "the matrix has fewer rows"
        );
        let (first, c) = (i / PANEL * self.k, i % PANEL);
        let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        match &self.panels {
            Panels::Bf16(lines) => {
                for (v, line) in out.iter_mut().zip(&lines[first..]) {
                    *v = widen(line.0[bf16_slot(c)]);
                }
            }
            Panels::F32(lines) => {
                for (v, line) in out.iter_mut().zip(&lines[first..]) {
                    *v = line.0[c];
                }
            }
            Panels::Q8(q8) => {
                let Q8Lines { codes, scales } = q8.panel(i / PANEL, self.k, 0);
                let blocks = out.chunks_mut(BLOCK).zip(codes.chunks(BLOCK));
                for ((out, codes), scale) in blocks.zip(scales) {
                    for (v, line) in out.iter_mut().zip(codes) {
                        *v = f32::from(line.0[c]) * scale.0[c];
                    }
                }
            }
            Panels::Pairs(lines) => {
                let lines = &lines[i / PANEL * self.k.div_ceil(2)..];
                for (two, line) in out.chunks_mut(2).zip(lines) {
                    let word = line.0[c];
                    for (v, half) in two.iter_mut().zip([word as u16, (word >> 16) as u16]) {
                        *v = widen(half);
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }
}

/// Where column `c` of a bf16 panel row is stored.
pub(crate) fn bf16_slot(c: usize) -> usize {
    2 * (c % 16) + c / 16
}

/// Parts of `each` elements, for whichever thread comes to them.
fn shared<T>(all: &mut [T], each: usize) -> Vec<parking_lot::Mutex<&mut [T]>> {
    all.chunks_mut(each).map(parking_lot::Mutex::new).collect()
}

/// Fills the panels, on all threads.
fn fill<T: Send>(pool: &Pool, lines: &mut [T], k: usize, one: impl Fn(usize, &mut [T]) + Sync) {
    let panels = shared(lines, k);
    pool.run(panels.len(), &|p| one(p, &mut panels[p].lock()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_matrix_gives_its_rows_back() {
        let pool = Pool::new(2).unwrap();
        for (n, k) in [(1, 1), (31, 5), (32, 16), (33, 17), (100, 3)] {
            let rows: Vec<f32> = (0..n * k).map(|i| i as f32 * 0.5 - 7.0).collect();
            let (a, b) = rows.split_at(n / 2 * k);
            let exact = Packed::pack(&pool, &[a, b], k, Dtype::F32).unwrap();
            let rounded = Packed::pack(&pool, &[&rows], k, Dtype::Bf16).unwrap();
            let mut out = vec![0.0; k];
            for i in 0..n {
                exact.row(i, &mut out).unwrap();
                assert_eq!(out, rows[i * k..][..k]);
                rounded.row(i, &mut out).unwrap();
                let expected: Vec<f32> = rows[i * k..][..k]
                    .iter()
                    .map(|&v| bf16::from_f32(v).to_f32())
                    .collect();
                assert_eq!(out, expected);
            }
            assert!(exact.row(n, &mut out).is_err());
        }
    }

    #[test]
    fn eight_bits_keep_what_was_stored_in_eight_bits_and_are_near_everything_else() {
        let pool = Pool::new(2).unwrap();
        for (n, k) in [(1, 1), (33, 32), (40, 100)] {
            // As a Q8_0 file has it: codes, one of each block ±127, by a scale of half precision.
            let value = |i: usize, j: usize| {
                let code = if j % BLOCK == i % BLOCK % k.min(BLOCK) {
                    127
                } else {
                    (i * 31 + j * 17) as i32 % 255 - 127
                };
                code as f32 * f16::from_f32(0.003 * (1 + i + j / BLOCK) as f32).to_f32()
            };
            let rows: Vec<f32> = (0..n * k).map(|at| value(at / k, at % k)).collect();
            let kept = Packed::pack(&pool, &[&rows], k, Dtype::Q8).unwrap();
            let near: Vec<f32> = (0..n * k).map(|at| (at as f32 * 0.7).sin()).collect();
            let rounded = Packed::pack(&pool, &[&near], k, Dtype::Q8).unwrap();
            let mut out = vec![0.0; k];
            for i in 0..n {
                kept.row(i, &mut out).unwrap();
                let last = k % BLOCK;
                // A last, partial block need not hold a ±127.
                let whole = if last == 0 { k } else { k - last };
                assert_eq!(
                    out[..whole],
                    rows[i * k..][..whole],
                    "row {i} of ({n}, {k})"
                );
                rounded.row(i, &mut out).unwrap();
                for (found, expected) in out.iter().zip(&near[i * k..]) {
                    assert!(
                        (found - expected).abs() <= 0.5 / 127.0 + 1e-3,
                        "{found} for {expected}"
                    );
                }
            }
        }
        for broken in [f32::NAN, f32::INFINITY] {
            let mut row = [1.0; 64];
            row[40] = broken;
            let packed = Packed::pack(&pool, &[&row], 64, Dtype::Q8).unwrap();
            let mut out = [0.0; 64];
            packed.row(0, &mut out).unwrap();
            assert!(
                out[..32].iter().all(|v| *v != 0.0 && v.is_finite()),
                "{out:?}"
            );
            assert!(out[32..].iter().all(|v| v.is_nan()), "{out:?}");
        }
        let zeros = Packed::pack(&pool, &[&[0.0; 64]], 64, Dtype::Q8).unwrap();
        let mut out = vec![1.0; 64];
        zeros.row(0, &mut out).unwrap();
        assert_eq!(out, [0.0; 64]);
    }

    #[test]
    fn a_part_of_a_row_is_refused() {
        let pool = Pool::new(1).unwrap();
        assert!(Packed::pack(&pool, &[&[1.0; 7]], 3, Dtype::F32).is_err());
        assert!(Packed::pack(&pool, &[&[1.0; 7]], 0, Dtype::F32).is_err());
    }
}
