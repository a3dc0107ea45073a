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
    kernels: &ENTRIES,
};

const ENTRIES: [Entry; PLANS.len()] = {
    let mut entries = [const { Entry::new("") }; PLANS.len()];
    let mut i = 0;
    while i < PLANS.len() {
        entries[i] = PLANS[i].entry();
        i += 1;
    }
    entries
};

/// Shared memory of a multiprocessor, and what a block needs of it besides its ring: the system's, its barriers, and for each row
/// an adapter.
const ALL: usize = 233_472;
const OTHER: usize = 2048;
const OTHER_ROW: usize = 48;

/// The most stages: as many barriers as a kernel has.
const RING: usize = 32;
/// Bytes of 64 terms.
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
    /// Rows that its warpgroups multiply, whether they are there or not.
    width: usize,
}

impl Plan {
    const fn new(name: &'static str, outputs: usize, chunks: usize, rows: usize) -> Plan {
        Plan {
            name,
            outputs,
            chunks,
            rows,
            width: if rows > 64 { 128 } else { 64 },
        }
    }

    const fn entry(&self) -> Entry {
        Entry {
            name: self.name,
            shared: self.room(1) as u32,
        }
    }

    /// Shared memory for the ring of each of `blocks` blocks of a multiprocessor.
    const fn room(&self, blocks: usize) -> usize {
        ALL / blocks - OTHER - OTHER_ROW * self.width
    }

    const fn threads(&self) -> u32 {
        self.width as u32 * 2 + 64
    }
}

/// For so many rows at most, ascending in outputs. More chunks are fewer waits, but a coarser ring.
const PLANS: [Plan; 18] = [
    Plan::new("decode_wgmma_16_8", 16, 8, 16),
    Plan::new("decode_wgmma_16_4", 16, 4, 64),
    Plan::new("decode_wgmma_24_8", 24, 8, 16),
    Plan::new("decode_wgmma_24_4", 24, 4, 64),
    Plan::new("decode_wgmma_32_4", 32, 4, 64),
    Plan::new("decode_wgmma_48_4", 48, 4, 16),
    Plan::new("decode_wgmma_48_2", 48, 2, 64),
    Plan::new("decode_wgmma_64_2", 64, 2, 64),
    Plan::new("decode_wgmma_96_1", 96, 1, 64),
    Plan::new("decode_wgmma_128_1", 128, 1, 64),
    Plan::new("decode_wgmma_152_1", 152, 1, 64),
    Plan::new("decode_wgmma_24_2_128", 24, 2, 128),
    Plan::new("decode_wgmma_32_2_128", 32, 2, 128),
    Plan::new("decode_wgmma_48_2_128", 48, 2, 128),
    Plan::new("decode_wgmma_64_1_128", 64, 1, 128),
    Plan::new("decode_wgmma_96_1_128", 96, 1, 128),
    Plan::new("decode_wgmma_128_1_128", 128, 1, 128),
    Plan::new("decode_wgmma_152_1_128", 152, 1, 128),
];

/// The kernel, and the blocks that a multiprocessor has at a time: one where the outputs are few enough, then its ring has all of the
/// shared memory; else two, with as many outputs as make them one wave, or 128.
fn plan(rows: usize, outputs: usize, multiprocessors: usize) -> (&'static Plan, usize) {
    let of = |share: usize| {
        let mut plans = PLANS.iter();
        plans.find(|p| p.outputs >= share && p.rows >= rows)
    };
    if let Some(plan) = of(outputs.div_ceil(multiprocessors)) {
        return (plan, 1);
    }
    // Two blocks of the widest have too many registers.
    let blocks = if rows > 64 { 1 } else { 2 };
    let share = outputs.div_ceil(blocks * multiprocessors).min(128);
    (of(share).unwrap_or(&PLANS[PLANS.len() - 1]), blocks)
}

pub(super) fn by_few_on_hopper(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    if job.rows > Variant::HOPPER_FEW_ROWS {
        return Err(too_many(job, Variant::HOPPER_FEW_ROWS));
    }
    let (kind, to, add) = out.arguments();
    let multiprocessors = on.gpu().multiprocessors()? as usize;
    let (plan, blocks) = plan(job.rows, outputs, multiprocessors);
    let filled = job.rows.next_multiple_of(8);
    let stage = plan.chunks * (filled + plan.outputs) * LINE;
    // What wgmma reads behind the last stage's x.
    let behind = plan
        .width
        .saturating_sub(filled + plan.chunks * plan.outputs)
        * LINE;
    let slots = ((plan.room(blocks) - behind) / stage)
        .min(RING)
        .min(inputs.div_ceil(64 * plan.chunks));
    let x = TensorMap::new(job.from, job.rows, inputs, filled as u32)?;
    let w = TensorMap::new(job.weights, outputs, inputs, plan.outputs as u32)?;
    let grid = Grid {
        blocks: [outputs.div_ceil(plan.outputs), 1, 1],
        threads: plan.threads(),
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
            (64, 2560, "decode_wgmma_24_4"),
            (16, 6144, "decode_wgmma_48_4"),
            (64, 19_456, "decode_wgmma_152_1"),
            (1, 24_576, "decode_wgmma_96_1"),
            (1, 151_936, "decode_wgmma_128_1"),
            (65, 2560, "decode_wgmma_24_2_128"),
            (128, 151_936, "decode_wgmma_128_1_128"),
        ] {
            assert_eq!(plan(rows, outputs, 132).0.name, name);
        }
    }
}
