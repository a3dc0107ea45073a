//! Attention: prompts and training by the tensor cores, decode steps by memory.

use kernels::Result;
use kernels::cuda::attention::{Heads, Plan, Queries, Room, Rows, forward};
use kernels::cuda::kv::{Layer, PAGE, PageTable, Shape};
use kernels::cuda::{attention_backward as gradients, decode_attention as decode};

use crate::meter::{Meter, Row};

/// Sequences in a layer's cache, each with its own pages.
struct Cached {
    layer: Layer,
    table: PageTable,
}

fn heads(meter: &Meter) -> Heads {
    let (heads, kv_heads, head_dim) = meter.size((32, 8, 128), (2, 1, 64));
    Heads {
        heads,
        kv_heads,
        head_dim,
    }
}

fn cached(meter: &Meter, heads: Heads, sequences: usize, keys: usize) -> Result<Cached> {
    let each = keys.div_ceil(PAGE);
    let shape = Shape {
        pages: sequences * each,
        kv_heads: heads.kv_heads,
        head_dim: heads.head_dim,
    };
    let mut layer = Layer::new(meter.on.gpu(), shape)?;
    let filling = meter.narrow(5, shape.elements())?;
    meter.on.copy(filling.view(), &mut layer.keys.view_mut())?;
    meter
        .on
        .copy(filling.view(), &mut layer.values.view_mut())?;
    let mut table = PageTable::new(&meter.on, sequences, each, shape.pages)?;
    for page in 0..shape.pages {
        table.set(page / each, page % each, page)?;
    }
    table.upload(&meter.on)?;
    Ok(Cached { layer, table })
}

pub(crate) fn prompts(meter: &Meter) -> Result<Vec<Row>> {
    let heads = heads(meter);
    let (sequences, length) = meter.size((4, 2048), (2, 40));
    let n = sequences * length;
    let cache = cached(meter, heads, sequences, length)?;
    let room = Room { rows: n, sequences };
    let mut plan = Plan::new(meter.on.gpu(), heads, room)?;
    let parts: Vec<Rows> = (0..sequences)
        .map(|sequence| Rows {
            first: sequence * length,
            count: length,
            start: 0,
            sequence,
        })
        .collect();
    plan.lay(&meter.on, &parts)?;
    let width = heads.heads * heads.head_dim;
    let q = meter.narrow(1, n * width)?;
    let queries = Queries {
        data: q.view(),
        ld: width,
    };
    let (mut out, mut lse) = (meter.poisoned(n * width)?, meter.poisoned(n * heads.heads)?);
    let at = (&cache.layer, &cache.table);
    let us = meter.time(|on| {
        let (mut out, mut lse) = (out.view_mut(), lse.view_mut());
        forward(on, &plan, at, queries, &mut out, Some(&mut lse))
    })?;
    let shape = format!(
        "{sequences}×{length}, {}/{} heads of {}",
        heads.heads, heads.kv_heads, heads.head_dim
    );
    // Two products over half of the square.
    let operations =
        2.0 * (sequences * heads.heads * heads.head_dim) as f64 * (length * length) as f64;
    let read = (n * width + 2 * n * heads.kv_heads * heads.head_dim) as f64;
    let mut rows = vec![Row {
        op: "attention",
        shape: shape.clone(),
        us,
        bytes: 2.0 * (read + (n * width) as f64),
        operations,
    }];
    let dout = meter.noise(2, n * width)?;
    let mut work = gradients::Work::new(meter.on.gpu(), &plan, n)?;
    let mut dqkv = meter.poisoned(n * heads.columns())?;
    let saved = gradients::Saved {
        q: queries,
        out: out.view(),
        lse: lse.view(),
    };
    let mut keys = gradients::Keys::new(meter.on.gpu())?;
    keys.lay(&meter.on, &plan)?;
    let mut before = meter.poisoned(0)?;
    let us = meter.time(|on| {
        let to = (&mut dqkv.view_mut(), &mut before.view_mut());
        let dout = dout.view();
        gradients::backward(on, (&plan, &keys), at, &saved, dout, &mut work, to)
    })?;
    rows.push(Row {
        op: "attention backward",
        shape,
        us,
        bytes: 2.0 * read + 6.0 * (n * width) as f64 + 4.0 * (n * heads.columns()) as f64,
        // As others count it: five products, where the forward pass has two.
        operations: 2.5 * operations,
    });
    Ok(rows)
}

pub(crate) fn steps(meter: &Meter) -> Result<Vec<Row>> {
    let heads = heads(meter);
    let width = heads.heads * heads.head_dim;
    let mut rows = Vec::new();
    let sizes = vec![(1, 1024), (1, 4096), (8, 1024), (64, 1024), (256, 1024)];
    for (sequences, keys) in meter.size(sizes, vec![(2, 70)]) {
        let cache = cached(meter, heads, sequences, keys)?;
        let q = meter.narrow(1, sequences * width)?;
        let positions = meter.on.upload(&vec![keys as i32 - 1; sequences])?;
        let mut work = decode::Work::new(&meter.on, heads, sequences, keys)?;
        let mut out = meter.poisoned(sequences * width)?;
        let us = meter.time(|on| {
            let queries = Queries {
                data: q.view(),
                ld: width,
            };
            let at = (&cache.layer, &cache.table);
            let mut out = out.view_mut();
            decode::forward(
                on,
                at,
                queries,
                (positions.view(), keys),
                &mut work,
                &mut out,
            )
        })?;
        rows.push(Row {
            op: "decode attention",
            shape: format!("{sequences} of {keys} keys"),
            us,
            bytes: 4.0 * (sequences * (keys * heads.kv_heads * heads.head_dim + width)) as f64,
            operations: 0.0,
        });
    }
    Ok(rows)
}
