//! Products with frozen weights: `y = x·Wᵀ` forward, `dx = dy·W` backward, each with the adapters' part.
//!
//! The weights are bf16, row-major (O, I), as in the checkpoint. **Order**: terms ascend in steps of 16, each step one
//! instruction of the tensor cores (16 products and the accumulator), into one f32 accumulator; the adapter's R / 16 steps
//! follow; one rounding, or one f32 addition, at the store. Every [`Variant`] gives the same bits, whatever the number of rows.
//! Start at [`forward`].

use half::bf16;

use super::adapters::{Adapters, Raw, Shape, Side, ints, step};
use super::launch::{Argument, Entry, Grid, Module};
use super::tensor_map::TensorMap;
use super::{Stream, View, ViewMut};
use crate::error::{check, require};
use crate::{Error, Result};

pub(super) const MODULE: Module = Module {
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

pub(super) const FEW: Module = Module {
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

pub(super) const HOPPER: Module = Module {
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
pub(super) const TILE: usize = 128;
pub(super) const TILE_SHARED: u32 = 4 * (128 + 128) * 32 * 2;

/// The same of cuda/tile_wgmma.cuh.
pub(super) const HOPPER_TILE: (usize, usize) = (128, 256);
pub(super) const HOPPER_SHARED: u32 = 4 * (128 + 256) * 64 * 2;
pub(super) const HOPPER_THREADS: u32 = 384;

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

/// Which kernel computes a product. All give the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// Tiles by `mma.sync` (compute capability 8.0 and later), for any number of rows.
    Tiles,
    /// Tiles by TMA and `wgmma` (9.0 alone), for any number of rows.
    Hopper,
    /// Each weight is read once, for up to 64 rows; forward alone.
    Few,
}

impl Variant {
    /// The most rows of [`Variant::Few`].
    pub const FEW_ROWS: usize = 64;

    /// The variant that [`forward`] takes.
    pub fn forward(on: &Stream, rows: usize) -> Variant {
        if rows <= Variant::FEW_ROWS {
            return Variant::Few;
        }
        Variant::backward(on)
    }

    /// This one, or that in tiles of a product that has none for few rows.
    pub(super) fn in_tiles(self) -> Variant {
        match self {
            Variant::Few => Variant::Tiles,
            other => other,
        }
    }

    /// The variant that [`backward`] takes.
    pub fn backward(on: &Stream) -> Variant {
        if on.gpu().is_hopper() {
            Variant::Hopper
        } else {
            Variant::Tiles
        }
    }
}

/// Where a product goes.
#[derive(Debug)]
pub enum Output<'a, 'b> {
    /// Rounded once: an operand of the next product.
    Bf16(&'a mut ViewMut<'b, bf16>),
    /// As it is.
    F32(&'a mut ViewMut<'b, f32>),
    /// Added to what is there, once and at the end: the residual stream, or a gradient.
    Onto(&'a mut ViewMut<'b, f32>),
    /// `to = of + product`, in the same order.
    Sum {
        /// What it is added to.
        of: View<'a, f32>,
        /// The result.
        to: &'a mut ViewMut<'b, f32>,
    },
}

impl Output<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Output::Bf16(to) => to.len(),
            Output::F32(to) | Output::Onto(to) | Output::Sum { to, .. } => to.len(),
        }
    }

    /// Which of three kernels, its output, and what it adds.
    fn arguments(&self) -> (usize, &dyn Argument, Option<View<'_, f32>>) {
        match self {
            Output::Bf16(to) => (0, *to, None),
            Output::F32(to) => (1, *to, None),
            Output::Onto(to) => (2, *to, Some(to.as_view())),
            Output::Sum { of, to } => (2, *to, Some(*of)),
        }
    }
}

/// The adapters of a product and their inner result, from [`super::lora`].
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// Who has which.
    pub adapters: Adapters<'a>,
    /// `u` forward, `du` backward: (N, [`Adapters::inner`]).
    pub inner: View<'a, bf16>,
}

/// One product's sizes and operands.
struct Job<'a> {
    op: &'static str,
    rows: usize,
    map: Shape,
    from: View<'a, bf16>,
    weights: View<'a, bf16>,
    lora: Raw,
}

/// `y = x·Wᵀ + u·Bᵀ`.
///
/// # Shapes
/// `x`: (N, I) · `w`: (O, I) · `y`: (N, O), with N = `rows`; I and O multiples of 16.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Argument`]; [`Error::Driver`].
///
/// # Source
/// The adapters: Hu et al. 2021.
pub fn forward(
    on: &Stream,
    rows: usize,
    map: Shape,
    (x, w): (View<'_, bf16>, View<'_, bf16>),
    beside: Option<Beside<'_>>,
    y: Output<'_, '_>,
) -> Result<()> {
    let variant = Variant::forward(on, rows);
    forward_by(variant, on, rows, map, (x, w), beside, y)
}

/// [`forward`] by a kernel of one's choice.
///
/// # Errors
/// As [`forward`]; [`Error::Argument`] for a variant that does not take so many rows; [`Error::Kernel`] for one that the GPU has
/// not.
pub fn forward_by(
    variant: Variant,
    on: &Stream,
    rows: usize,
    map: Shape,
    (x, w): (View<'_, bf16>, View<'_, bf16>),
    beside: Option<Beside<'_>>,
    y: Output<'_, '_>,
) -> Result<()> {
    let op = "gemm.forward";
    let Shape { outputs, inputs } = map;
    check!("gemm.forward", x: rows * inputs, w: outputs * inputs, y: rows * outputs);
    if let Output::Sum { of, .. } = &y {
        check!("gemm.forward", of: rows * outputs);
    }
    let job = Job {
        op,
        rows,
        map,
        from: x,
        weights: w,
        lora: lora(on, op, rows, map, beside, Side::Outputs)?,
    };
    if rows == 0 {
        return Ok(());
    }
    match variant {
        Variant::Tiles => in_tiles(on, &job, &y, true),
        Variant::Hopper => on_hopper(on, &job, &y, true),
        Variant::Few => by_few(on, &job, &y),
    }
}

/// `dx = dy·W + du·A`, the gradient of [`forward`] by its input.
///
/// # Shapes
/// `dy`: (N, O) · `w`: (O, I) · `dx`: (N, I), with N = `rows`; I and O multiples of 16.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Argument`]; [`Error::Driver`].
pub fn backward(
    on: &Stream,
    rows: usize,
    map: Shape,
    (dy, w): (View<'_, bf16>, View<'_, bf16>),
    beside: Option<Beside<'_>>,
    dx: Output<'_, '_>,
) -> Result<()> {
    let variant = Variant::backward(on);
    backward_by(variant, on, rows, map, (dy, w), beside, dx)
}

/// [`backward`] by a kernel of one's choice.
///
/// # Errors
/// As [`backward`]; [`Error::Argument`] for [`Variant::Few`]; [`Error::Kernel`] for one that the GPU has not.
pub fn backward_by(
    variant: Variant,
    on: &Stream,
    rows: usize,
    map: Shape,
    (dy, w): (View<'_, bf16>, View<'_, bf16>),
    beside: Option<Beside<'_>>,
    dx: Output<'_, '_>,
) -> Result<()> {
    let op = "gemm.backward";
    let Shape { outputs, inputs } = map;
    check!("gemm.backward", dy: rows * outputs, w: outputs * inputs, dx: rows * inputs);
    if let Output::Sum { of, .. } = &dx {
        check!("gemm.backward", of: rows * inputs);
    }
    let job = Job {
        op,
        rows,
        map,
        from: dy,
        weights: w,
        lora: lora(on, op, rows, map, beside, Side::Inputs)?,
    };
    if rows == 0 {
        return Ok(());
    }
    match variant {
        Variant::Tiles => in_tiles(on, &job, &dx, false),
        Variant::Hopper => on_hopper(on, &job, &dx, false),
        Variant::Few => Err(Error::Argument {
            op,
            what: "variant",
            rule: "few rows have no gradient of their own",
            found: rows as f64,
        }),
    }
}

/// `to = bf16(from)`: a gradient of the residual stream becomes an operand.
///
/// # Shapes
/// Both as many, an even number.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Argument`]; [`Error::Driver`].
pub fn round(on: &Stream, from: View<'_, f32>, to: &mut ViewMut<'_, bf16>) -> Result<()> {
    check!("gemm.round", to: from.len());
    let count = from.len();
    require!(
        "gemm.round",
        count = count as f64,
        count.is_multiple_of(2),
        "they are rounded in pairs"
    );
    let [len] = ints("gemm.round", [count])?;
    let grid = Grid::line(count.div_ceil(512), 256);
    // SAFETY: order and types are those of `gemm_round`; both have `count` elements, an even number.
    unsafe { on.launch("gemm_round", grid, &[&from, to, &len]) }
}

/// The door of both products' adapters and sizes.
fn lora(
    on: &Stream,
    op: &'static str,
    rows: usize,
    map: Shape,
    beside: Option<Beside<'_>>,
    side: Side,
) -> Result<Raw> {
    step(op, "outputs", map.outputs)?;
    step(op, "inputs", map.inputs)?;
    // Offsets of outputs are 32-bit numbers.
    ints(op, [rows * map.outputs, rows * map.inputs])?;
    let Some(Beside { adapters, inner }) = beside else {
        return Ok(Raw::NONE);
    };
    check!("gemm.inner", inner: rows * adapters.inner());
    adapters.raw(on, op, rows, map, inner.address(), side)
}

fn in_tiles(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>, forward: bool) -> Result<()> {
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

fn on_hopper(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>, forward: bool) -> Result<()> {
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
pub(super) fn tile_grid(rows: usize, columns: usize) -> Grid {
    Grid {
        blocks: [rows.div_ceil(TILE) * columns.div_ceil(TILE), 1, 1],
        threads: 256,
        shared: TILE_SHARED,
    }
}

/// Blocks that stay: as many as multiprocessors, or as tiles where these are fewer.
pub(super) fn hopper_grid(on: &Stream, rows: usize, columns: usize) -> Result<Grid> {
    let tiles = rows.div_ceil(HOPPER_TILE.0) * columns.div_ceil(HOPPER_TILE.1);
    let blocks = tiles.min(on.gpu().multiprocessors()? as usize);
    Ok(Grid {
        blocks: [blocks, 1, 1],
        threads: HOPPER_THREADS,
        shared: HOPPER_SHARED,
    })
}

fn by_few(on: &Stream, job: &Job<'_>, out: &Output<'_, '_>) -> Result<()> {
    let Shape { outputs, inputs } = job.map;
    let (kind, to, add) = out.arguments();
    let Some(plan) = FEW_PLANS.iter().find(|plan| job.rows <= plan.rows) else {
        return Err(Error::Argument {
            op: job.op,
            what: "rows",
            rule: "this variant takes 64 at most",
            found: job.rows as f64,
        });
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
