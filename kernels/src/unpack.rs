//! Weights of a panel, transposed and widened to f32, for products that sum over outputs.
//!
//! From lines of 32 outputs, one for each input, to lines of 32 inputs, one for each output. Moves numbers only; read
//! [`crate::gemm::backward`] next.

use crate::Isa;
use crate::packed::{BLOCK, Line, PANEL, Q8Lines, bf16_slot};
use crate::simd::{Simd, dispatch};

/// Where a panel's part goes: a line for each output.
pub(crate) type Turned = [Line<f32>; PANEL];

/// Up to 32 inputs of a bf16 panel.
pub(crate) fn bf16(isa: Isa, from: &[Line<u16>], to: &mut Turned) {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx512 | Isa::Avx512Bf16, Some(from)) = (isa, from.first_chunk()) {
        // SAFETY: a pool accepts an instruction set only where the processor has it.
        return unsafe { x86::bf16(from, to) };
    }
    let _ = isa;
    for (k, line) in from.iter().enumerate() {
        for (c, to) in to.iter_mut().enumerate() {
            to.0[k] = f32::from_bits(u32::from(line.0[bf16_slot(c)]) << 16);
        }
    }
}

/// Up to 32 inputs of an f32 panel.
pub(crate) fn f32(isa: Isa, from: &[Line<f32>], to: &mut Turned) {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx512 | Isa::Avx512Bf16, Some(from)) = (isa, from.first_chunk()) {
        // SAFETY: a pool accepts an instruction set only where the processor has it.
        return unsafe { x86::f32(from, to) };
    }
    let _ = isa;
    for (k, line) in from.iter().enumerate() {
        for (to, &v) in to.iter_mut().zip(&line.0) {
            to.0[k] = v;
        }
    }
}

/// Up to 32 inputs, one block, of an eight-bit panel.
pub(crate) fn q8(isa: Isa, from: Q8Lines<'_>, to: &mut Turned) {
    // A block of inputs has one scale for each output.
    debug_assert!(from.codes.len() <= BLOCK, "one block at a time");
    let mut wide = [Line([0.0; PANEL]); BLOCK];
    widened(isa, from, &mut wide);
    f32(isa, &wide[..from.codes.len()], to);
}

/// Codes times their scales, line by line; the lines begin with a block.
#[inline(always)]
pub(crate) fn widen<S: Simd>(s: S, from: Q8Lines<'_>, to: &mut [Line<f32>]) {
    let blocks = from.codes.chunks(BLOCK).zip(to.chunks_mut(BLOCK));
    for ((codes, to), scales) in blocks.zip(from.scales) {
        let scales = scales.0.as_chunks().0;
        for (codes, to) in codes.iter().zip(to) {
            // SAFETY: a line has 32 codes.
            let codes = unsafe { s.load_i8(codes.0.as_ptr()) };
            for ((to, codes), scales) in to.0.as_chunks_mut().0.iter_mut().zip(codes).zip(scales) {
                s.store(to, s.mul(codes, s.load(scales)));
            }
        }
    }
}

dispatch! {
    fn widened(from: Q8Lines<'_>, to: &mut [Line<f32>]) = widen
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The same by squares of 16 × 16 words of 32 bits.

    use super::{Line, PANEL, Turned};
    use crate::simd::LANES;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn bf16(from: &[Line<u16>; PANEL], to: &mut Turned) {
        let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        for (at, from) in from.as_chunks::<LANES>().0.iter().enumerate() {
            // SAFETY: a line has 32 values, 16 words.
            let words = from
                .each_ref()
                .map(|line| unsafe { load(line.0.as_ptr().cast()) });
            for (c, words) in transposed(words).into_iter().enumerate() {
                // A word has the weights of outputs c and c + 16.
                let low = _mm512_slli_epi32::<16>(words);
                // SAFETY: a line has room for two vectors.
                unsafe {
                    store(to[c].0.as_mut_ptr().add(at * LANES), low);
                    store(
                        to[c + LANES].0.as_mut_ptr().add(at * LANES),
                        _mm512_and_si512(words, high),
                    );
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32(from: &[Line<f32>; PANEL], to: &mut Turned) {
        for (at, from) in from.as_chunks::<LANES>().0.iter().enumerate() {
            for half in [0, LANES] {
                // SAFETY: a line has two halves of 16 values.
                let words = from
                    .each_ref()
                    .map(|line| unsafe { load(line.0.as_ptr().add(half).cast()) });
                for (c, words) in transposed(words).into_iter().enumerate() {
                    // SAFETY: a line has room for two vectors.
                    unsafe { store(to[half + c].0.as_mut_ptr().add(at * LANES), words) };
                }
            }
        }
    }

    /// # Safety
    /// 64 bytes are readable.
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(from) }
    }

    /// # Safety
    /// 16 values are writable.
    #[target_feature(enable = "avx512f")]
    unsafe fn store(to: *mut f32, words: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, _mm512_castsi512_ps(words)) };
    }

    /// Row i of the result has the i-th words of all rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
        // Words of neighbours side by side, then pairs of words of pairs of rows: inside quarters of the vectors it is done.
        let mut a = rows;
        for i in (0..LANES).step_by(2) {
            a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        let mut b = a;
        for i in (0..LANES).step_by(4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        // b[4r + c] has in its quarter q word 4q + c of rows 4r to 4r + 3; the quarters change places with the rows.
        let mut c = b;
        for i in [0, 1, 2, 3, 8, 9, 10, 11] {
            c[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[i + 4]);
            c[i + 4] = _mm512_shuffle_i32x4::<0xdd>(b[i], b[i + 4]);
        }
        let mut d = c;
        for i in 0..4 {
            d[i] = _mm512_shuffle_i32x4::<0x88>(c[i], c[i + 8]);
            d[i + 8] = _mm512_shuffle_i32x4::<0xdd>(c[i], c[i + 8]);
            d[i + 4] = _mm512_shuffle_i32x4::<0x88>(c[i + 4], c[i + 12]);
            d[i + 12] = _mm512_shuffle_i32x4::<0xdd>(c[i + 4], c[i + 12]);
        }
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_arrive_on_every_instruction_set() {
        let value = |k: usize, c: usize| (k * 100 + c) as f32 * 0.5 - 200.0;
        let exact: Vec<Line<f32>> = (0..PANEL)
            .map(|k| Line(std::array::from_fn(|c| value(k, c))))
            .collect();
        let halves: Vec<Line<u16>> = (0..PANEL)
            .map(|k| {
                let mut line = Line([0; PANEL]);
                for c in 0..PANEL {
                    line.0[bf16_slot(c)] = (value(k, c).to_bits() >> 16) as u16;
                }
                line
            })
            .collect();
        for &isa in Isa::available() {
            for inputs in [1, 16, 31, 32] {
                let (mut one, mut other) =
                    ([Line([7.0; PANEL]); PANEL], [Line([7.0; PANEL]); PANEL]);
                f32(isa, &exact[..inputs], &mut one);
                bf16(isa, &halves[..inputs], &mut other);
                for c in 0..PANEL {
                    for k in 0..PANEL {
                        let kept = f32::from_bits(value(k, c).to_bits() & 0xffff_0000);
                        let expected = if k < inputs {
                            (value(k, c), kept)
                        } else {
                            (7.0, 7.0)
                        };
                        assert_eq!((one[c].0[k], other[c].0[k]), expected, "{isa:?} {inputs}");
                    }
                }
            }
        }
    }
}
