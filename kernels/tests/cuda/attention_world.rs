//! Sequences in a paged cache, and attention of them in plain f64, for the tests of the attention ops.
#![expect(clippy::unwrap_used, reason = "tests")]

use half::bf16;
use kernels::cuda::attention::{Heads, Plan, Queries, Room, Rows, Variant};
use kernels::cuda::decode_attention::Parts;
use kernels::cuda::kv::{Layer, PAGE, PageTable, Shape};
use kernels::cuda::{Buffer, Stream, attention, decode_attention};

use crate::common::vector;
use crate::setup::{narrow, poisoned, widened};

/// Query heads, key heads, elements of a head; rows of each sequence.
pub(crate) type Case = (usize, usize, usize, &'static [usize]);

/// Ragged sizes, several ratios of heads, and more than one split.
pub(crate) const CASES: [Case; 7] = [
    (3, 1, 64, &[1, 17, 65, 130]),
    (4, 4, 64, &[63, 64, 33]),
    (4, 2, 128, &[3, 100]),
    (9, 3, 64, &[70, 5]),
    (16, 1, 64, &[40, 9]),
    (2, 1, 64, &[1100, 513]),
    (2, 1, 128, &[530]),
];

/// Whole sequences whose keys and values are in a cache, the pages of all in reverse order and interleaved. Whatever was not
/// written is NaN.
pub(crate) struct World {
    pub(crate) on: Stream,
    pub(crate) heads: Heads,
    /// (first row, rows).
    pub(crate) sequences: Vec<(usize, usize)>,
    /// All rows.
    pub(crate) rows: usize,
    /// (N, (H + 2K)·D): values that bf16 can hold.
    pub(crate) qkv: Vec<f32>,
    pub(crate) device: Buffer<bf16>,
    pub(crate) layer: Layer,
    pub(crate) table: PageTable,
}

/// Elements of a fused row.
pub(crate) fn width(heads: Heads) -> usize {
    (heads.heads + 2 * heads.kv_heads) * heads.head_dim
}

impl World {
    pub(crate) fn new(on: Stream, case: Case, seed: u64) -> World {
        let (heads, kv_heads, head_dim, lengths) = case;
        let heads = Heads {
            heads,
            kv_heads,
            head_dim,
        };
        let mut rows = 0;
        let sequences = lengths.iter().map(|&n| {
            rows += n;
            (rows - n, n)
        });
        let sequences: Vec<_> = sequences.collect();
        let mut wide = vector(seed, rows * width(heads));
        for (row, values) in wide.chunks_mut(width(heads)).enumerate() {
            // Odd seeds: some keys' scores are far above all before.
            let stretch = if seed % 2 == 1 && row % 11 == 7 {
                12.0
            } else {
                2.0
            };
            let keys = heads.heads * head_dim..(heads.heads + kv_heads) * head_dim;
            for (i, value) in values.iter_mut().enumerate() {
                *value *= if keys.contains(&i) { stretch } else { 2.0 };
            }
        }
        let fused = narrow(&wide);
        let most = lengths.iter().max().unwrap().div_ceil(PAGE);
        let pages = 2 + lengths.iter().map(|n| n.div_ceil(PAGE)).sum::<usize>();
        let mut table = PageTable::new(&on, lengths.len(), most, pages).unwrap();
        let shape = Shape {
            pages,
            kv_heads,
            head_dim,
        };
        let mut layer = Layer::new(on.gpu(), shape).unwrap();
        let mut pools = [
            vec![bf16::NAN; shape.elements()],
            vec![bf16::NAN; shape.elements()],
        ];
        let places = (0..most).flat_map(|index| (0..lengths.len()).map(move |s| (s, index)));
        let used = places.filter(|&(s, index)| index * PAGE < lengths[s]);
        for ((sequence, index), page) in used.zip((1..pages).rev()) {
            table.set(sequence, index, page).unwrap();
            let (first, n) = sequences[sequence];
            for position in index * PAGE..n.min((index + 1) * PAGE) {
                let row = &fused[(first + position) * width(heads)..][..width(heads)];
                for head in 0..kv_heads {
                    let to = ((page * kv_heads + head) * PAGE + position % PAGE) * head_dim;
                    for (which, pool) in pools.iter_mut().enumerate() {
                        let from = (heads.heads + which * kv_heads + head) * head_dim;
                        pool[to..to + head_dim].copy_from_slice(&row[from..from + head_dim]);
                    }
                }
            }
        }
        table.upload(&on).unwrap();
        on.write(&pools[0], &mut layer.keys.view_mut()).unwrap();
        on.write(&pools[1], &mut layer.values.view_mut()).unwrap();
        let device = on.upload(&fused).unwrap();
        World {
            on,
            heads,
            sequences,
            rows,
            qkv: widened(&fused),
            device,
            layer,
            table,
        }
    }

    pub(crate) fn queries(&self) -> Queries<'_> {
        Queries {
            data: self.device.view(),
            ld: width(self.heads),
        }
    }

    /// Each sequence as a whole.
    pub(crate) fn all(&self) -> Vec<Rows> {
        let whole = |(sequence, &(first, count))| Rows {
            first,
            count,
            start: 0,
            sequence,
        };
        self.sequences.iter().enumerate().map(whole).collect()
    }

    pub(crate) fn plan(&self, parts: &[Rows]) -> Plan {
        let room = Room {
            rows: self.rows,
            sequences: self.sequences.len(),
        };
        let mut plan = Plan::new(self.on.gpu(), self.heads, room).unwrap();
        plan.lay(&self.on, parts).unwrap();
        plan
    }

    /// The kernels for rows that the GPU has.
    pub(crate) fn variants(&self) -> &'static [Variant] {
        let hopper = self.on.gpu().is_hopper();
        if hopper {
            &[Variant::Sync, Variant::Wgmma]
        } else {
            &[Variant::Sync]
        }
    }

    /// The kernels for a decode step that the GPU has.
    pub(crate) fn parts(&self) -> &'static [Parts] {
        if self.on.gpu().is_hopper() {
            &[Parts::One, Parts::Two, Parts::Four]
        } else {
            &[Parts::One]
        }
    }

    /// Attention of some rows into `out`.
    pub(crate) fn forward(
        &self,
        variant: Variant,
        parts: &[Rows],
        out: &mut Buffer<bf16>,
        lse: Option<&mut Buffer<f32>>,
    ) {
        let plan = self.plan(parts).with_variant(variant);
        let cache = (&self.layer, &self.table);
        let mut lse = lse.map(Buffer::view_mut);
        let (q, mut out) = (self.queries(), out.view_mut());
        attention::forward(&self.on, &plan, cache, q, &mut out, lse.as_mut()).unwrap();
    }

    /// Attention of all rows: the result, and its log-sum-exps.
    pub(crate) fn whole(&self, variant: Variant) -> (Buffer<bf16>, Buffer<f32>) {
        let mut out = poisoned(&self.on, self.rows * self.heads.heads * self.heads.head_dim);
        let mut lse = poisoned(&self.on, self.rows * self.heads.heads);
        self.forward(variant, &self.all(), &mut out, Some(&mut lse));
        (out, lse)
    }

    /// The decode step of a row of each sequence at these positions; below 0: none. `keys` is the room for each.
    pub(crate) fn decode(&self, positions: &[i32], keys: usize, parts: Parts) -> Vec<bf16> {
        let (on, heads, ld) = (&self.on, self.heads, width(self.heads));
        let row = |(&(first, n), &position): (&(usize, usize), &i32)| {
            let row = first + usize::try_from(position).unwrap_or(0).min(n - 1);
            narrow(&self.qkv[row * ld..(row + 1) * ld])
        };
        let q: Vec<bf16> = self.sequences.iter().zip(positions).flat_map(row).collect();
        let q = on.upload(&q).unwrap();
        let positions = on.upload(positions).unwrap();
        let count = self.sequences.len();
        let work = decode_attention::Work::new(on, heads, count, keys).unwrap();
        let mut work = work.with_parts(parts);
        let mut out = poisoned(on, count * heads.heads * heads.head_dim);
        let cache = (&self.layer, &self.table);
        let data = q.view();
        let (q, at) = (Queries { data, ld }, (positions.view(), keys));
        decode_attention::forward(on, cache, q, at, &mut work, &mut out.view_mut()).unwrap();
        on.download(out.view()).unwrap()
    }
}

/// One element of a fused row.
pub(crate) struct Fused<'a> {
    pub(crate) data: &'a [f64],
    pub(crate) heads: Heads,
}

impl Fused<'_> {
    fn head(&self, row: usize, head: usize) -> &[f64] {
        &self.data[row * width(self.heads) + head * self.heads.head_dim..][..self.heads.head_dim]
    }

    /// The weights of a row's keys, and the log2 of the sum of 2^score.
    pub(crate) fn weights(&self, row: usize, head: usize) -> (Vec<f64>, f64) {
        let key_head = self.heads.heads + head / self.heads.group();
        let scale = 1.0 / (self.heads.head_dim as f64).sqrt();
        let scores: Vec<f64> = (0..=row)
            .map(|key| product(self.head(row, head), self.head(key, key_head)) * scale)
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let weights = scores.iter().map(|s| (s - max).exp() / sum).collect();
        (weights, (max + sum.ln()) / std::f64::consts::LN_2)
    }

    /// The gradient of Σ out·dout by the fused rows of one sequence.
    pub(crate) fn gradient(&self, n: usize, dout: &[f64]) -> Vec<f64> {
        let Heads {
            heads,
            kv_heads,
            head_dim: d,
        } = self.heads;
        let scale = 1.0 / (d as f64).sqrt();
        let mut gradient = vec![0.0; n * width(self.heads)];
        let at = |row: usize, head: usize| row * width(self.heads) + head * d;
        for (row, head) in (0..n).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let key_head = heads + head / self.heads.group();
            let dout = &dout[(row * heads + head) * d..][..d];
            let (weights, _) = self.weights(row, head);
            let dweights: Vec<f64> = (0..=row)
                .map(|key| product(dout, self.head(key, key_head + kv_heads)))
                .collect();
            let mean = product(&weights, &dweights);
            for (key, (weight, dweight)) in weights.iter().zip(&dweights).enumerate() {
                let dscore = weight * (dweight - mean) * scale;
                for i in 0..d {
                    gradient[at(row, head) + i] += dscore * self.head(key, key_head)[i];
                    gradient[at(key, key_head) + i] += dscore * self.head(row, head)[i];
                    gradient[at(key, key_head + kv_heads) + i] += weight * dout[i];
                }
            }
        }
        gradient
    }
}

fn product(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
