//! Products of bf16 in pairs: weights and activations in bf16, sums in f32.
//!
//! The contract is that of [`crate::gemm`] but for three things: an activation is rounded to bf16 once, at the door of the product; the
//! terms of a chain come in the order 1, 0, 3, 2, 5, 4, …; and numbers below 2⁻¹²⁶ are zeros, as operands and as sums. That is what one
//! instruction of newer processors does for two terms at once, and what the others do in two. Start at [`forward`]; what a pair is on
//! which processor is in [`lanes`].

mod lanes;

use crate::ahead::{Ahead, fetch};
use crate::gemm::{Around, Beside, ROWS, SOON, apart, split};
use crate::packed::{Line, PANEL};
use crate::pool::Shards;
use crate::simd::{Isa, LANES, Portable, Simd, dispatch};
use crate::tile::{FEW, Out, Sums};
use crate::{Packed, Pool};
use lanes::{F, Pairs};
use std::cell::Cell;

/// Terms, in pairs, that are done before the next rows: a panel's part then stays in the L2 cache, as in [`crate::tile`].
const TERMS: usize = 768;

/// To bf16, to nearest, ties to even; subnormal numbers to zeros, NaN to NaN.
#[inline(always)]
pub(crate) fn round(v: f32) -> u16 {
    let bits = v.to_bits();
    let size = bits & 0x7fff_ffff;
    // A NaN of a damaged checkpoint may wrap here; what it gives is not taken.
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let rounded = if size < 0x0080_0000 {
        bits >> 16 & 0x8000
    } else {
        up
    };
    let rounded = if size > 0x7f80_0000 {
        bits >> 16 | 0x40
    } else {
        rounded
    };
    rounded as u16
}

/// Two numbers, the first in the low half.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(round(first)) | u32::from(round(second)) << 16
}

/// Words of a pair of rounded activations: one, or one for each as f32, as multiply-adds want them.
fn words(isa: Isa) -> usize {
    match isa {
        Isa::Avx2 | Isa::Avx512 => 2,
        Isa::Portable | Isa::Avx512Bf16 => 1,
    }
}

#[inline(always)]
fn round_kernel<S: Simd>(_: S, row: &[f32], each: usize, to: &mut [u32]) {
    if each == 2 {
        for (to, number) in to.iter_mut().zip(row) {
            *to = u32::from(round(*number)) << 16;
        }
        if let Some(beside) = to.get_mut(row.len()) {
            *beside = 0;
        }
        return;
    }
    let (pairs, last) = row.as_chunks::<2>();
    for (to, [first, second]) in to.iter_mut().zip(pairs) {
        *to = pair(*first, *second);
    }
    if let (Some(to), [last]) = (to.get_mut(pairs.len()), last) {
        *to = pair(*last, 0.0);
    }
}

dispatch! {
    /// A row in pairs of so many words; an odd one's last is paired with zero.
    fn round_row(row: &[f32], each: usize, to: &mut [u32]) = round_kernel
}

thread_local! {
    /// Rounded activations of the product that this thread has started.
    static ROUNDED: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    /// Transposed weights of one step of the backward product.
    static TURNED: Cell<Vec<Line<u32>>> = const { Cell::new(Vec::new()) };
}

/// Rows in pairs.
pub(crate) struct Rounded {
    words: Vec<u32>,
    /// Distance of two rows.
    ld: usize,
    /// Words of a pair.
    each: usize,
}

impl Rounded {
    /// Rounds the rows of (N, `terms`). Work of `tasks` beside is done in the same job.
    pub(crate) fn new(
        pool: &Pool,
        rows: usize,
        terms: usize,
        from: &[f32],
        (tasks, work): (usize, &(dyn Fn(usize) + Sync)),
    ) -> Rounded {
        let each = words(pool.isa());
        let width = terms.div_ceil(2) * each;
        // An odd number of cache lines: the rows of a tile then lie in different sets of the L1 cache.
        let ld = (width.div_ceil(LANES) | 1) * LANES;
        let mut words = ROUNDED.take();
        if words.len() < rows * ld {
            words.resize(rows * ld, 0);
        }
        let to = Shards::new(&mut words);
        let own = if rows * terms < crate::gemm::SMALL {
            1
        } else {
            rows.min(pool.threads() * 4)
        };
        pool.run(tasks + own, &|task| {
            let Some(task) = task.checked_sub(tasks) else {
                return work(task);
            };
            for row in rows * task / own..rows * (task + 1) / own {
                // SAFETY: a row belongs to one task.
                let to = unsafe { to.part(row * ld..row * ld + width) };
                round_row(pool.isa(), &from[row * terms..][..terms], each, to);
            }
        });
        Rounded { words, ld, each }
    }
}

impl Drop for Rounded {
    fn drop(&mut self) {
        ROUNDED.set(std::mem::take(&mut self.words));
    }
}

/// `y = x·Wᵀ`; sizes are checked by [`crate::gemm::forward`].
pub(crate) fn forward(
    pool: &Pool,
    rows: usize,
    x: &Rounded,
    (w, lines): (&Packed, &[Line<u32>]),
    y: &mut [f32],
    beside: &dyn Beside,
) {
    let (n, k) = (w.outputs(), w.inputs());
    let pairs = k.div_ceil(2);
    split(pool, rows, w, y, beside, &|first, m, panel, wants, out| {
        let whole = pairs <= TERMS;
        if wants.rows {
            let soon = if whole { m.min(SOON) } else { m };
            fetch(&x.words[first * x.ld..][..soon * x.ld]);
        }
        let width = PANEL.min(n - panel * PANEL);
        let job = Job {
            x: &x.words[first * x.ld..],
            ld: x.ld,
            m,
            width,
            out,
            ahead: None,
            rows_ahead: wants.rows && whole,
        };
        let lines = &lines[panel * pairs..][..pairs];
        // Few rows read the panel once, in one go; many rows read it in parts that stay in the cache.
        let terms = if m <= 14 { pairs } else { TERMS };
        for (part, lines) in lines.chunks(terms).enumerate() {
            let sums = if part == 0 { Sums::Start } else { Sums::Resume };
            let job = Job {
                ahead: Some(Ahead::behind(
                    lines,
                    m,
                    wants.panel || (part + 1) * terms < pairs,
                )),
                ..job.at(part * terms * x.each)
            };
            product(pool.isa(), job, lines, sums);
        }
    });
}

/// Outputs, in pairs, whose weights for 32 inputs are transposed at a time: 64 KiB.
const OUTPUTS: usize = 512;

/// `dx = dy·W`; sizes are checked by [`crate::gemm::backward`].
pub(crate) fn backward(
    pool: &Pool,
    rows: usize,
    dy: &[f32],
    (w, lines): (&Packed, &[Line<u32>]),
    dx: &mut [f32],
    after: Option<&dyn Around>,
) {
    let (n, k) = (w.outputs(), w.inputs());
    if rows == 0 {
        return;
    }
    let (pairs, terms) = (k.div_ceil(2), n.div_ceil(2));
    let dy = Rounded::new(pool, rows, n, dy, (0, &|_| ()));
    let room = dx.len();
    let dx = Shards::new(dx);
    // A task is a strip of 32 columns of some rows, which are many enough that transposing the weights again does not matter.
    let (wide, tall) = (k.div_ceil(PANEL), (rows / ROWS).max(1));
    let tasks = wide * tall;
    pool.run(tasks, &|at| {
        let task = apart(at, tasks, pool.threads());
        let column = task % wide * PANEL;
        let mine = rows * (task / wide) / tall..rows * (task / wide + 1) / tall;
        let inputs = PANEL.min(k - column);
        let mut turned = TURNED.take();
        turned.resize(OUTPUTS, Line([0; PANEL]));
        for n0 in (0..terms).step_by(OUTPUTS) {
            let outputs = OUTPUTS.min(terms - n0);
            let blocks = turned.as_chunks_mut().0.iter_mut();
            for (block, to) in blocks.take(outputs.div_ceil(LANES)).enumerate() {
                let line = (n0 / LANES + block) * pairs + column / 2;
                turn(pool.isa(), &lines[line..][..inputs.div_ceil(2)], to);
            }
            if at < pool.threads() {
                let rows = dy.words.chunks(dy.ld).take(mine.end).skip(mine.start);
                rows.for_each(|row| fetch(&row[n0 * dy.each..][..outputs * dy.each]));
            }
            for m0 in mine.clone().step_by(ROWS) {
                let at = m0 * k + column;
                // SAFETY: `at < rows * k`; these columns of these rows belong to this task.
                let out = unsafe { Out::raw(dx.as_mut_ptr().add(at), k, room - at) };
                let job = Job {
                    x: &dy.words[m0 * dy.ld + n0 * dy.each..],
                    ld: dy.ld,
                    m: ROWS.min(mine.end - m0),
                    width: inputs,
                    out,
                    ahead: None,
                    rows_ahead: false,
                };
                let sums = if n0 == 0 { Sums::Start } else { Sums::Resume };
                product(pool.isa(), job, &turned[..outputs], sums);
            }
        }
        TURNED.set(turned);
        if let Some(after) = after {
            let at = mine.start * k + column;
            // SAFETY: as above.
            let out = unsafe { Out::raw(dx.as_mut_ptr().add(at), k, room - at) };
            after.columns(&(0..rows), &mine, column..column + inputs, out);
        }
    });
}

/// What a product with a panel needs besides the panel.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// Rows of pairs, as wide as the instructions want them.
    x: &'a [u32],
    /// Distance of two of them.
    ld: usize,
    m: usize,
    /// Columns that exist, of the panel's 32.
    width: usize,
    out: Out,
    /// What is asked for meanwhile.
    ahead: Option<Ahead>,
    /// A tile asks for the rows of the next one.
    rows_ahead: bool,
}

impl Job<'_> {
    /// From a later word on.
    fn at(self, word: usize) -> Self {
        Job {
            x: &self.x[word..],
            ..self
        }
    }
}

/// `C (+)= X·P` on one thread, P a panel: one line of 32 pairs for each pair of terms.
///
/// # Panics
/// When an operand is too short for the sizes.
fn product(isa: Isa, job: Job<'_>, panel: &[Line<u32>], sums: Sums) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::simd::{Avx2, Avx512};
        use lanes::{Bf16, Flushing};

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
        fn bf16(job: Job<'_>, panel: &[Line<u32>], sums: Sums) {
            // SAFETY: this function's features are those of the token.
            product_kernel(unsafe { Bf16::new() }, job, panel, sums);
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512(job: Job<'_>, panel: &[Line<u32>], sums: Sums) {
            // SAFETY: this function's features are those of the token.
            let flushing = Flushing::new(unsafe { Avx512::new() });
            product_kernel(flushing.token(), job, panel, sums);
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(job: Job<'_>, panel: &[Line<u32>], sums: Sums) {
            // SAFETY: this function's features are those of the token.
            let flushing = Flushing::new(unsafe { Avx2::new() });
            product_kernel(flushing.token(), job, panel, sums);
        }
        match isa {
            Isa::Portable => {}
            // SAFETY: a pool accepts an instruction set only where the processor has it.
            Isa::Avx2 => return unsafe { avx2(job, panel, sums) },
            // SAFETY: as above.
            Isa::Avx512 => return unsafe { avx512(job, panel, sums) },
            // SAFETY: as above.
            Isa::Avx512Bf16 => return unsafe { bf16(job, panel, sums) },
        }
    }
    let _ = isa;
    product_kernel(Portable, job, panel, sums);
}

#[inline(always)]
fn product_kernel<P: Pairs>(p: P, job: Job<'_>, panel: &[Line<u32>], sums: Sums) {
    let Job {
        x,
        ld,
        m,
        width,
        out,
        ..
    } = job;
    assert!(
        m > 0 && width > 0 && width <= PANEL,
        "a product has rows and columns"
    );
    let words = panel.len() * P::WORDS;
    assert!(words <= ld && (m - 1) * ld + words <= x.len(), "rows");
    out.check(m, width);
    if P::S::COLUMNS == 2 || m < FEW {
        return strip::<P, 2>(p, job, 0, panel, sums);
    }
    strip::<P, 1>(p, job, 0, panel, sums);
    if width > LANES {
        let second = Job {
            ahead: None,
            rows_ahead: false,
            ..job
        };
        strip::<P, 1>(p, second, 1, panel, sums);
    }
}

/// All rows of `V` vectors of columns from vector `from` on, of which a column exists; sizes are checked by [`product_kernel`].
#[inline(always)]
fn strip<P: Pairs, const V: usize>(
    p: P,
    job: Job<'_>,
    from: usize,
    panel: &[Line<u32>],
    sums: Sums,
) {
    let mut first = 0;
    macro_rules! tiles_of {
        ($($rows:literal)*) => {$(
            while P::ROWS >= $rows && job.m - first >= $rows {
                // SAFETY: rows `first..first + $rows` are below `m`, of which operands and output hold as many (asserted).
                unsafe { tile::<P, V, $rows>(p, job, (first, from), panel, sums) };
                first += $rows;
            }
        )*};
    }
    tiles_of!(14 12 8 4 3 2 1);
}

/// One register tile of `M` rows from row `first` on and `V` vectors of columns from vector `from` on.
///
/// # Safety
/// The operands hold the elements that the job names, the output a column of the first vector.
#[inline(always)]
unsafe fn tile<P: Pairs, const V: usize, const M: usize>(
    p: P,
    job: Job<'_>,
    (first, from): (usize, usize),
    panel: &[Line<u32>],
    sums: Sums,
) {
    let s = p.simd();
    let lanes = |v: usize| job.width.saturating_sub((from + v) * LANES).min(LANES);
    let mut acc: [[F<P>; V]; M] = [[s.splat(0.0); V]; M];
    if sums == Sums::Resume {
        for (i, row) in acc.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                // SAFETY: the caller promises the output's rows, whose first `width` columns exist.
                *sum = unsafe {
                    let sums = job.out.row(first + i).add((from + v) * LANES);
                    match lanes(v) {
                        LANES => s.load(&*sums.cast()),
                        n => s.load_first(sums, n),
                    }
                };
            }
        }
    }
    // SAFETY: the caller promises that row `first` exists.
    let rows = unsafe { job.x.as_ptr().add(first * job.ld) };
    let mut next = Ahead::rows(rows, job.ld, M, P::WORDS, job.rows_ahead);
    let mut weights = match job.ahead {
        Some(ahead) => ahead.of(first..first + M, job.m, panel.len()),
        None => Ahead::nothing(job.x.as_ptr()),
    };
    for (k, line) in panel.iter().enumerate() {
        weights.ask();
        next.ask();
        let halves = line.0.as_chunks().0;
        let mut columns = [p.load(&halves[from]); V];
        if V == 2 {
            columns[V - 1] = p.load(&halves[1]);
        }
        for (i, row) in acc.iter_mut().enumerate() {
            // SAFETY: the caller promises `M` rows with a pair for each line.
            let x = unsafe { p.splat(rows.add(i * job.ld + k * P::WORDS)) };
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = p.dot(x, column, *sum);
            }
        }
    }
    for (i, row) in acc.into_iter().enumerate() {
        for (v, sum) in row.into_iter().enumerate() {
            // SAFETY: as for the loads.
            unsafe {
                let to = job.out.row(first + i).add((from + v) * LANES);
                match lanes(v) {
                    LANES => s.store(&mut *to.cast(), sum),
                    n => s.store_first(to, sum, n),
                }
            }
        }
    }
}

/// Transposes weights: `from` has for each of up to 16 pairs of inputs 32 outputs, `to` for each of 16 pairs of outputs 32 inputs.
fn turn(isa: Isa, from: &[Line<u32>], to: &mut [Line<u32>; LANES]) {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx512 | Isa::Avx512Bf16, Some(from)) = (isa, from.first_chunk()) {
        // SAFETY: a pool accepts an instruction set only where the processor has it.
        return unsafe { turn_avx512(from, to) };
    }
    let _ = isa;
    for (at, line) in from.iter().enumerate() {
        for (pair, to) in line.0.as_chunks::<2>().0.iter().zip(to.iter_mut()) {
            to.0[2 * at] = pair[0] & 0xffff | pair[1] << 16;
            to.0[2 * at + 1] = pair[0] >> 16 | pair[1] & 0xffff_0000;
        }
    }
}

/// As [`turn`], of 16 pairs of inputs: four squares of 8 × 8 words of 64 bits, each 2 inputs by 2 outputs.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn turn_avx512(from: &[Line<u32>; LANES], to: &mut [Line<u32>; LANES]) {
    use std::arch::x86_64::*;
    // Inside a word of 64 bits, (a₀ a₁ b₀ b₁) becomes (a₀ b₀ a₁ b₁).
    let inner = _mm512_set1_epi64(0x0706_0302_0504_0100);
    let inner = _mm512_add_epi8(inner, _mm512_set4_epi32(0x0808_0808, 0x0808_0808, 0, 0));
    for (inputs, from) in from.as_chunks::<8>().0.iter().enumerate() {
        for half in 0..2 {
            let mut a = [_mm512_setzero_si512(); 8];
            for (a, line) in a.iter_mut().zip(from) {
                // SAFETY: a line has two halves of 16 words.
                let words = unsafe { _mm512_loadu_si512(line.0.as_ptr().add(half * LANES).cast()) };
                *a = _mm512_shuffle_epi8(words, inner);
            }
            // Neighbours, then quarters of the vectors, then halves.
            let mut b = a;
            for i in 0..4 {
                b[2 * i] = _mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]);
                b[2 * i + 1] = _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]);
            }
            let mut c = b;
            for i in [0, 1, 4, 5] {
                c[i] = _mm512_shuffle_i64x2::<0x88>(b[i], b[i + 2]);
                c[i + 2] = _mm512_shuffle_i64x2::<0xdd>(b[i], b[i + 2]);
            }
            for i in 0..4 {
                // Columns i and i + 4 of the square.
                for (offset, row) in [
                    (0, _mm512_shuffle_i64x2::<0x88>(c[i], c[i + 4])),
                    (4, _mm512_shuffle_i64x2::<0xdd>(c[i], c[i + 4])),
                ] {
                    let line = &mut to[half * 8 + i + offset].0[inputs * LANES..][..LANES];
                    // SAFETY: the slice has 16 words.
                    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), row) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::round;
    use half::bf16;

    #[test]
    fn every_kind_of_number_rounds_as_bf16_does_nan_with_any_payload_too() {
        // With what rounding adds, the last two exceed 32 bits.
        for bits in [
            0x0000_0000,
            0x0080_0000,
            0x3f80_8000,
            0x3f81_8000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fff_ffff,
            0xff80_0000,
            0xffff_8001,
            0xffff_ffff,
        ] {
            let number = f32::from_bits(bits);
            assert_eq!(
                round(number),
                bf16::from_f32(number).to_bits(),
                "{bits:08x}"
            );
        }
        for subnormal in [0x0000_0001, 0x007f_ffff, 0x8000_0001, 0x807f_ffff] {
            let sign = (subnormal >> 16) as u16 & 0x8000;
            assert_eq!(round(f32::from_bits(subnormal)), sign, "{subnormal:08x}");
        }
    }
}
