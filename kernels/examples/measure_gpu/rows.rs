//! The ops on rows: bound by memory, so each is held against copying.

use kernels::Result;
use kernels::adamw::AdamW;
use kernels::cuda::kv::{Layer, PageTable, Shape};
use kernels::cuda::loss::{FIGURES, Kind, Objective, Starts, Streams};
use kernels::cuda::output::{Work, log_probs_of_drawn, normalizers};
use kernels::cuda::rope::{Cache, Heads, Rotation};
use kernels::cuda::sample::Draw;
use kernels::cuda::{adamw as optimizer, embed as lookup, loss as policy, rmsnorm as norm};
use kernels::cuda::{rope as rotation, sample as sampler, swiglu as gated};
use kernels::rope::{Scaling, Table};

use crate::meter::{Meter, Row};

/// Rows of a training batch, and of a decode step; columns of a hidden state.
fn sizes(meter: &Meter) -> [(usize, usize); 2] {
    meter.size([(8192, 4096), (64, 4096)], [(5, 64), (2, 64)])
}

pub(crate) fn embed(meter: &Meter) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (n, c) in sizes(meter) {
        let vocab = meter.size(151_936, 500);
        let table = meter.narrow(1, vocab * c)?;
        let ids: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let ids = meter.on.upload(&ids)?;
        let mut out = meter.poisoned(n * c)?;
        let us = meter
            .time(|on| lookup::forward(on, table.view(), vocab, ids.view(), &mut out.view_mut()))?;
        rows.push(row("embed", format!("{n}×{c}"), us, 6.0 * (n * c) as f64));
    }
    Ok(rows)
}

pub(crate) fn rmsnorm(meter: &Meter) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (n, c) in sizes(meter) {
        let (mut x, weight, dout) = (
            meter.noise(1, n * c)?,
            meter.noise(2, c)?,
            meter.noise(3, n * c)?,
        );
        let mut out = meter.poisoned(n * c)?;
        let us = meter.time(|on| {
            let (mut x, mut out) = (x.view_mut(), out.view_mut());
            norm::forward(on, &mut x, None, weight.view(), 1e-5, &mut out)
        })?;
        let shape = format!("{n}×{c}");
        rows.push(row("rmsnorm", shape.clone(), us, 6.0 * (n * c) as f64));
        let us = meter.time(|on| {
            let (mut x, mut out) = (x.view_mut(), out.view_mut());
            norm::forward(on, &mut x, Some(dout.view()), weight.view(), 1e-5, &mut out)
        })?;
        rows.push(row(
            "residual + rmsnorm",
            shape.clone(),
            us,
            14.0 * (n * c) as f64,
        ));
        let mut dx = meter.noise(4, n * c)?;
        let us = meter.time(|on| {
            let dout = dout.view();
            norm::backward(on, x.view(), weight.view(), 1e-5, dout, &mut dx.view_mut())
        })?;
        rows.push(row("rmsnorm backward", shape, us, 16.0 * (n * c) as f64));
    }
    Ok(rows)
}

pub(crate) fn rope(meter: &Meter) -> Result<Vec<Row>> {
    let heads = meter.size(
        Heads {
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
        },
        Heads {
            heads: 2,
            kv_heads: 1,
            head_dim: 64,
        },
    );
    let (n, width, context) = (meter.size(8192, 5), heads.columns(), 4096);
    let table = Table::new(heads.head_dim, context, 1e6, Scaling::None)?;
    let table = meter.on.upload(table.values())?;
    let weight = meter.noise(1, heads.head_dim)?;
    let positions: Vec<i32> = (0..n as i32).map(|i| i % context as i32).collect();
    let sequences: Vec<i32> = (0..n).map(|i| (i / context) as i32).collect();
    let (positions, sequences) = (meter.on.upload(&positions)?, meter.on.upload(&sequences)?);
    let (per, pages) = (context / 64, n.div_ceil(64) + 64);
    let mut layer = Layer::new(
        meter.on.gpu(),
        Shape {
            pages,
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim,
        },
    )?;
    let mut entries = PageTable::new(&meter.on, n.div_ceil(context), per, pages)?;
    for at in 0..n.div_ceil(64) {
        entries.set(at / per, at % per, at)?;
    }
    entries.upload(&meter.on)?;
    let given = Rotation {
        heads,
        q_norm: Some(weight.view()),
        k_norm: Some(weight.view()),
        eps: 1e-6,
        table: table.view(),
        positions: positions.view(),
    };
    let qkv = meter.narrow(2, n * width)?;
    let mut q = meter.poisoned(n * heads.heads * heads.head_dim)?;
    let us = meter.time(|on| {
        let mut cache = Cache {
            layer: &mut layer,
            table: &entries,
            sequences: sequences.view(),
        };
        rotation::forward(on, &given, qkv.view(), &mut q.view_mut(), &mut cache)
    })?;
    let shape = format!(
        "{n}×({} + 2·{})×{}",
        heads.heads, heads.kv_heads, heads.head_dim
    );
    let elements = (n * width) as f64;
    let mut rows = vec![row("rope", shape.clone(), us, 4.0 * elements)];
    let dqkv = meter.noise(3, n * width)?;
    let mut out = meter.poisoned(n * width)?;
    let us = meter.time(|on| {
        let dqkv = dqkv.view();
        rotation::backward(on, &given, qkv.view(), dqkv, &mut out.view_mut())
    })?;
    rows.push(row("rope backward", shape, us, 8.0 * elements));
    Ok(rows)
}

pub(crate) fn swiglu(meter: &Meter) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (n, f) in meter.size([(8192, 12_288), (64, 12_288)], [(5, 64), (2, 64)]) {
        let (gate_up, dout) = (meter.narrow(1, n * 2 * f)?, meter.noise(2, n * f)?);
        let mut out = meter.poisoned(n * f)?;
        let us = meter.time(|on| gated::forward(on, f, gate_up.view(), &mut out.view_mut()))?;
        let (shape, elements) = (format!("{n}×2·{f}"), (n * f) as f64);
        rows.push(row("swiglu", shape.clone(), us, 6.0 * elements));
        let mut dx = meter.poisoned(n * 2 * f)?;
        let us = meter
            .time(|on| gated::backward(on, f, gate_up.view(), dout.view(), &mut dx.view_mut()))?;
        rows.push(row("swiglu backward", shape, us, 12.0 * elements));
    }
    Ok(rows)
}

pub(crate) fn adamw(meter: &Meter) -> Result<Vec<Row>> {
    let n = meter.size(66_060_288, 9000);
    let grads = meter.noise(1, n)?;
    let mut scratch = meter.poisoned(optimizer::norm_scratch(n))?;
    let (mut length, mut factor) = (meter.poisoned(1)?, meter.poisoned(1)?);
    let us = meter.time(|on| {
        let (mut length, mut factor) = (length.view_mut(), factor.view_mut());
        let mut scratch = scratch.view_mut();
        optimizer::norm(
            on,
            grads.view(),
            1.0,
            &mut scratch,
            &mut length,
            &mut factor,
        )
    })?;
    let mut rows = vec![row("adamw norm", n.to_string(), us, 4.0 * n as f64)];
    let settings = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
    };
    let mut params = meter.noise(2, n)?;
    let (mut first, mut second) = (meter.noise(3, n)?, meter.poisoned(n)?);
    meter.on.zero(&mut second.view_mut())?;
    let mut rounded = meter.poisoned(n)?;
    let us = meter.time(|on| {
        let mut state = optimizer::State {
            params: params.view_mut(),
            first: first.view_mut(),
            second: second.view_mut(),
            rounded: Some(rounded.view_mut()),
        };
        optimizer::step(on, &settings, 7, grads.view(), factor.view(), &mut state)
    })?;
    rows.push(row("adamw", n.to_string(), us, 30.0 * n as f64));
    Ok(rows)
}

pub(crate) fn loss(meter: &Meter) -> Result<Vec<Row>> {
    let (samples, tokens) = meter.size((64, 1024), (2, 40));
    let n = samples * tokens;
    let streams: Vec<_> = (1..7).map(|s| meter.noise(s, n)).collect::<Result<_>>()?;
    let given = Streams {
        logprobs: streams[0].view(),
        old: streams[1].view(),
        reference: Some(streams[2].view()),
        behaviour: streams[3].view(),
        advantage: streams[4].view(),
        weight: streams[5].view(),
    };
    let objective = Objective {
        clip_low: 0.2,
        clip_high: 0.28,
        tis_cap: 2.0,
        kl_beta: 0.01,
        share: 1.0 / samples as f64,
        kind: Kind::Ppo,
        reserved: 0,
    };
    let starts = Starts::new(&meter.on, &vec![tokens; samples])?;
    let mut slopes = meter.poisoned(n)?;
    let mut figures = meter.poisoned(samples * FIGURES)?;
    let us = meter.time(|on| {
        let (mut to, mut sums) = (slopes.view_mut(), figures.view_mut());
        policy::samples(on, &objective, &given, &starts, &mut to, &mut sums)
    })?;
    Ok(vec![row(
        "loss",
        format!("{samples}×{tokens}"),
        us,
        28.0 * n as f64,
    )])
}

pub(crate) fn sample(meter: &Meter) -> Result<Vec<Row>> {
    let vocab = meter.size(151_936, 500);
    let mut rows = Vec::new();
    for n in meter.size([1, 64], [1, 2]) {
        rows.extend(sample_rows(meter, n, vocab)?);
    }
    Ok(rows)
}

fn sample_rows(meter: &Meter, n: usize, vocab: usize) -> Result<Vec<Row>> {
    let logits = meter.noise(1, n * vocab)?;
    let mut work = sampler::Work::new(&meter.on, n, vocab)?;
    let mut rows = Vec::new();
    for (what, top_k, top_p) in [
        ("sample", 0, 1.0),
        ("sample top-k 50", 50, 1.0),
        ("sample top-p 0.9", 0, 0.9),
    ] {
        let draws: Vec<Draw> = (0..n as u64)
            .map(|request| Draw {
                seed: 1,
                request,
                position: 9,
                temperature: 1.0,
                top_p,
                min_p: 0.0,
                top_k,
            })
            .collect();
        let draws = meter.on.upload(&draws)?;
        let mut tokens = meter.poisoned(n)?;
        let us = meter.time(|on| {
            let (draws, to) = (draws.view(), &mut tokens.view_mut());
            sampler::draw(on, logits.view(), draws, &mut work, to)
        })?;
        rows.push(row(
            what,
            format!("{n}×{vocab}"),
            us,
            4.0 * (n * vocab) as f64,
        ));
    }
    Ok(rows)
}

/// What a decode step records: normalizers from stored logits, and the log-prob of the token that was drawn.
pub(crate) fn recorded(meter: &Meter) -> Result<Vec<Row>> {
    let vocab = meter.size(151_936, 512);
    let mut rows = Vec::new();
    for n in meter.size([1, 64], [1, 2]) {
        let logits = meter.noise(1, n * vocab)?;
        let inverse = meter.on.upload(&vec![1.0f32; n])?;
        let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let tokens = meter.on.upload(&tokens)?;
        let mut work = Work::new(meter.on.gpu(), n, vocab, n)?;
        let (mut found, mut log_probs) = (meter.poisoned(n)?, meter.poisoned(n)?);
        let us = meter.time(|on| {
            let (logits, inverse, to) = (logits.view(), inverse.view(), &mut found.view_mut());
            normalizers(on, logits, vocab, inverse, &mut work, to)
        })?;
        let (shape, bytes) = (format!("{n}×{vocab}"), 4.0 * (n * vocab) as f64);
        rows.push(row("normalizers", shape.clone(), us, bytes));
        let us = meter.time(|on| {
            let (logits, inverse, to) = (logits.view(), inverse.view(), &mut log_probs.view_mut());
            let (found, tokens) = (found.view(), tokens.view());
            log_probs_of_drawn(on, logits, vocab, found, inverse, tokens, to)
        })?;
        rows.push(row("log-probs of drawn", shape, us, 20.0 * n as f64));
    }
    Ok(rows)
}

fn row(op: &'static str, shape: String, us: f64, bytes: f64) -> Row {
    Row {
        op,
        shape,
        us,
        bytes,
        operations: 0.0,
    }
}
