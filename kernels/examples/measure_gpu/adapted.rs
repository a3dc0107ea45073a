//! Products with adapters, the adapters' own, and the gradient of the output.

use std::sync::Arc;

use half::bf16;
use kernels::Result;
use kernels::cuda::adapters::{Adapters, Packed, Part, Segment, Segments, Shape, Table};
use kernels::cuda::gemm::{Beside, Output, forward};
use kernels::cuda::lora::{Columns, down, gradient_a, gradient_work};
use kernels::cuda::output::{Head, Targets, Work, backward, log_probs};
use kernels::cuda::{Buffer, Stream, View};

use crate::meter::{Meter, Row};

/// A decode step, another adapter in every row; the adapters' inner results are part of it.
pub(crate) fn decode(meter: &Meter) -> Result<Vec<Row>> {
    let map = map(meter);
    let Shape { outputs, inputs } = map;
    let w = meter.narrow(3, outputs * inputs)?;
    let mut rows = Vec::new();
    for n in [1, 8, 64] {
        let x = meter.narrow(1, n * inputs)?;
        let mut y = meter.poisoned::<bf16>(n * outputs)?;
        let side = Side::new(meter, map, n)?;
        let mut u = meter.poisoned(n * side.adapters().inner())?;
        let us = meter.time(|on| {
            let adapters = side.adapters();
            down(on, n, map, x.view(), &adapters, &mut u.view_mut())?;
            let inner = u.view();
            let beside = Some(Beside { adapters, inner });
            let operands = (x.view(), w.view());
            forward(
                on,
                n,
                map,
                operands,
                beside,
                Output::Bf16(&mut y.view_mut()),
            )
        })?;
        let shape = format!("{n}×{inputs} → {outputs}, {n} adapters");
        let own = n * RANK * (inputs + outputs);
        rows.push(row("gemm, adapted", shape, us, n, map, own));
    }
    Ok(rows)
}

pub(crate) fn lora(meter: &Meter) -> Result<Vec<Row>> {
    let (n, map) = (meter.size(8192, 40), map(meter));
    let x = meter.narrow(1, n * map.inputs)?;
    let mut side = Side::new(meter, map, 1)?;
    side.segments = Segments::new(&meter.on, 1, n)?;
    let whole = Segment {
        first: 0,
        count: n,
        slot: 0,
    };
    side.segments.set(&meter.on, &[whole], 1)?;
    let mut u = meter.poisoned(n * RANK)?;
    let us = meter.time(|on| {
        let adapters = side.adapters();
        down(on, n, map, x.view(), &adapters, &mut u.view_mut())
    })?;
    let shape = format!("{n}×{}, rank {RANK}", map.inputs);
    let inner = Shape {
        outputs: RANK,
        inputs: map.inputs,
    };
    let mut rows = vec![row("lora", shape.clone(), us, n, inner, 0)];
    let mut da = meter.noise(6, RANK * map.inputs)?;
    let mut work = meter.poisoned(gradient_work(n, map.inputs, RANK))?;
    let us = meter.time(|on| {
        let (wide, narrow) = (all(&x, map.inputs), all(&u, RANK));
        let work = &mut work.view_mut();
        gradient_a(on, 0..n, &wide, &narrow, work, &mut da.view_mut())
    })?;
    rows.push(row("lora gradient", shape, us, n, inner, 0));
    Ok(rows)
}

pub(crate) fn output(meter: &Meter) -> Result<Vec<Row>> {
    let (n, vocabulary, c) = meter.size((4096, 151_936, 2560), (5, 512, 64));
    let (hidden, weights) = (meter.narrow(1, n * c)?, meter.narrow(2, vocabulary * c)?);
    let ones = meter.on.upload(&vec![1.0f32; n])?;
    let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 % vocabulary) as u32).collect();
    let targets = Targets::upload(&meter.on, vocabulary, tokens.chunks(1))?;
    let mut work = Work::new(meter.on.gpu(), n, vocabulary, n)?;
    let (mut norms, mut found) = (meter.poisoned(n)?, meter.poisoned(n)?);
    let mut dhidden = meter.poisoned(n * c)?;
    let head = Head {
        hidden: hidden.view(),
        weights: weights.view(),
        inverse_temperature: ones.view(),
    };
    let (mut n_, mut found) = (norms.view_mut(), found.view_mut());
    log_probs(&meter.on, head, &targets, &mut work, &mut n_, &mut found)?;
    let us = meter.time(|on| {
        let (norms, up, mut to) = (norms.view(), ones.view(), dhidden.view_mut());
        backward(on, head, &targets, norms, up, &mut work, &mut to)
    })?;
    let map = Shape {
        outputs: vocabulary,
        inputs: c,
    };
    let shape = format!("{n}×{c} → {vocabulary}");
    let mut row = row("output backward", shape, us, n, map, 0);
    // The logits are made again.
    row.operations *= 2.0;
    Ok(vec![row])
}

const RANK: usize = 16;

/// Gate and up of Qwen3-4B.
fn map(meter: &Meter) -> Shape {
    let (outputs, inputs) = meter.size((19_456, 2560), (128, 64));
    Shape { outputs, inputs }
}

/// An adapter for each row.
pub(crate) struct Side {
    table: Table,
    segments: Segments,
    parts: [Part; 1],
}

impl Side {
    pub(crate) fn new(meter: &Meter, map: Shape, rows: usize) -> Result<Side> {
        let on = &meter.on;
        let table = Table::new(on, rows, &[map], RANK)?;
        for slot in 0..rows {
            let seed = 4 + 2 * slot as u64;
            let a = meter.noise(seed, RANK * map.inputs)?;
            let b = meter.noise(seed + 1, map.outputs * RANK)?;
            let mut packed = Packed::new(on.gpu(), &[map], RANK, 2.0)?;
            packed.pack(on, 0, &[[a.view(), b.view()]])?;
            table.publish(on, slot, 0, Some(Arc::new(packed)))?;
        }
        let segments = segments(on, rows)?;
        let part = Part {
            projection: 0,
            outputs: 0..map.outputs,
        };
        Ok(Side {
            table,
            segments,
            parts: [part],
        })
    }

    /// For calls of so many rows from here on, no more than there are adapters.
    pub(crate) fn own(&mut self, meter: &Meter, rows: usize) -> Result<()> {
        self.segments = segments(&meter.on, rows)?;
        Ok(())
    }

    /// Their inner result.
    pub(crate) fn inner(
        &self,
        meter: &Meter,
        rows: usize,
        map: Shape,
        x: View<'_, bf16>,
    ) -> Result<Buffer<bf16>> {
        let mut u = meter.poisoned(rows * self.adapters().inner())?;
        down(&meter.on, rows, map, x, &self.adapters(), &mut u.view_mut())?;
        Ok(u)
    }

    pub(crate) fn adapters(&self) -> Adapters<'_> {
        Adapters {
            table: &self.table,
            segments: &self.segments,
            parts: &self.parts,
        }
    }
}

/// An adapter for each row.
fn segments(on: &Stream, rows: usize) -> Result<Segments> {
    let own = |first| Segment {
        first,
        count: 1,
        slot: first,
    };
    let mut segments = Segments::new(on, rows, rows)?;
    segments.set(on, &(0..rows).map(own).collect::<Vec<_>>(), rows)?;
    Ok(segments)
}

fn all(of: &Buffer<bf16>, columns: usize) -> Columns<'_> {
    Columns {
        of: of.view(),
        ld: columns,
        which: 0..columns,
    }
}

/// A product of `n` rows, and `more` elements beside it.
fn row(op: &'static str, shape: String, us: f64, n: usize, map: Shape, more: usize) -> Row {
    let Shape { outputs, inputs } = map;
    Row {
        op,
        shape,
        us,
        bytes: 2.0 * (outputs * inputs + n * (outputs + inputs) + more) as f64,
        operations: 2.0 * (n * outputs) as f64 * inputs as f64,
    }
}
