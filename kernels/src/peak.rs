//! What the processor can do at most: chains of multiply-adds without memory, and reading without arithmetic.
//!
//! Not ops of a model, but what benchmarks of ops are measured against, in the same run. They do a known amount of work; whoever
//! calls them holds the watch.

use crate::Pool;
use crate::simd::{LANES, Simd, dispatch};
use std::sync::atomic::{AtomicU32, Ordering};

/// Multiply-adds of one round of [`multiply_adds`] on one thread.
pub const ROUND: usize = CHAINS * LANES * STEPS;

/// Chains that run side by side: more than the latency of two units asks for.
const CHAINS: usize = 12;
/// Multiply-adds of each chain in a round.
const STEPS: usize = 4096;
/// Numbers that a thread reads before the next piece is handed out.
const PIECE: usize = 1 << 18;

/// `N` chains for `steps` steps; their sum, so that nobody can leave them out.
#[inline(always)]
fn run_chains<S: Simd, const N: usize>(s: S, steps: usize) -> f32 {
    let (x, y) = (s.splat(0.999_999), s.splat(1e-6));
    let mut sums = [s.splat(0.5); N];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = s.fma(*sum, x, y);
        }
    }
    let mut all = s.splat(0.0);
    for sum in sums {
        all = s.add(all, sum);
    }
    s.sum(all)
}

#[inline(always)]
fn chains_kernel<S: Simd>(s: S, rounds: usize) -> f32 {
    // A vector of the narrower sets is two registers, of which there are sixteen.
    if S::ROWS >= CHAINS {
        run_chains::<S, CHAINS>(s, rounds * STEPS)
    } else {
        run_chains::<S, { CHAINS / 2 }>(s, 2 * rounds * STEPS)
    }
}

dispatch! {
    /// `rounds` rounds on this thread.
    fn chains(rounds: usize) -> f32 = chains_kernel
}

#[inline(always)]
fn read_kernel<S: Simd>(s: S, data: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 6];
    let (lines, _) = data.as_chunks::<LANES>();
    for group in lines.chunks_exact(6) {
        for (sum, line) in sums.iter_mut().zip(group) {
            *sum = s.add(*sum, s.load(line));
        }
    }
    let mut all = s.splat(0.0);
    for sum in sums {
        all = s.add(all, sum);
    }
    s.sum(all)
}

dispatch! {
    /// The sum of whole groups of six vectors.
    fn read_piece(data: &[f32]) -> f32 = read_kernel
}

/// `rounds` rounds of [`ROUND`] multiply-adds on every thread of the pool. The result only proves that they were done.
pub fn multiply_adds(pool: &Pool, rounds: usize) -> f32 {
    all_of(pool, pool.threads(), &|_| chains(pool.isa(), rounds))
}

/// Reads every number once, shared by the threads of the pool. The result only proves that they were read.
pub fn read(pool: &Pool, data: &[f32]) -> f32 {
    let pieces = data.len().div_ceil(PIECE);
    all_of(pool, pieces, &|piece| {
        let from = piece * PIECE;
        read_piece(pool.isa(), &data[from..data.len().min(from + PIECE)])
    })
}

/// Calls `task` for each number below `tasks`; a mixture of what it gave.
fn all_of(pool: &Pool, tasks: usize, task: &(dyn Fn(usize) -> f32 + Sync)) -> f32 {
    let mixed = AtomicU32::new(0);
    pool.run(tasks, &|index| {
        mixed.fetch_xor(task(index).to_bits(), Ordering::Relaxed);
    });
    f32::from_bits(mixed.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn the_work_is_done_on_every_instruction_set() {
        let data = vec![1.0; 2 * PIECE];
        for &isa in Isa::available() {
            let pool = Pool::with_isa(1, isa).unwrap_or_else(|error| panic!("{error}"));
            // Every lane ends near the chain's fixed point, from 0.5 upwards.
            let sum = multiply_adds(&pool, 1) / (CHAINS * LANES) as f32;
            assert!(sum > 0.24 && sum < 1.01, "{isa:?}: {sum}");
            let whole = (PIECE / (6 * LANES) * 6 * LANES) as f32;
            assert_eq!(read_piece(isa, &data[..PIECE]), whole, "{isa:?}");
        }
    }
}
