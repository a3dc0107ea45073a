//! The kernels of a product, and how many threads each is launched with: cuda/gemm.cu, gemm_wgmma.cu, decode_gemm.cu.
//!
//! Knows nothing of what is allowed: [`super`] has checked it. Start at [`in_tiles`].

use super::{Job, Output, Variant};
use crate::cuda::Stream;
use crate::cuda::adapters::{Shape, ints};
use crate::cuda::launch::{Entry, Grid, Module};
use crate::cuda::tensor_map::TensorMap;
use crate::{Error, Result};

pub(in crate::cuda) const MODULE: Module = Module {
    name: "gemm",
    kernels: &[
        tiles(TILES_FORWARD[0]),
        tiles(TILES_FORWARD[1]),
        tiles(TILES_FORWARD[2]),
        tiles(TILES_BACKWARD[0]),
        tiles(TILES_BACKWARD[1]),
        tiles(TILES_BACKWARD[2]),
        Entry::new("gemm_round"),
    ],
};

pub(in crate::cuda) const FEW: Module = Module {
    name: "decode_gemm",
    kernels: &[
        few(0, 0),
        few(0, 1),
        few(0, 2),
        few(1, 0),
        few(1, 1),
        few(1, 2),
        few(2, 0),
        few(2, 1),
        few(2, 2),
        few(3, 0),
        few(3, 1),
        few(3, 2),
    ],
};

pub(in crate::cuda) const HOPPER: Module = Module {
    name: "gemm_wgmma",
    kernels: &[
        hopper(HOPPER_FORWARD[0]),
        hopper(HOPPER_FORWARD[1]),
        hopper(HOPPER_FORWARD[2]),
        hopper(HOPPER_BACKWARD[0]),
        hopper(HOPPER_BACKWARD[1]),
        hopper(HOPPER_BACKWARD[2]),
    ],
};

/// Edge of a tile, and the shared memory of its stages: cuda/tile.cuh.
pub(in crate::cuda) const TILE: usize = 128;
pub(in crate::cuda) const TILE_SHARED: u32 = 4 * (128 + 128) * 32 * 2;

/// The same of cuda/tile_wgmma.cuh.
pub(in crate::cuda) const HOPPER_TILE: (usize, usize) = (128, 256);
pub(in crate::cuda) const HOPPER_SHARED: u32 = 4 * (128 + 256) * 64 * 2;
pub(in crate::cuda) const HOPPER_THREADS: u32 = 384;

/// The kernels of one product by what becomes of it, as [`Output`] counts them.
type Names = [&'static str; 3];

const TILES_FORWARD: Names = ["gemm_forward_bf16", "gemm_forward_f32", "gemm_forward_add"];
const TILES_BACKWARD: Names = [
    "gemm_backward_bf16",
    "gemm_backward_f32",
    "gemm_backward_add",
];
const HOPPER_FORWARD: Names = [
    "gemm_wgmma_forward_bf16",
    "gemm_wgmma_forward_f32",
    "gemm_wgmma_forward_add",
];
const HOPPER_BACKWARD: Names = [
    "gemm_wgmma_backward_bf16",
    "gemm_wgmma_backward_f32",
    "gemm_wgmma_backward_add",
];

/// A plan of cuda/decode_gemm.cu.
struct Few {
    names: Names,
    rows: usize,
    warps: usize,
    stages: u32,
}

const FEW_PLANS: [Few; 4] = [
    Few {
        names: [
            "decode_gemm_8_bf16",
            "decode_gemm_8_f32",
            "decode_gemm_8_add",
        ],
        rows: 8,
        warps: 2,
        stages: 8,
    },
    Few {
        names: [
            "decode_gemm_16_bf16",
            "decode_gemm_16_f32",
            "decode_gemm_16_add",
        ],
        rows: 16,
        warps: 2,
        stages: 8,
    },
    Few {
        names: [
            "decode_gemm_32_bf16",
            "decode_gemm_32_f32",
            "decode_gemm_32_add",
        ],
        rows: 32,
        warps: 4,
        stages: 6,
    },
    Few {
        names: [
            "decode_gemm_64_bf16",
            "decode_gemm_64_f32",
            "decode_gemm_64_add",
        ],
        rows: 64,
        warps: 4,
        stages: 6,
    },
];

impl Few {
    const fn shared(&self) -> u32 {
        let rows = if self.rows < 16 { 16 } else { self.rows };
        self.stages * (self.warps * 16 + rows) as u32 * 128
    }
}

const fn tiles(name: &'static str) -> Entry {
    Entry {
        name,
        shared: TILE_SHARED,
    }
}

const fn few(plan: usize, kind: usize) -> Entry {
    Entry {
        name: FEW_PLANS[plan].names[kind],
        shared: FEW_PLANS[plan].shared(),
    }
}

const fn hopper(name: &'static str) -> Entry {
    Entry {
        name,
        shared: HOPPER_SHARED,
    }
}

pub(super) fn in_tiles(
    on: &Stream,
    job: &Job<'_>,
    out: &Output<'_, '_>,
    forward: bool,
) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    let (kind, to, add) = out.arguments();
    let (names, columns) = if forward {
        (TILES_FORWARD, outputs)
    } else {
        (TILES_BACKWARD, inputs)
    };
    let [rows, o, i] = ints(job.op, [job.rows, outputs, inputs])?;
    let grid = tile_grid(job.rows, columns);
    // SAFETY: order and types are those of `gemm_*`; the doors proved the operands (rows, I), (O, I) and (rows, O), `add` as
    // large as the output, and the adapters' shapes; rows and columns past the end are guarded.
    unsafe {
        on.launch(
            names[kind],
            grid,
            &[&job.from, &job.weights, to, &add, &job.lora, &rows, &o, &i],
        )
    }
}

pub(super) fn on_hopper(
    on: &Stream,
    job: &Job<'_>,
    out: &Output<'_, '_>,
    forward: bool,
) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    let (kind, to, add) = out.arguments();
    let (names, columns, terms, box_rows) = if forward {
        (HOPPER_FORWARD, outputs, inputs, 256)
    } else {
        (HOPPER_BACKWARD, inputs, outputs, 64)
    };
    let from = TensorMap::new(job.from, job.rows, terms, 128)?;
    let weights = TensorMap::new(job.weights, outputs, inputs, box_rows)?;
    let [rows, o, i] = ints(job.op, [job.rows, outputs, inputs])?;
    let grid = hopper_grid(on, job.rows, columns)?;
    // SAFETY: order and types are those of `gemm_wgmma_*`, the maps are of the boxes that it counts; sizes as in `in_tiles`.
    unsafe {
        on.launch(
            names[kind],
            grid,
            &[&from, &weights, to, &add, &job.lora, &rows, &o, &i],
        )
    }
}

/// A block for each tile.
pub(in crate::cuda) fn tile_grid(rows: usize, columns: usize) -> Grid {
    Grid {
        blocks: [rows.div_ceil(TILE) * columns.div_ceil(TILE), 1, 1],
        threads: 256,
        shared: TILE_SHARED,
    }
}

/// Blocks that take tile after tile.
pub(in crate::cuda) fn hopper_grid(on: &Stream, rows: usize, columns: usize) -> Result<Grid> {
    let tiles = rows.div_ceil(HOPPER_TILE.0) * columns.div_ceil(HOPPER_TILE.1);
    Ok(Grid {
        blocks: [on.stays(tiles)?, 1, 1],
        threads: HOPPER_THREADS,
        shared: HOPPER_SHARED,
    })
}

pub(super) fn by_few(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    let (kind, to, add) = out.arguments();
    let Some(plan) = FEW_PLANS.iter().find(|plan| job.rows <= plan.rows) else {
        return Err(too_many(job, Variant::FEW_ROWS));
    };
    let [rows, o, i] = ints(job.op, [job.rows, outputs, inputs])?;
    let grid = Grid {
        blocks: [outputs.div_ceil(plan.warps * 16), 1, 1],
        threads: plan.warps as u32 * 32,
        shared: plan.shared(),
    };
    // SAFETY: order and types are those of `decode_gemm_*`, which takes `plan.rows` rows at most; sizes as in `in_tiles`.
    unsafe {
        on.launch(
            plan.names[kind],
            grid,
            &[&job.from, &job.weights, to, &add, &job.lora, &rows, &o, &i],
        )
    }
}

pub(super) fn too_many(job: &Job<'_>, most: usize) -> Error {
    Error::Argument {
        op: job.op,
        what: "rows",
        rule: if most == Variant::FEW_ROWS {
            "this variant takes 64 at most"
        } else {
            "this variant takes 128 at most"
        },
        found: job.rows as f64,
    }
}
