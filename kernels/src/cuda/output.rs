//! The last linear map fused with log-softmax and the choice of targets, forward and backward; the same normalizer for logits
//! that a decode step stores.
//!
//! Logits are f32 sums of [`super::gemm`]'s order, never rounded. Training makes them in tiles of 128 tokens and keeps {max, sum}
//! of each. **Order**: of 32 columns, lane t of four adds columns 8j + 2t and 8j + 2t + 1, j ascending, then the lanes by
//! exclusive-or 1, 2; four such units of a tile ascending; of the tiles, lane l of 32 adds l, l + 32, … ascending, then the lanes
//! by exclusive-or 1 to 16. A tile's sum counts from its own maximum, so a log-prob has the same bits by either way.
//! Start at [`log_probs`].

use half::bf16;

use super::adapters::{Shape, aligned, ints, step};
use super::gemm::{self, HOPPER_SHARED, Output, TILE, TILE_SHARED, Variant};
use super::launch::{Argument, Entry, Grid, Module};
use super::tensor_map::TensorMap;
use super::{Buffer, Element, Gpu, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

mod stored;

pub use stored::{log_probs_of, log_probs_of_drawn, normalizers};

pub(super) const MODULE: Module = Module {
    name: "output",
    kernels: &[
        Entry {
            name: "output_tiles",
            shared: TILE_SHARED,
        },
        Entry::new("output_logit_tiles"),
        Entry::new("output_normalizer"),
        Entry::new("output_log_probs"),
        Entry::new("output_pick"),
        Entry::new("output_drawn"),
        Entry {
            name: "output_gradient",
            shared: TILE_SHARED,
        },
    ],
};

pub(super) const HOPPER: Module = Module {
    name: "output_wgmma",
    kernels: &[
        Entry {
            name: "output_wgmma_tiles",
            shared: HOPPER_SHARED,
        },
        Entry {
            name: "output_wgmma_gradient",
            shared: HOPPER_SHARED,
        },
    ],
};

/// Tokens whose gradients by the logits exist at a time, (N, PART). The gradient by the hidden states is a sum of the parts' sums,
/// ascending, so this is part of its order.
pub const PART: usize = 4096;

/// {max, ln Σ exp((logit − max) / temperature)} of one row; of a tile, {max, Σ}.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Normalizer {
    /// The largest logit.
    pub max: f32,
    /// The logarithm of the sum, of a tile the sum.
    pub log_sum: f32,
}

// SAFETY: two plain numbers without padding.
unsafe impl Element for Normalizer {}

/// Tokens whose log-probabilities are asked for: any number of each row's.
#[derive(Debug)]
pub struct Targets {
    /// Row r has those from `first[r]` to `first[r + 1]`.
    first: Buffer<i32>,
    token: Buffer<i32>,
    rows: usize,
    count: usize,
    vocabulary: usize,
}

impl Targets {
    /// Of each row, its targets.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a token outside of the vocabulary; [`crate::Error::Driver`].
    pub fn upload<'a>(
        on: &Stream,
        vocabulary: usize,
        rows: impl IntoIterator<Item = &'a [u32]>,
    ) -> Result<Targets> {
        let gpu = on.gpu();
        let mut targets = Targets {
            first: gpu.buffer(0)?,
            token: gpu.buffer(0)?,
            rows: 0,
            count: 0,
            vocabulary,
        };
        targets.replace(on, vocabulary, rows)?;
        Ok(targets)
    }

    /// Others instead, in the same memory where there is room: what is freed waits for everything that was queued. None are left after an error.
    ///
    /// # Errors
    /// As [`Targets::upload`].
    pub fn replace<'a>(
        &mut self,
        on: &Stream,
        vocabulary: usize,
        rows: impl IntoIterator<Item = &'a [u32]>,
    ) -> Result<()> {
        (self.rows, self.count, self.vocabulary) = (0, 0, vocabulary);
        let (mut first, mut tokens) = (vec![0], Vec::new());
        for row in rows {
            for &token in row {
                require!(
                    "output.targets",
                    token = f64::from(token),
                    (token as usize) < vocabulary,
                    "the vocabulary is smaller"
                );
                tokens.extend(ints("output.targets", [token as usize])?);
            }
            first.extend(ints("output.targets", [tokens.len()])?);
        }
        put(on, &first, &mut self.first)?;
        put(on, &tokens, &mut self.token)?;
        (self.rows, self.count) = (first.len() - 1, tokens.len());
        Ok(())
    }

    /// All rows' targets.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Writes to a buffer, or to a new one when it has no room.
fn put(on: &Stream, numbers: &[i32], to: &mut Buffer<i32>) -> Result<()> {
    if to.len() < numbers.len() {
        *to = on.gpu().buffer(numbers.len())?;
    }
    on.write(numbers, &mut to.view_mut().part(0..numbers.len())?)
}

/// What the last map multiplies.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Normed hidden states: (N, C).
    pub hidden: View<'a, bf16>,
    /// W: (V, C); V and C multiples of 16.
    pub weights: View<'a, bf16>,
    /// 1 / temperature of each row, positive: (N).
    pub inverse_temperature: View<'a, f32>,
}

/// Memory that the passes share.
#[derive(Debug)]
pub struct Work {
    stats: Buffer<Normalizer>,
    target_logits: Buffer<f32>,
    dlogits: Buffer<bf16>,
}

impl Work {
    /// For `rows` rows with `targets` targets in all.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn new(gpu: &Gpu, rows: usize, vocabulary: usize, targets: usize) -> Result<Work> {
        Ok(Work {
            stats: gpu.buffer(rows * vocabulary.div_ceil(TILE))?,
            target_logits: gpu.buffer(targets)?,
            dlogits: gpu.buffer(rows * PART.min(vocabulary))?,
        })
    }
}

/// The log-probabilities of targets at each row's temperature: `logit / T − ln Σ exp(logits / T)`.
///
/// # Shapes
/// `normalizers`: (N), for [`backward`] · `out`: one for each target, by rows.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
pub fn log_probs(
    on: &Stream,
    head: Head<'_>,
    targets: &Targets,
    work: &mut Work,
    normalizers: &mut ViewMut<'_, Normalizer>,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let variant = Variant::backward(on);
    log_probs_by(variant, on, head, targets, work, normalizers, out)
}

/// [`log_probs`] by a kernel of one's choice; all give the same bits. [`Variant::Few`] counts as [`Variant::Tiles`].
///
/// # Errors
/// As [`log_probs`]; [`crate::Error::Kernel`] for one that the GPU has not.
pub fn log_probs_by(
    variant: Variant,
    on: &Stream,
    head: Head<'_>,
    targets: &Targets,
    work: &mut Work,
    normalizers: &mut ViewMut<'_, Normalizer>,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let (rows, map) = door("output.log_probs", &head, targets)?;
    let inverse = head.inverse_temperature;
    check!("output.log_probs", normalizers: rows, out: targets.count);
    if rows == 0 {
        return Ok(());
    }
    let mut stats = work.stats.view_mut();
    let mut stats = stats.part(0..rows * map.outputs.div_ceil(TILE))?;
    let mut logits = work.target_logits.view_mut();
    let mut logits = logits.part(0..targets.count)?;
    let [n, v, c] = ints("output.log_probs", [rows, map.outputs, map.inputs])?;
    let kernels = ["output_tiles", "output_wgmma_tiles"];
    let product = Product::new(variant, on, kernels, rows, map, (head.hidden, head.weights))?;
    let (first, token) = (targets.first.view(), targets.token.view());
    let [hidden, weights] = product.operands();
    // SAFETY: order and types are those of `output_tiles`; the door proved the operands and that targets are inside, the parts
    // the outputs; rows and columns past the end are guarded.
    unsafe {
        on.launch(
            product.kernel,
            product.grid,
            &[
                hidden,
                weights,
                &inverse,
                &first,
                &token,
                &mut logits,
                &mut stats,
                &n,
                &v,
                &c,
            ],
        )
    }?;
    normalize(on, stats.as_view(), inverse, map.outputs, normalizers)?;
    finish(
        on,
        normalizers.as_view(),
        inverse,
        targets,
        logits.as_view(),
        out,
    )
}

/// A kernel whose logits are a product: its name, its grid, and its operands as it takes them.
struct Product<'a> {
    kernel: &'static str,
    grid: Grid,
    plain: [View<'a, bf16>; 2],
    maps: Option<[TensorMap; 2]>,
}

impl<'a> Product<'a> {
    fn new(
        variant: Variant,
        on: &Stream,
        kernels: [&'static str; 2],
        rows: usize,
        Shape { outputs, inputs }: Shape,
        (hidden, weights): (View<'a, bf16>, View<'a, bf16>),
    ) -> Result<Product<'a>> {
        let hopper = variant == Variant::Hopper;
        let maps = if hopper {
            let hidden = TensorMap::new(hidden, rows, inputs, 128)?;
            Some([hidden, TensorMap::new(weights, outputs, inputs, 256)?])
        } else {
            None
        };
        Ok(Product {
            kernel: kernels[usize::from(hopper)],
            grid: if hopper {
                gemm::hopper_grid(on, rows, outputs)?
            } else {
                gemm::tile_grid(rows, outputs)
            },
            plain: [hidden, weights],
            maps,
        })
    }

    fn operands(&self) -> [&dyn Argument; 2] {
        match &self.maps {
            Some([hidden, weights]) => [hidden, weights],
            None => [&self.plain[0], &self.plain[1]],
        }
    }
}

/// The gradient of [`log_probs`] by the hidden states, overwritten: Σ_v dlogit_v · W_v with the logits made again, [`PART`] tokens
/// at a time; with G = Σ of a row's `upstream`, `dlogit_v = (Σ upstream of the targets v − G·p_v) / T`, rounded to bf16.
///
/// # Shapes
/// `normalizers`: (N) · `upstream`: one for each target, by rows · `dhidden`: (N, C).
///
/// # Errors
/// As [`log_probs`].
pub fn backward(
    on: &Stream,
    head: Head<'_>,
    targets: &Targets,
    normalizers: View<'_, Normalizer>,
    upstream: View<'_, f32>,
    work: &mut Work,
    dhidden: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let variant = Variant::backward(on);
    backward_by(
        variant,
        on,
        head,
        targets,
        normalizers,
        upstream,
        work,
        dhidden,
    )
}

/// [`backward`] by kernels of one's choice; all give the same bits. [`Variant::Few`] counts as [`Variant::Tiles`].
///
/// # Errors
/// As [`backward`]; [`crate::Error::Kernel`] for one that the GPU has not.
#[expect(clippy::too_many_arguments, reason = "those of the op, and the choice")]
pub fn backward_by(
    variant: Variant,
    on: &Stream,
    head: Head<'_>,
    targets: &Targets,
    normalizers: View<'_, Normalizer>,
    upstream: View<'_, f32>,
    work: &mut Work,
    dhidden: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let (rows, map) = door("output.backward", &head, targets)?;
    let width = map.inputs;
    check!("output.backward", normalizers: rows, upstream: targets.count, dhidden: rows * width);
    if rows == 0 {
        return Ok(());
    }
    let (first, token) = (targets.first.view(), targets.token.view());
    for from in (0..map.outputs).step_by(PART) {
        let part = PART.min(map.outputs - from);
        let weights = head.weights.part(from * width..(from + part) * width)?;
        let of_part = Shape {
            outputs: part,
            inputs: width,
        };
        let mut dlogits = work.dlogits.view_mut();
        let mut dlogits = dlogits.part(0..rows * part)?;
        let [n, p, c, v] = ints("output.backward", [rows, part, width, from])?;
        let kernels = ["output_gradient", "output_wgmma_gradient"];
        let product = Product::new(variant, on, kernels, rows, of_part, (head.hidden, weights))?;
        let [hidden, w] = product.operands();
        let arguments: [&dyn Argument; 12] = [
            hidden,
            w,
            &head.inverse_temperature,
            &normalizers,
            &first,
            &token,
            &upstream,
            &mut dlogits,
            &n,
            &p,
            &c,
            &v,
        ];
        // SAFETY: order and types are those of `output_gradient`; the door and the checks proved the operands, the part the
        // output; rows and columns past the end are guarded.
        unsafe { on.launch(product.kernel, product.grid, &arguments) }?;
        let to = if from == 0 {
            Output::F32(dhidden)
        } else {
            Output::Onto(dhidden)
        };
        let operands = (dlogits.as_view(), weights);
        gemm::backward_by(variant.in_tiles(), on, rows, of_part, operands, None, to)?;
    }
    Ok(())
}

/// Rows, and (V, C).
fn door(op: &'static str, head: &Head<'_>, targets: &Targets) -> Result<(usize, Shape)> {
    let (rows, vocabulary) = (head.inverse_temperature.len(), targets.vocabulary);
    let width = head.weights.len() / vocabulary.max(1);
    step(op, "vocabulary", vocabulary)?;
    step(op, "width", width)?;
    let Head {
        hidden, weights, ..
    } = head;
    check!("output", hidden: rows * width, weights: vocabulary * width);
    aligned(op, "hidden", hidden.address())?;
    aligned(op, "weights", weights.address())?;
    require!(
        "output",
        rows = rows as f64,
        rows == targets.rows,
        "every row has its list of targets"
    );
    Ok((
        rows,
        Shape {
            outputs: vocabulary,
            inputs: width,
        },
    ))
}

fn normalize(
    on: &Stream,
    stats: View<'_, Normalizer>,
    inverse_temperature: View<'_, f32>,
    vocabulary: usize,
    out: &mut ViewMut<'_, Normalizer>,
) -> Result<()> {
    let rows = inverse_temperature.len();
    check!("output.normalizers", out: rows);
    let [v] = ints("output.normalizers", [vocabulary])?;
    let grid = Grid::line(rows, 256);
    // SAFETY: order and types are those of `output_normalizer`; callers made one stat for each row and tile, the check one
    // output for each row.
    unsafe {
        on.launch(
            "output_normalizer",
            grid,
            &[&stats, &inverse_temperature, out, &v],
        )
    }
}

fn finish(
    on: &Stream,
    normalizers: View<'_, Normalizer>,
    inverse_temperature: View<'_, f32>,
    targets: &Targets,
    logits: View<'_, f32>,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    check!("output.log_probs", out: targets.count);
    let [n] = ints("output.log_probs", [targets.rows])?;
    let first = targets.first.view();
    let grid = Grid::line(targets.rows.div_ceil(256), 256);
    // SAFETY: order and types are those of `output_log_probs`; callers proved a normalizer for each row; `logits` and `out` have
    // one for each target.
    unsafe {
        on.launch(
            "output_log_probs",
            grid,
            &[&normalizers, &inverse_temperature, &first, &logits, out, &n],
        )
    }
}
