//! `kernels::cuda::rope`.
#![expect(clippy::unwrap_used, reason = "tests")]

use half::bf16;
use kernels::cuda::kv::{Layer, PAGE, PageTable, Shape};
use kernels::cuda::rope::{Cache, Heads, Rotation, backward, forward};
use kernels::cuda::{Buffer, Stream};
use kernels::rope::{Scaling, Table};
use kernels::{Error, reference};

use crate::common::{close, dot, slope, vector, wide};
use crate::setup::{BF16, narrow, poisoned, rounded, stream, widened};

const EPS: f32 = 1e-5;
const CONTEXT: usize = 200;

/// The sizes, whether heads are normed, and rows of (sequence, position).
struct Case {
    heads: Heads,
    normed: bool,
    rows: Vec<(i32, i32)>,
}

/// Two sequences in turn, from positions before and behind a page's edge.
fn case(heads: usize, kv_heads: usize, head_dim: usize, normed: bool, rows: usize) -> Case {
    let place = |n: usize| (n as i32 % 2, 57 + n as i32 / 2);
    Case {
        heads: Heads {
            heads,
            kv_heads,
            head_dim,
        },
        normed,
        rows: (0..rows).map(place).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(1, 1, 64, false, 1),
        case(4, 2, 64, true, 17),
        case(9, 3, 64, false, 33),
        case(4, 1, 128, true, 65),
        case(2, 2, 128, false, 3),
    ]
}

struct Inputs {
    norms: [Buffer<f32>; 2],
    table: Buffer<f32>,
    positions: Buffer<i32>,
    sequences: Buffer<i32>,
    qkv: Buffer<bf16>,
    host: Vec<f32>,
}

/// Weights of the norms, of queries and keys.
fn weights(head_dim: usize) -> [Vec<f32>; 2] {
    [21, 22].map(|seed| vector(seed, head_dim).iter().map(|v| v + 1.5).collect())
}

impl Case {
    fn inputs(&self, on: &Stream) -> Inputs {
        let d = self.heads.head_dim;
        let table = Table::new(d, CONTEXT, 10_000.0, Scaling::None).unwrap();
        let host = rounded(&vector(3, self.rows.len() * self.heads.columns()));
        let split: (Vec<i32>, Vec<i32>) = self.rows.iter().copied().unzip();
        Inputs {
            norms: weights(d).map(|w| on.upload(&w).unwrap()),
            table: on.upload(table.values()).unwrap(),
            positions: on.upload(&split.1).unwrap(),
            sequences: on.upload(&split.0).unwrap(),
            qkv: on.upload(&narrow(&host)).unwrap(),
            host,
        }
    }

    fn rotation<'a>(&self, inputs: &'a Inputs) -> Rotation<'a> {
        let [q, k] = [0, 1].map(|i: usize| self.normed.then(|| inputs.norms[i].view()));
        Rotation {
            heads: self.heads,
            q_norm: q,
            k_norm: k,
            eps: EPS,
            table: inputs.table.view(),
            positions: inputs.positions.view(),
        }
    }

    /// What becomes of one row of queries, keys and values.
    fn expected(&self, position: i32, row: &[f64]) -> Vec<f64> {
        let Heads {
            heads,
            kv_heads,
            head_dim: d,
        } = self.heads;
        let weights = weights(d).map(|w| wide(&w));
        let heads = row.chunks(d).enumerate().flat_map(|(head, x)| {
            if head >= heads + kv_heads {
                return x.to_vec();
            }
            let weight = &weights[usize::from(head >= heads)];
            let x = if self.normed {
                reference::rmsnorm(x, weight, f64::from(EPS))
            } else {
                x.to_vec()
            };
            reference::rope(&x, position as usize, 10_000.0)
        });
        heads.collect()
    }
}

/// Pages 5, 1, 4 and 0, 3, 2, so that none is where its number says.
const PAGES: [usize; 6] = [5, 1, 4, 0, 3, 2];

fn run(on: &Stream, case: &Case, inputs: &Inputs) -> [Vec<f32>; 3] {
    let Heads {
        heads,
        kv_heads,
        head_dim: d,
    } = case.heads;
    let mut q = poisoned(on, case.rows.len() * heads * d);
    let shape = Shape {
        pages: PAGES.len(),
        kv_heads,
        head_dim: d,
    };
    let mut layer = Layer::new(on.gpu(), shape).unwrap();
    on.fill(&mut layer.keys.view_mut(), 0xff).unwrap();
    on.fill(&mut layer.values.view_mut(), 0xff).unwrap();
    let mut table = PageTable::new(on, 2, 3, PAGES.len()).unwrap();
    for (at, page) in PAGES.iter().enumerate() {
        table.set(at / 3, at % 3, *page).unwrap();
    }
    table.upload(on).unwrap();
    let mut cache = Cache {
        layer: &mut layer,
        table: &table,
        sequences: inputs.sequences.view(),
    };
    let rotation = case.rotation(inputs);
    forward(
        on,
        &rotation,
        inputs.qkv.view(),
        &mut q.view_mut(),
        &mut cache,
    )
    .unwrap();
    [&q, &layer.keys, &layer.values].map(|b| widened(&on.download(b.view()).unwrap()))
}

#[test]
fn queries_keys_and_values_go_where_attention_reads_them() {
    let Some(on) = stream() else { return };
    for case in cases() {
        let inputs = case.inputs(&on);
        let Heads {
            heads,
            kv_heads,
            head_dim: d,
        } = case.heads;
        let [q, keys, values] = run(&on, &case, &inputs);
        let mut written = 0;
        let rows = inputs.host.chunks(case.heads.columns());
        for (n, (row, &(sequence, position))) in rows.zip(&case.rows).enumerate() {
            let expected = case.expected(position, &wide(row));
            let found = &q[n * heads * d..(n + 1) * heads * d];
            close("queries", found, &expected[..heads * d], BF16);
            let page = PAGES[sequence as usize * 3 + position as usize / PAGE];
            for head in 0..kv_heads {
                let at = ((page * kv_heads + head) * PAGE + position as usize % PAGE) * d;
                let key = &expected[(heads + head) * d..][..d];
                close("keys", &keys[at..at + d], key, BF16);
                let value = &expected[(heads + kv_heads + head) * d..][..d];
                close("values", &values[at..at + d], value, 0.0);
                written += d;
            }
        }
        for pool in [&keys, &values] {
            let others = pool.iter().filter(|v| v.is_nan()).count();
            assert_eq!(others, pool.len() - written, "nothing else was written");
        }
    }
}

#[test]
fn a_row_without_a_place_writes_nothing_and_one_beyond_the_table_shows() {
    let Some(on) = stream() else { return };
    let mut case = case(2, 1, 64, true, 3);
    case.rows = vec![(-1, 3), (0, CONTEXT as i32), (7, 3), (0, -1)];
    let inputs = case.inputs(&on);
    let [q, keys, values] = run(&on, &case, &inputs);
    let nan = |row: usize| q[row * 128..(row + 1) * 128].iter().all(|v| v.is_nan());
    assert_eq!([0, 1, 2, 3].map(nan), [false, true, false, true]);
    assert!(keys.iter().chain(&values).all(|v| v.is_nan()));
}

#[test]
fn the_gradient_is_the_slope() {
    let Some(on) = stream() else { return };
    for case in cases().into_iter().take(4) {
        let inputs = case.inputs(&on);
        let width = case.heads.columns();
        let rows = case.rows.len().min(5);
        let d = vector(9, case.rows.len() * width);
        let dqkv = on.upload(&d).unwrap();
        let mut out = poisoned(&on, d.len());
        let rotation = case.rotation(&inputs);
        let qkv = inputs.qkv.view();
        backward(&on, &rotation, qkv, dqkv.view(), &mut out.view_mut()).unwrap();
        let found = widened(&on.download(out.view()).unwrap());
        assert!(found.iter().all(|v| !v.is_nan()));
        for (n, &(_, position)) in case.rows.iter().enumerate().take(rows) {
            let part = n * width..(n + 1) * width;
            let loss = |x: &[f64]| dot(&case.expected(position, x), &d[part.clone()]);
            let expected = slope(&wide(&inputs.host[part.clone()]), loss);
            close("gradient", &found[part.clone()], &expected, BF16);
        }
    }
}

#[test]
fn heads_of_another_size_and_short_streams_are_refused() {
    let Some(on) = stream() else { return };
    let case = case(2, 1, 64, false, 3);
    let inputs = case.inputs(&on);
    let mut out = poisoned(&on, 3 * 4 * 64);
    let dqkv = on.upload(&vector(1, 3 * 4 * 64)).unwrap();
    let mut rotation = case.rotation(&inputs);
    rotation.heads.head_dim = 32;
    let qkv = inputs.qkv.view();
    let refused = backward(&on, &rotation, qkv, dqkv.view(), &mut out.view_mut());
    assert!(matches!(refused, Err(Error::Argument { .. })));
    let mut rotation = case.rotation(&inputs);
    rotation.positions = rotation.positions.part(0..2).unwrap();
    let refused = backward(&on, &rotation, qkv, dqkv.view(), &mut out.view_mut());
    assert!(matches!(
        refused,
        Err(Error::Shape {
            what: "positions",
            ..
        })
    ));
}
