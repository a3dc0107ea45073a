//! Sixteen pairs of bf16 and their dot product into sixteen f32 sums, the same on every instruction set.
//!
//! `dot` is what `vdpbf16ps` computes on the processors on which it was looked at: `fma(a₀, b₀, fma(a₁, b₁, c))`, each of the two rounded to
//! nearest, with numbers below 2⁻¹²⁶ taken and given as zeros of their sign. Elsewhere the same is made of multiply-adds. Read
//! [`super`] next.

use crate::simd::{LANES, Portable, Simd};

/// Pairs and what is done with them. `self` is the proof that the instructions exist and that subnormal numbers are flushed.
pub(super) trait Pairs: Copy {
    /// Vectors of sums.
    type S: Simd;
    /// Sixteen pairs.
    type P: Copy;
    /// Rows of the register tile, whose columns are [`Simd::COLUMNS`] vectors.
    const ROWS: usize;
    /// Words of a pair of activations, see [`super::words`].
    const WORDS: usize;

    fn simd(self) -> Self::S;
    /// Pairs in 32-bit words, the first of each in the low half.
    fn load(self, from: &[u32; LANES]) -> Self::P;
    /// The pair of activations at `from`.
    ///
    /// # Safety
    /// A pair is readable there.
    unsafe fn splat(self, from: *const u32) -> Self::P;
    fn dot(self, a: Self::P, b: Self::P, c: F<Self>) -> F<Self>;
}

/// A vector of sums.
pub(super) type F<P> = <<P as Pairs>::S as Simd>::F;

/// The halves of a word, as f32.
fn halves(word: u32) -> [f32; 2] {
    [
        f32::from_bits(word << 16),
        f32::from_bits(word & 0xffff_0000),
    ]
}

/// `a·b + c` rounded once, of normal numbers or zeros; smaller than 2⁻¹²⁶ after rounding to 24 bits it is a zero of its sign.
fn flushed(a: f32, b: f32, c: f32) -> f32 {
    let sum = a.mul_add(b, c);
    if sum.abs() > f32::MIN_POSITIVE {
        return sum;
    }
    // 2⁻¹²⁶ may have been rounded up to in steps of 2⁻¹⁴⁹, where steps of 2⁻¹⁵⁰ would have stayed below. Near it the sum of a product of
    // 16 bits and of a multiple of 2⁻¹⁴⁹ is exact in f64.
    let below = f64::from(f32::MIN_POSITIVE) - 2f64.powi(-151);
    let small = if sum.abs() == f32::MIN_POSITIVE {
        f64::from(a).mul_add(f64::from(b), f64::from(c)).abs() < below
    } else {
        sum.is_subnormal()
    };
    if small { 0f32.copysign(sum) } else { sum }
}

impl Pairs for Portable {
    type S = Portable;
    type P = [u32; LANES];
    const ROWS: usize = 3;
    const WORDS: usize = 1;

    #[inline(always)]
    fn simd(self) -> Portable {
        self
    }
    #[inline(always)]
    fn load(self, from: &[u32; LANES]) -> Self::P {
        *from
    }
    #[inline(always)]
    unsafe fn splat(self, from: *const u32) -> Self::P {
        // SAFETY: the caller's promise.
        [unsafe { *from }; LANES]
    }
    #[inline(always)]
    fn dot(self, a: Self::P, b: Self::P, mut c: [f32; LANES]) -> [f32; LANES] {
        for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
            let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
            *c = flushed(a0, b0, flushed(a1, b1, *c));
        }
        c
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Bf16, Flushing};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The three x86 tokens. Every `unsafe` block here is one intrinsic call (or a few), allowed by the token.

    use super::{LANES, Pairs};
    use crate::simd::{Avx2, Avx512, Simd};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// MXCSR: subnormal results are zeros (FTZ), subnormal operands, too (DAZ).
    const FLUSH: u32 = 1 << 15 | 1 << 6;

    /// While it lives, the vector instructions of this thread flush subnormal numbers; with it a token of vectors is one of pairs.
    ///
    /// Nothing else may be computed in floating point meanwhile. The compiler, which knows nothing of it, cannot move a product out:
    /// its operands are read from memory after the switch and its sums are written before the switch back, and each switch may, as far
    /// as the compiler knows, change memory.
    pub(crate) struct Flushing<S> {
        before: u32,
        simd: S,
    }

    impl<S: Simd> Flushing<S> {
        #[inline(always)]
        pub(crate) fn new(simd: S) -> Self {
            let mut before = 0u32;
            // SAFETY: stores four bytes where four bytes are.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
            set(before | FLUSH);
            Flushing { before, simd }
        }

        #[inline(always)]
        pub(crate) fn token(&self) -> Fma<S> {
            Fma(self.simd)
        }
    }

    impl<S> Drop for Flushing<S> {
        #[inline(always)]
        fn drop(&mut self) {
            set(self.before);
        }
    }

    #[inline(always)]
    fn set(mxcsr: u32) {
        // SAFETY: the value is the one that was read, with two bits set that every processor with AVX2 has.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
    }

    /// Pairs by two multiply-adds, under [`Flushing`].
    #[derive(Clone, Copy)]
    pub(crate) struct Fma<S>(S);

    /// The low and the high numbers of pairs, and the dot product by multiply-adds.
    macro_rules! by_multiply_adds {
        ($simd:ty, $rows:literal) => {
            impl Pairs for Fma<$simd> {
                type S = $simd;
                type P = [<$simd as Simd>::F; 2];
                const ROWS: usize = $rows;
                const WORDS: usize = 2;

                #[inline(always)]
                fn simd(self) -> $simd {
                    self.0
                }
                #[inline(always)]
                fn load(self, from: &[u32; LANES]) -> Self::P {
                    // SAFETY: 16 words are 32 values.
                    unsafe { self.0.load_bf16(from.as_ptr().cast()) }
                }
                #[inline(always)]
                unsafe fn splat(self, from: *const u32) -> Self::P {
                    // SAFETY: the caller's promise; two words are two numbers.
                    let [low, high] = unsafe { *from.cast::<[f32; 2]>() };
                    [self.0.splat(low), self.0.splat(high)]
                }
                #[inline(always)]
                fn dot(self, a: Self::P, b: Self::P, c: <$simd as Simd>::F) -> <$simd as Simd>::F {
                    self.0.fma(a[0], b[0], self.0.fma(a[1], b[1], c))
                }
            }
        };
    }

    by_multiply_adds!(Avx2, 4);
    by_multiply_adds!(Avx512, 12);

    /// Proof of AVX-512 with BF16, whose instruction ignores MXCSR and always flushes.
    #[derive(Clone, Copy)]
    pub(crate) struct Bf16(Avx512);

    impl Bf16 {
        /// # Safety
        /// The processor has AVX-512 F, BW, DQ, VL and BF16.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            // SAFETY: the caller's promise.
            Bf16(unsafe { Avx512::new() })
        }
    }

    impl Pairs for Bf16 {
        type S = Avx512;
        type P = __m512bh;
        const ROWS: usize = 14;
        const WORDS: usize = 1;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }
        #[inline(always)]
        fn load(self, from: &[u32; LANES]) -> __m512bh {
            // SAFETY: the token proves the instructions; the array holds 16 words; both types are 512 plain bits.
            unsafe { std::mem::transmute(_mm512_loadu_si512(from.as_ptr().cast())) }
        }
        #[inline(always)]
        unsafe fn splat(self, from: *const u32) -> __m512bh {
            // SAFETY: the caller's promise; the token proves the instructions; both types are 512 plain bits.
            unsafe { std::mem::transmute(_mm512_set1_epi32(*from as i32)) }
        }
        #[inline(always)]
        fn dot(self, a: __m512bh, b: __m512bh, c: __m512) -> __m512 {
            // SAFETY: the token proves the instructions; no memory is touched.
            unsafe { _mm512_dpbf16_ps(c, a, b) }
        }
    }
}
