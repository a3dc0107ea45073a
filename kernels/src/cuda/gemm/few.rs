//! Few rows on Hopper: which kernel of cuda/decode_wgmma.cu a product takes, and how deep its ring is.
//!
//! Knows nothing of what is allowed: [`super`] has checked it. Start at [`by_few_on_hopper`].

use super::kernels::too_many;
use super::{Job, Output, Variant};
use crate::Result;
use crate::cuda::Stream;
use crate::cuda::adapters::{Shape, ints};
use crate::cuda::launch::{Entry, Grid, Module};
use crate::cuda::tensor_map::TensorMap;

pub(in crate::cuda) const MODULE: Module = Module {
    name: "decode_wgmma",
    kernels: &[
        PLANS[0].entry(),
        PLANS[1].entry(),
        PLANS[2].entry(),
        PLANS[3].entry(),
        PLANS[4].entry(),
        PLANS[5].entry(),
        PLANS[6].entry(),
        PLANS[7].entry(),
        PLANS[8].entry(),
        PLANS[9].entry(),
        PLANS[10].entry(),
    ],
};

/// Dynamic shared memory of a multiprocessor's one block, and of each of two: 228 KiB, less what every block needs besides its
/// ring.
const ONE: u32 = 233_472 - OTHER;
const TWO: u32 = 233_472 / 2 - OTHER;
const OTHER: u32 = 1024 + 4096;

/// The most stages: as many barriers as a kernel has.
const RING: usize = 32;
const THREADS: u32 = 192;

/// Rows of `x` that wgmma reads, whether they are there or not.
const LEFT: usize = 64;
const LINE: usize = 128;

/// A kernel of cuda/decode_wgmma.cu.
#[derive(Clone, Copy, Debug)]
struct Plan {
    name: &'static str,
    /// Of a block.
    outputs: usize,
    /// 64 terms each, of a stage.
    chunks: usize,
    /// The most rows that it is taken for.
    rows: usize,
}

impl Plan {
    const fn new(name: &'static str, outputs: usize, chunks: usize, rows: usize) -> Plan {
        Plan {
            name,
            outputs,
            chunks,
            rows,
        }
    }

    const fn entry(&self) -> Entry {
        Entry {
            name: self.name,
            shared: ONE,
        }
    }
}

/// Ascending in outputs, then in rows. More chunks are fewer waits, but a coarser ring.
const PLANS: [Plan; 11] = [
    Plan::new("decode_wgmma_16_8", 16, 8, 16),
    Plan::new("decode_wgmma_16_4", 16, 4, LEFT),
    Plan::new("decode_wgmma_24_8", 24, 8, 16),
    Plan::new("decode_wgmma_24_2", 24, 2, LEFT),
    Plan::new("decode_wgmma_32_4", 32, 4, 16),
    Plan::new("decode_wgmma_32_2", 32, 2, LEFT),
    Plan::new("decode_wgmma_48_2", 48, 2, LEFT),
    Plan::new("decode_wgmma_64_2", 64, 2, LEFT),
    Plan::new("decode_wgmma_96_1", 96, 1, LEFT),
    Plan::new("decode_wgmma_128_1", 128, 1, LEFT),
    Plan::new("decode_wgmma_152_1", 152, 1, LEFT),
];

/// One block a multiprocessor where its outputs are few enough, then its ring has all of the shared memory; else two, as many
/// outputs as make them one wave, or 128.
fn plan(rows: usize, outputs: usize, multiprocessors: usize) -> (&'static Plan, u32) {
    let of = |share: usize| PLANS.iter().find(|p| p.rows >= rows && p.outputs >= share);
    if let Some(plan) = of(outputs.div_ceil(multiprocessors)) {
        return (plan, ONE);
    }
    let shared = outputs.div_ceil(2 * multiprocessors).min(128);
    (of(shared).unwrap_or(&PLANS[10]), TWO)
}

pub(super) fn by_few_on_hopper(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    if job.rows > Variant::FEW_ROWS {
        return Err(too_many(job));
    }
    let (kind, to, add) = out.arguments();
    let multiprocessors = on.gpu().multiprocessors()? as usize;
    let (plan, room) = plan(job.rows, outputs, multiprocessors);
    let filled = job.rows.next_multiple_of(8);
    let stage = plan.chunks * (filled + plan.outputs) * LINE;
    // What wgmma reads behind the last stage's x.
    let behind = LEFT.saturating_sub(filled + plan.chunks * plan.outputs) * LINE;
    let slots = ((room as usize - behind) / stage)
        .min(RING)
        .min(inputs.div_ceil(64 * plan.chunks));
    let x = TensorMap::new(job.from, job.rows, inputs, filled as u32)?;
    let w = TensorMap::new(job.weights, outputs, inputs, plan.outputs as u32)?;
    let grid = Grid {
        blocks: [outputs.div_ceil(plan.outputs), 1, 1],
        threads: THREADS,
        shared: (slots * stage + behind) as u32,
    };
    let sizes = [kind, job.rows, outputs, inputs, slots];
    let [kind, rows, o, i, slots] = ints(job.op, sizes)?;
    // SAFETY: order and types are those of `decode_wgmma_*`, the maps are of the boxes that it counts, the stages fit into the
    // shared memory; sizes as in `in_tiles`. Before it waits for the kernel before it, it reads the weights alone, which no
    // kernel writes.
    unsafe {
        on.launch_early(
            plan.name,
            grid,
            &[&x, &w, to, &add, &job.lora, &kind, &rows, &o, &i, &slots],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::plan;

    #[test]
    fn the_maps_of_a_layer_are_one_wave_of_an_h200() {
        for (rows, outputs, name) in [
            (1, 2560, "decode_wgmma_24_8"),
            (64, 2560, "decode_wgmma_24_2"),
            (16, 6144, "decode_wgmma_48_2"),
            (64, 19_456, "decode_wgmma_152_1"),
            (1, 24_576, "decode_wgmma_96_1"),
            (1, 151_936, "decode_wgmma_128_1"),
        ] {
            assert_eq!(plan(rows, outputs, 132).0.name, name);
        }
    }
}
