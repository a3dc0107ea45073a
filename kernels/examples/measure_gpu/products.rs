//! The products: bound by memory for few rows, by the tensor cores for many. And whether every variant has the same bits
//! at real sizes.

use kernels::Result;
use kernels::cuda::adapters::Shape;
use kernels::cuda::gemm::{Beside, Output, Variant, backward, forward, forward_by};
use kernels::cuda::output::{Head, Targets, Work, log_probs};

use crate::adapted::Side;
use crate::meter::{Meter, Row};

/// The maps of a layer of Qwen3-4B: the fused queries, keys and values; gate and up; down.
const LAYER: [Shape; 3] = [
    Shape {
        outputs: 6144,
        inputs: 2560,
    },
    Shape {
        outputs: 19_456,
        inputs: 2560,
    },
    Shape {
        outputs: 2560,
        inputs: 9728,
    },
];

const SMALL: Shape = Shape {
    outputs: 64,
    inputs: 96,
};

pub(crate) fn gemm(meter: &Meter) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for map in meter.size(LAYER.to_vec(), vec![SMALL]) {
        let Shape { outputs, inputs } = map;
        let w = meter.narrow(1, outputs * inputs)?;
        for n in meter.size(vec![1, 8, 64, 512, 8192], vec![1, 33]) {
            let x = meter.narrow(2, n * inputs)?;
            let mut y = meter.poisoned(n * outputs)?;
            let us = meter.time(|on| {
                let operands = (x.view(), w.view());
                forward(on, n, map, operands, None, Output::Bf16(&mut y.view_mut()))
            })?;
            let bytes = 2.0 * (outputs * inputs + n * (inputs + outputs)) as f64;
            rows.push(row("gemm", (n, map), us, bytes));
        }
        let n = meter.size(8192, 17);
        let dy = meter.narrow(3, n * outputs)?;
        let mut dx = meter.poisoned(n * inputs)?;
        let us = meter.time(|on| {
            let operands = (dy.view(), w.view());
            backward(on, n, map, operands, None, Output::F32(&mut dx.view_mut()))
        })?;
        let bytes = (2 * (outputs * inputs + n * outputs) + 4 * n * inputs) as f64;
        rows.push(row("gemm backward", (n, map), us, bytes));
    }
    Ok(rows)
}

pub(crate) fn output(meter: &Meter) -> Result<Vec<Row>> {
    let (n, vocab, c) = meter.size((4096, 151_936, 2560), (5, 512, 64));
    let (hidden, weights) = (meter.narrow(1, n * c)?, meter.narrow(2, vocab * c)?);
    let inverse_temperature = meter.on.upload(&vec![1.0f32; n])?;
    let ids: Vec<Vec<u32>> = (0..n).map(|i| vec![(i * 7919 % vocab) as u32]).collect();
    let targets = Targets::upload(&meter.on, vocab, ids.iter().map(Vec::as_slice))?;
    let mut work = Work::new(meter.on.gpu(), n, vocab, targets.count())?;
    let mut normalizers = meter.poisoned(n)?;
    let mut found = meter.poisoned(n)?;
    let head = Head {
        hidden: hidden.view(),
        weights: weights.view(),
        inverse_temperature: inverse_temperature.view(),
    };
    let us = meter.time(|on| {
        let (mut normalizers, mut found) = (normalizers.view_mut(), found.view_mut());
        log_probs(on, head, &targets, &mut work, &mut normalizers, &mut found)
    })?;
    let map = Shape {
        outputs: vocab,
        inputs: c,
    };
    let bytes = 2.0 * (vocab * c + n * c) as f64;
    Ok(vec![row("output log-probs", (n, map), us, bytes)])
}

/// Compares every variant's rows with those of the largest call in tiles: up to 4,096 rows of one map, up to 128 of those that decoding
/// multiplies with, the vocabulary, too, and with an adapter for each row. How many elements differ.
pub(crate) fn agreement(meter: &Meter) -> Result<usize> {
    let many = vec![1, 2, 7, 8, 16, 33, 64, 65, 127, 128, 129, 512, 1000, 4096];
    let map = |outputs, inputs| Shape { outputs, inputs };
    let counts = meter.size(many, vec![1, 17, 65]);
    let mut differ = agree(meter, meter.size(map(2048, 2560), SMALL), &counts, false)?;
    let few: Vec<usize> = counts
        .into_iter()
        .filter(|n| *n <= Variant::HOPPER_FEW_ROWS)
        .collect();
    for map in meter.size(LAYER.to_vec(), vec![SMALL]) {
        differ += agree(meter, map, &few, false)?;
        differ += agree(meter, map, &few, true)?;
    }
    Ok(differ + agree(meter, meter.size(map(151_936, 2560), SMALL), &few, false)?)
}

/// Every variant of one map, for these numbers of rows, ascending.
fn agree(meter: &Meter, map: Shape, counts: &[usize], adapted: bool) -> Result<usize> {
    let most = counts.last().copied().unwrap_or(1);
    let (x, w) = (
        meter.narrow(1, most * map.inputs)?,
        meter.narrow(2, map.outputs * map.inputs)?,
    );
    let mut side = match adapted {
        true => Some(Side::new(meter, map, most)?),
        false => None,
    };
    let mut run = |variant, n: usize| {
        let mut y = meter.poisoned(n * map.outputs)?;
        let x = x.view().part(0..n * map.inputs)?;
        let inner;
        let beside = match &mut side {
            None => None,
            Some(side) => {
                side.own(meter, n)?;
                inner = side.inner(meter, n, map, x)?;
                Some(Beside {
                    adapters: side.adapters(),
                    inner: inner.view(),
                })
            }
        };
        let to = Output::F32(&mut y.view_mut());
        forward_by(variant, &meter.on, n, map, (x, w.view()), beside, to)?;
        meter.on.download(y.view())
    };
    let whole = run(Variant::Tiles, most)?;
    let mut all = 0;
    for variant in [
        Variant::Tiles,
        Variant::Few,
        Variant::Hopper,
        Variant::HopperFew,
    ] {
        let (hopper, rows) = match variant {
            Variant::Tiles => (false, usize::MAX),
            Variant::Few => (false, Variant::FEW_ROWS),
            Variant::Hopper => (true, usize::MAX),
            Variant::HopperFew => (true, Variant::HOPPER_FEW_ROWS),
        };
        if hopper && !meter.on.gpu().is_hopper() {
            continue;
        }
        let (mut compared, mut differ) = (0, 0);
        for &n in counts.iter().filter(|n| **n <= rows) {
            let found = run(variant, n)?;
            compared += found.len();
            let pairs = found.iter().zip(&whole);
            differ += pairs.filter(|(f, w)| f.to_bits() != w.to_bits()).count();
        }
        let Shape { outputs, inputs } = map;
        let with = if adapted { " with adapters" } else { "" };
        println!(
            "products {inputs} → {outputs}{with} by {variant:?}: {compared} compared, {differ} differ from tiles of {most} rows"
        );
        all += differ;
    }
    Ok(all)
}

fn row(op: &'static str, (n, map): (usize, Shape), us: f64, bytes: f64) -> Row {
    let Shape { outputs, inputs } = map;
    Row {
        op,
        shape: format!("{n}×{inputs} → {outputs}"),
        us,
        bytes,
        operations: 2.0 * (n * outputs) as f64 * inputs as f64,
    }
}
