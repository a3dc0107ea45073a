//! What a GPU's tensor cores do, measured: single steps by both instructions, to compare their bits, and how many
//! products a second there can be. For `kernels/check-gpu`; no model calls it.

use half::bf16;

use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::error::{check, require};
use crate::{Error, Result};

pub(super) const MODULE: Module = Module {
    name: "probe",
    kernels: &[
        Entry::new("probe_mma"),
        Entry {
            name: "probe_wgmma",
            shared: WGMMA_SHARED,
        },
        Entry::new("probe_peak_mma"),
        Entry {
            name: "probe_peak_wgmma",
            shared: PEAK_SHARED,
        },
    ],
};

/// As in `cuda/probe.cu`.
const THREADS: u32 = 128;

/// Two tiles of 64 rows of 128 bytes.
const WGMMA_SHARED: u32 = 2 * 64 * 128;

/// A tile of 64 rows and one of 256.
const PEAK_SHARED: u32 = (64 + 256) * 128;

/// Rows and columns of a tile's result.
pub const SIDE: usize = 64;

/// Products of each of its elements: one step of a tensor core.
pub const STEP: usize = 16;

/// Which instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// `mma.sync` m16n8k16, from compute capability 8.0 on.
    Mma,
    /// `wgmma` m64n64k16 and m64n256k16, on 9.0.
    Wgmma,
}

impl Instruction {
    fn check(self, on: &Stream) -> Result<()> {
        if self == Instruction::Wgmma && !on.gpu().is_hopper() {
            return Err(Error::Kernel {
                kernel: "probe_wgmma",
                why: "only compute capability 9.0 has the instruction",
            });
        }
        Ok(())
    }
}

/// `d = c + a·bᵀ`, one step of a tensor core for each tile.
///
/// # Shapes
/// `a`, `b`: (T, 64, 16) · `c`, `d`: (T, 64, 64).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Kernel`] where there is no such instruction; [`crate::Error::Driver`].
pub fn step(
    on: &Stream,
    by: Instruction,
    a: View<'_, bf16>,
    b: View<'_, bf16>,
    c: View<'_, f32>,
    d: &mut ViewMut<'_, f32>,
) -> Result<()> {
    by.check(on)?;
    let tiles = c.len() / (SIDE * SIDE);
    let (operand, result) = (tiles * SIDE * STEP, tiles * SIDE * SIDE);
    check!("probe.step", a: operand, b: operand, c: result, d: result);
    let (name, shared) = match by {
        Instruction::Mma => ("probe_mma", 0),
        Instruction::Wgmma => ("probe_wgmma", WGMMA_SHARED),
    };
    let grid = Grid {
        shared,
        ..Grid::line(tiles, THREADS)
    };
    // SAFETY: order and types are those of both kernels; the checks proved T tiles of each.
    unsafe { on.launch(name, grid, &[d, &a, &b, &c]) }
}

/// Multiplies as fast as it can, `steps` times on each of `out`'s threads; gives the floating-point operations.
///
/// # Shapes
/// `out`: (blocks · 128), whose numbers mean nothing.
///
/// # Errors
/// As [`step`].
pub fn peak(on: &Stream, by: Instruction, steps: usize, out: &mut ViewMut<'_, f32>) -> Result<u64> {
    by.check(on)?;
    let blocks = out.len() / THREADS as usize;
    check!("probe.peak", out: blocks * THREADS as usize);
    let count = i32::try_from(steps).unwrap_or(i32::MAX);
    require!(
        "probe.peak",
        steps = steps as f64,
        count < i32::MAX,
        "steps are counted in 31 bits"
    );
    // A step is eight m16n8k16 of each of four warps, or four m64n256k16.
    let (name, shared, products) = match by {
        Instruction::Mma => ("probe_peak_mma", 0, 4 * 8 * 16 * 8 * 16),
        Instruction::Wgmma => ("probe_peak_wgmma", PEAK_SHARED, 4 * 64 * 256 * 16),
    };
    let grid = Grid {
        shared,
        ..Grid::line(blocks, THREADS)
    };
    // SAFETY: order and types are those of both kernels, which write one number a thread.
    unsafe { on.launch(name, grid, &[out, &count]) }?;
    Ok(2 * products * steps as u64 * blocks as u64)
}
