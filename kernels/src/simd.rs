//! Sixteen f32 lanes, the same on every instruction set.
//!
//! Kernels are written once, over [`Simd`]; the three implementations (AVX-512, AVX2 with FMA, plain Rust) do the same
//! operations on the same lanes in the same order, so that a result has the same bits on each. A value of an
//! implementing type is a *token*: it exists only where the processor has the instructions, which is what makes the
//! methods safe. Kernels must not use vectors in closures: a closure is compiled without the instruction set of the function
//! that it is in. Not here: any loop over memory. Read [`crate::gemm`] next.

use std::sync::OnceLock;

/// Lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// The instruction set that an op runs on. Results do not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// Plain Rust; on processors without fused multiply-add it is slow.
    Portable,
    /// AVX2 and FMA, 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, 16 lanes.
    Avx512,
    /// The same, and BF16 for [`crate::Dtype::Bf16Pairs`].
    Avx512Bf16,
}

impl Isa {
    /// The fastest set of this processor.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| match Isa::available() {
            // Measured on a Xeon: its BF16 instruction does two terms in the time of four multiply-adds.
            [.., second, Isa::Avx512Bf16] if !is_amd() => *second,
            [.., last] => *last,
            [] => Isa::Portable,
        })
    }

    /// Every set that this processor has, narrowest first.
    pub fn available() -> &'static [Isa] {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    if is_x86_feature_detected!("avx512bf16") {
                        return &[Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
                    }
                    return &[Isa::Portable, Isa::Avx2, Isa::Avx512];
                }
                return &[Isa::Portable, Isa::Avx2];
            }
        }
        &[Isa::Portable]
    }
}

/// Whether AMD made the processor.
pub(crate) fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static AMD: OnceLock<bool> = OnceLock::new();
        *AMD.get_or_init(|| {
            let id = std::arch::x86_64::__cpuid(0);
            let name = [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
            [id.ebx, id.edx, id.ecx] == name
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Sixteen f32 lanes and what kernels do with them. `self` is the proof that the instructions exist.
pub(crate) trait Simd: Copy {
    /// A vector.
    type F: Copy;
    /// The register tile of a matrix product: vectors of columns, of 32 at a time or of 16, and rows.
    const COLUMNS: usize;
    const ROWS: usize;

    fn splat(self, v: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, to: &mut [f32; LANES], v: Self::F);
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: a NaN in `b` survives.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: a NaN in `b` survives.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` of an integral `n` in [-126, 127].
    fn pow2(self, n: Self::F) -> Self::F;
    /// The 32 bf16 values of a panel row: columns 0..16 in the low halves, 16..32 in the high halves of 32-bit words.
    ///
    /// # Safety
    /// 32 values are readable at `from`.
    unsafe fn load_bf16(self, from: *const u16) -> [Self::F; 2];
    /// 32 signed bytes, in order.
    ///
    /// # Safety
    /// 32 values are readable at `from`.
    unsafe fn load_i8(self, from: *const i8) -> [Self::F; 2];
    /// The first `n <= 16` values, then zeros.
    ///
    /// # Safety
    /// `n` values are readable at `from`.
    unsafe fn load_first(self, from: *const f32, n: usize) -> Self::F;
    /// Writes the first `n <= 16` lanes.
    ///
    /// # Safety
    /// `n` values are writable at `to`.
    unsafe fn store_first(self, to: *mut f32, v: Self::F, n: usize);

    /// The lanes, as an array.
    #[inline(always)]
    fn lanes(self, v: Self::F) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        self.store(&mut out, v);
        out
    }

    /// The first lanes from a slice shorter than a vector; the rest is zero.
    #[inline(always)]
    fn load_tail(self, from: &[f32]) -> Self::F {
        // SAFETY: the slice holds the elements that are read.
        unsafe { self.load_first(from.as_ptr(), from.len().min(LANES)) }
    }

    /// The first lanes into a slice shorter than a vector.
    #[inline(always)]
    fn store_tail(self, to: &mut [f32], v: Self::F) {
        // SAFETY: the slice holds the elements that are written.
        unsafe { self.store_first(to.as_mut_ptr(), v, to.len().min(LANES)) }
    }

    /// The sum of the lanes: halves are added until one is left, on every instruction set.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut lanes = self.lanes(v);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }

    /// `e^x` within 2 ulp on [-87.3, 88]; clamped outside, NaN stays NaN.
    ///
    /// # Source
    /// Cephes `expf`: reduction by ln 2 in two parts, polynomial of degree 5.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        let x = self.min(self.splat(88.0), self.max(self.splat(-87.3), x));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for c in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ] {
            p = self.fma(p, r, self.splat(c));
        }
        let p = self.fma(p, self.mul(r, r), r);
        self.mul(self.add(p, self.splat(1.0)), self.pow2(n))
    }

    /// `1 / (1 + e^-x)`.
    #[inline(always)]
    fn sigmoid(self, x: Self::F) -> Self::F {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp(self.sub(self.splat(0.0), x))))
    }
}

/// Plain Rust; always there.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Lane by lane.
#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type F = [f32; LANES];
    const COLUMNS: usize = 2;
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        [v; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], v: Self::F) {
        *to = v;
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        each(|i| f32::from_bits(((n[i] as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> [Self::F; 2] {
        // SAFETY: the caller promises 32 readable values.
        let row = unsafe { std::slice::from_raw_parts(from, 2 * LANES) };
        let widen = |v: u16| f32::from_bits(u32::from(v) << 16);
        [each(|i| widen(row[2 * i])), each(|i| widen(row[2 * i + 1]))]
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> [Self::F; 2] {
        // SAFETY: the caller promises 32 readable values.
        let row = unsafe { std::slice::from_raw_parts(from, 2 * LANES) };
        [
            each(|i| f32::from(row[i])),
            each(|i| f32::from(row[LANES + i])),
        ]
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, n: usize) -> Self::F {
        // SAFETY: the caller promises `n` readable values.
        let from = unsafe { std::slice::from_raw_parts(from, n) };
        each(|i| from.get(i).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, v: Self::F, n: usize) {
        // SAFETY: the caller promises `n` writable values.
        unsafe { std::slice::from_raw_parts_mut(to, n) }.copy_from_slice(&v[..n]);
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The two x86 tokens. Every `unsafe` block here is one intrinsic call (or a few), allowed by the token.

    use super::{LANES, Simd};
    use std::arch::x86_64::*;

    /// Proof of AVX-512 F, BW, DQ and VL.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The processor has AVX-512 F, BW, DQ and VL.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Avx512(())
        }
    }

    /// Wraps intrinsics that read no memory.
    macro_rules! pure {
        ($e:expr) => {{
            // SAFETY: the token `self` exists only where the processor has these instructions; no memory is touched.
            unsafe { $e }
        }};
    }

    impl Simd for Avx512 {
        type F = __m512;
        const COLUMNS: usize = 2;
        const ROWS: usize = 14;

        #[inline(always)]
        fn splat(self, v: f32) -> __m512 {
            pure!(_mm512_set1_ps(v))
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> __m512 {
            // SAFETY: the token proves the instructions; the array holds 16 values.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES], v: __m512) {
            // SAFETY: the token proves the instructions; the array holds 16 values.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            pure!(_mm512_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_div_ps(a, b))
        }
        #[inline(always)]
        fn sqrt(self, a: __m512) -> __m512 {
            pure!(_mm512_sqrt_ps(a))
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_max_ps(a, b))
        }
        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            pure!(_mm512_min_ps(a, b))
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            pure!(_mm512_roundscale_ps::<
                { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
            >(a))
        }
        #[inline(always)]
        fn pow2(self, n: __m512) -> __m512 {
            pure!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(
                _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127))
            )))
        }
        #[inline(always)]
        unsafe fn load_bf16(self, from: *const u16) -> [__m512; 2] {
            // SAFETY: the token proves the instructions; the caller promises 32 readable values.
            unsafe {
                let words = _mm512_loadu_si512(from.cast());
                let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                [
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)),
                    _mm512_castsi512_ps(_mm512_and_si512(words, high)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, from: *const i8) -> [__m512; 2] {
            // SAFETY: the token proves the instructions; the caller promises 32 readable values.
            unsafe {
                let low = _mm_loadu_si128(from.cast());
                let high = _mm_loadu_si128(from.add(LANES).cast());
                [
                    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)),
                    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_first(self, from: *const f32, n: usize) -> __m512 {
            // SAFETY: the token proves the instructions; masked lanes are not read.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, from) }
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, v: __m512, n: usize) {
            // SAFETY: the token proves the instructions; masked lanes are not written.
            unsafe { _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as __mmask16, v) }
        }
    }

    /// Proof of AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The processor has AVX2 and FMA.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Avx2(())
        }
    }

    impl Simd for Avx2 {
        type F = [__m256; 2];
        // Twelve sums, two registers of columns, two of rows: all sixteen.
        const COLUMNS: usize = 1;
        const ROWS: usize = 6;

        #[inline(always)]
        fn splat(self, v: f32) -> Self::F {
            pure!([_mm256_set1_ps(v); 2])
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::F {
            // SAFETY: the token proves the instructions; the array holds 16 values.
            unsafe {
                [
                    _mm256_loadu_ps(from.as_ptr()),
                    _mm256_loadu_ps(from.as_ptr().add(8)),
                ]
            }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES], v: Self::F) {
            // SAFETY: the token proves the instructions; the array holds 16 values.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
            }
        }
        #[inline(always)]
        fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            pure!([
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1])
            ])
        }
        #[inline(always)]
        fn add(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn sub(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn mul(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn div(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn sqrt(self, a: Self::F) -> Self::F {
            pure!([_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])])
        }
        #[inline(always)]
        fn max(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn min(self, a: Self::F, b: Self::F) -> Self::F {
            pure!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn round(self, a: Self::F) -> Self::F {
            pure!([
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[0]),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[1])
            ])
        }
        #[inline(always)]
        fn pow2(self, n: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; no memory is touched.
            unsafe {
                let bias = _mm256_set1_epi32(127);
                let low = _mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias);
                let high = _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias);
                [
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, from: *const u16) -> [Self::F; 2] {
            // SAFETY: the token proves the instructions; the caller promises 32 readable values.
            unsafe {
                let a = _mm256_loadu_si256(from.cast());
                let b = _mm256_loadu_si256(from.add(16).cast());
                let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                [
                    [
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)),
                    ],
                    [
                        _mm256_castsi256_ps(_mm256_and_si256(a, high)),
                        _mm256_castsi256_ps(_mm256_and_si256(b, high)),
                    ],
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, from: *const i8) -> [Self::F; 2] {
            // SAFETY: the token proves the instructions; the caller promises 32 readable values, and each load reads 8.
            unsafe {
                let a = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
                let b = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()));
                let c = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(16).cast()));
                let d = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(24).cast()));
                [
                    [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)],
                    [_mm256_cvtepi32_ps(c), _mm256_cvtepi32_ps(d)],
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_first(self, from: *const f32, n: usize) -> Self::F {
            let mut all = [0.0; LANES];
            // SAFETY: the caller promises `n <= 16` readable values.
            all[..n].copy_from_slice(unsafe { std::slice::from_raw_parts(from, n) });
            self.load(&all)
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, v: Self::F, n: usize) {
            let all = self.lanes(v);
            // SAFETY: the caller promises `n <= 16` writable values.
            unsafe { std::slice::from_raw_parts_mut(to, n) }.copy_from_slice(&all[..n]);
        }
    }
}

/// Makes a function of a generic kernel, `fn kernel<S: Simd>(s: S, ..)`, compiled once for each instruction set.
///
/// The new function takes an [`Isa`] in place of the token.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:path) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function's features are those of the token.
                $kernel(unsafe { $crate::simd::Avx512::new() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function's features are those of the token.
                $kernel(unsafe { $crate::simd::Avx2::new() }, $($arg),*)
            }
            match isa {
                $crate::Isa::Portable => $kernel($crate::simd::Portable, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => {
                    // SAFETY: a pool accepts an instruction set only where the processor has it.
                    unsafe { avx2($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 => {
                    // SAFETY: a pool accepts an instruction set only where the processor has it.
                    unsafe { avx512($($arg),*) }
                }
                #[cfg(not(target_arch = "x86_64"))]
                _ => $kernel($crate::simd::Portable, $($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;
