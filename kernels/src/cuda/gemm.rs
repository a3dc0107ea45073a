//! Products with frozen weights: `y = x·Wᵀ` forward, `dx = dy·W` backward, each with the adapters' part.
//!
//! The weights are bf16, row-major (O, I), as in the checkpoint. **Order**: terms ascend in steps of 16, each step one
//! instruction of the tensor cores (16 products and the accumulator), into one f32 accumulator; the adapter's R / 16 steps
//! follow; one rounding, or one f32 addition, at the store. Every [`Variant`] gives the same bits, whatever the number of rows.
//! Start at [`forward`].

use half::bf16;

use super::adapters::{Adapters, Raw, Shape, Side, aligned, ints, step};
use super::launch::{Argument, Grid};
use super::{Stream, View, ViewMut};
use crate::error::{check, require};
use crate::{Error, Result};

mod few;
mod kernels;

pub(super) use few::MODULE as HOPPER_FEW;
pub(super) use kernels::{
    FEW, HOPPER, HOPPER_SHARED, MODULE, TILE, TILE_SHARED, hopper_grid, tile_grid,
};

/// Which kernel computes a product. All give the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// Tiles by `mma.sync` (compute capability 8.0 and later), for any number of rows.
    Tiles,
    /// Tiles by TMA and `wgmma` (9.0 alone), for any number of rows.
    Hopper,
    /// Each weight is read once, by `mma.sync`, for up to 64 rows; forward alone.
    Few,
    /// The same by TMA and `wgmma` (9.0 alone), for up to 128 rows.
    HopperFew,
}

impl Variant {
    /// The most rows of [`Variant::Few`].
    pub const FEW_ROWS: usize = 64;

    /// The most rows of [`Variant::HopperFew`].
    pub const HOPPER_FEW_ROWS: usize = 128;

    /// The variant that [`forward`] takes.
    pub fn forward(on: &Stream, rows: usize) -> Variant {
        match Variant::backward(on) {
            Variant::Hopper if rows <= Variant::HOPPER_FEW_ROWS => Variant::HopperFew,
            Variant::Tiles if rows <= Variant::FEW_ROWS => Variant::Few,
            many => many,
        }
    }

    /// This one, or that in tiles of a product that has none for few rows.
    pub(super) fn in_tiles(self) -> Variant {
        match self {
            Variant::Few => Variant::Tiles,
            Variant::HopperFew => Variant::Hopper,
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

    fn aligned(&self, op: &'static str) -> Result<()> {
        if let Output::Sum { of, .. } = self {
            aligned(op, "of", of.address())?;
        }
        match self {
            Output::Bf16(to) => aligned(op, "output", to.address()),
            Output::F32(to) | Output::Onto(to) | Output::Sum { to, .. } => {
                aligned(op, "output", to.address())
            }
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
    let job = Job::new(on, op, rows, map, (x, w), beside, Side::Outputs)?;
    y.aligned(op)?;
    if rows == 0 {
        return Ok(());
    }
    match variant {
        Variant::Tiles => kernels::in_tiles(on, &job, &y, true),
        Variant::Hopper => kernels::on_hopper(on, &job, &y, true),
        Variant::Few => kernels::by_few(on, &job, &y),
        Variant::HopperFew => few::by_few_on_hopper(on, &job, &y),
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
/// As [`backward`]; [`Error::Argument`] for the variants for few rows; [`Error::Kernel`] for one that the GPU has not.
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
    let job = Job::new(on, op, rows, map, (dy, w), beside, Side::Inputs)?;
    dx.aligned(op)?;
    if rows == 0 {
        return Ok(());
    }
    match variant {
        Variant::Tiles => kernels::in_tiles(on, &job, &dx, false),
        Variant::Hopper => kernels::on_hopper(on, &job, &dx, false),
        Variant::Few | Variant::HopperFew => Err(Error::Argument {
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

impl<'a> Job<'a> {
    /// What both doors check besides lengths.
    fn new(
        on: &Stream,
        op: &'static str,
        rows: usize,
        map: Shape,
        (from, weights): (View<'a, bf16>, View<'a, bf16>),
        beside: Option<Beside<'_>>,
        side: Side,
    ) -> Result<Job<'a>> {
        step(op, "outputs", map.outputs)?;
        step(op, "inputs", map.inputs)?;
        // Offsets of outputs are 32-bit numbers.
        ints(op, [rows * map.outputs, rows * map.inputs])?;
        aligned(op, "operand", from.address())?;
        aligned(op, "weights", weights.address())?;
        let lora = match beside {
            None => Raw::NONE,
            Some(Beside { adapters, inner }) => {
                check!("gemm.inner", inner: rows * adapters.inner());
                adapters.raw(on, op, rows, map, inner.address(), side)?
            }
        };
        Ok(Job {
            op,
            rows,
            map,
            from,
            weights,
            lora,
        })
    }
}
