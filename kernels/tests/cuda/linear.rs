//! A linear map with adapters of several ranks, on the GPU and as plain numbers: what the tests of products share.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use half::bf16;
use kernels::cuda::adapters::{Adapters, Packed, Part, Segment, Segments, Shape, Table};
use kernels::cuda::gemm::Beside;
use kernels::cuda::{Buffer, Element, Stream, lora};
use kernels::reference;

use crate::common::{vector, wide};
use crate::setup::{narrow, poisoned, rounded, widened};

/// Outputs of the two projections of a map that is no multiple of a tile; with its inputs, 19 and 9 steps.
pub(crate) const WIDTHS: [usize; 2] = [208, 96];
pub(crate) const MAP: Shape = Shape {
    outputs: 304,
    inputs: 144,
};
/// Of each slot.
pub(crate) const RANKS: [usize; 3] = [16, 5, 33];
pub(crate) const ROWS: usize = 130;

/// An adapter's masters.
pub(crate) struct Master {
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
}

pub(crate) struct Linear {
    pub(crate) map: Shape,
    pub(crate) widths: [usize; 2],
    pub(crate) w: Vec<f32>,
    pub(crate) weights: Buffer<bf16>,
    pub(crate) table: Table,
    pub(crate) parts: Vec<Part>,
    /// By slot and projection.
    pub(crate) masters: Vec<[Master; 2]>,
}

impl Linear {
    pub(crate) fn new(on: &Stream) -> Linear {
        Linear::of(on, WIDTHS, MAP.inputs)
    }

    pub(crate) fn of(on: &Stream, widths: [usize; 2], inputs: usize) -> Linear {
        let map = Shape {
            outputs: widths.iter().sum(),
            inputs,
        };
        let w = rounded(&vector(1, map.outputs * inputs));
        let shapes = widths.map(|outputs| Shape { outputs, inputs });
        let table = Table::new(on, RANKS.len(), &shapes, 33).unwrap();
        let masters =
            (0..RANKS.len()).map(|slot| [0, 1].map(|p| master(slot, shapes[p], p as u64)));
        let masters: Vec<[Master; 2]> = masters.collect();
        for (slot, pair) in masters.iter().enumerate() {
            for (projection, master) in pair.iter().enumerate() {
                let packed = packed(on, shapes[projection], master);
                table
                    .publish(on, slot, projection, Some(Arc::new(packed)))
                    .unwrap();
            }
        }
        let part = |projection, from| Part {
            projection,
            outputs: from..from + widths[projection],
        };
        Linear {
            map,
            widths,
            weights: on.upload(&narrow(&w)).unwrap(),
            w,
            table,
            parts: vec![part(0, 0), part(1, widths[0])],
            masters,
        }
    }

    pub(crate) fn adapters<'a>(&'a self, segments: &'a Segments) -> Adapters<'a> {
        Adapters {
            table: &self.table,
            segments,
            parts: &self.parts,
        }
    }

    /// The adapters' part of a forward product: u.
    pub(crate) fn u(&self, on: &Stream, segments: &Segments, x: &Buffer<bf16>) -> Buffer<bf16> {
        let (adapters, rows) = (self.adapters(segments), x.len() / self.map.inputs);
        let mut u = poisoned(on, rows * adapters.inner());
        lora::down(on, rows, self.map, x.view(), &adapters, &mut u.view_mut()).unwrap();
        u
    }

    /// The same of a backward product: du.
    pub(crate) fn du(&self, on: &Stream, segments: &Segments, dy: &Buffer<bf16>) -> Buffer<bf16> {
        let (adapters, rows) = (self.adapters(segments), dy.len() / self.map.outputs);
        let mut du = poisoned(on, rows * adapters.inner());
        lora::down_backward(on, rows, self.map, dy.view(), &adapters, &mut du.view_mut()).unwrap();
        du
    }

    pub(crate) fn beside<'a>(&'a self, segments: &'a Segments, u: &'a Buffer<bf16>) -> Beside<'a> {
        Beside {
            adapters: self.adapters(segments),
            inner: u.view(),
        }
    }

    /// Columns of u.
    pub(crate) fn inner(&self) -> usize {
        2 * self.table.largest_rank()
    }

    /// x·Wᵀ + u·Bᵀ in f64.
    pub(crate) fn forward(&self, x: &[f32], u: &[f32], segments: &[Segment]) -> Vec<f64> {
        let rows = x.len() / self.map.inputs;
        let mut y = reference::matmul_t(rows, self.map.outputs, self.map.inputs, x, &self.w);
        self.each_adapted(segments, rows, |row, projection, master| {
            let u = &u[row * self.inner() + projection * self.table.largest_rank()..];
            let b = rounded(&master.b);
            for o in 0..self.widths[projection] {
                let at = row * self.map.outputs + self.parts[projection].outputs.start + o;
                y[at] += sum(&u[..master.rank], &b[o * master.rank..][..master.rank]);
            }
        });
        y
    }

    /// dy·W + du·A in f64.
    pub(crate) fn backward(&self, dy: &[f32], du: &[f32], segments: &[Segment]) -> Vec<f64> {
        let rows = dy.len() / self.map.outputs;
        let mut dx = reference::matmul(rows, self.map.inputs, self.map.outputs, dy, &self.w);
        self.each_adapted(segments, rows, |row, projection, master| {
            let du = &du[row * self.inner() + projection * self.table.largest_rank()..];
            let a = rounded(&master.a);
            for i in 0..self.map.inputs {
                let column: Vec<f32> = (0..master.rank)
                    .map(|r| a[r * self.map.inputs + i])
                    .collect();
                dx[row * self.map.inputs + i] += sum(&du[..master.rank], &column);
            }
        });
        dx
    }

    /// Every row with an adapter, and both projections.
    pub(crate) fn each_adapted(
        &self,
        segments: &[Segment],
        rows: usize,
        mut f: impl FnMut(usize, usize, &Master),
    ) {
        for segment in segments {
            for row in segment.first..(segment.first + segment.count).min(rows) {
                for projection in 0..2 {
                    f(row, projection, &self.masters[segment.slot][projection]);
                }
            }
        }
    }
}

pub(crate) fn master(slot: usize, shape: Shape, seed: u64) -> Master {
    let rank = RANKS[slot];
    let of = |what: u64| 10 + 100 * seed + 2 * slot as u64 + what;
    let small = |values: Vec<f32>| values.into_iter().map(|v| v * 0.3).collect();
    Master {
        a: small(vector(of(0), rank * shape.inputs)),
        b: small(vector(of(1), shape.outputs * rank)),
        rank,
        scale: 0.5 + slot as f32,
    }
}

pub(crate) fn packed(on: &Stream, shape: Shape, master: &Master) -> Packed {
    let mut packed = Packed::new(on.gpu(), &[shape], master.rank, master.scale).unwrap();
    let (a, b) = (on.upload(&master.a).unwrap(), on.upload(&master.b).unwrap());
    packed.pack(on, 0, &[[a.view(), b.view()]]).unwrap();
    packed
}

/// The segments of the first `rows` of 130 rows: single rows, neighbours with other adapters and with none, whole tiles.
pub(crate) fn segments(rows: usize) -> Vec<Segment> {
    let all = [
        (0, 1, 0),
        (3, 5, 1),
        (8, 1, 2),
        (9, 31, 0),
        (40, 61, 2),
        (101, 29, 1),
    ];
    all.into_iter()
        .filter(|(first, ..)| *first < rows)
        .map(|(first, count, slot)| Segment {
            first,
            count: usize::min(count, rows - first),
            slot,
        })
        .collect()
}

/// The same on the GPU, with room that is not needed.
pub(crate) fn uploaded(on: &Stream, rows: usize) -> Segments {
    let mut on_gpu = Segments::new(on, 9, rows).unwrap();
    on_gpu.set(on, &segments(rows), RANKS.len()).unwrap();
    on_gpu
}

/// Random operands: as plain numbers, and on the GPU.
pub(crate) fn operand(on: &Stream, seed: u64, len: usize) -> (Vec<f32>, Buffer<bf16>) {
    let values = rounded(&vector(seed, len));
    let buffer = on.upload(&narrow(&values)).unwrap();
    (values, buffer)
}

/// The first elements of a buffer in a buffer of their own, so that reading past them shows.
pub(crate) fn head<T: Element>(on: &Stream, of: &Buffer<T>, len: usize) -> Buffer<T> {
    let mut own = poisoned(on, len);
    on.copy(of.view().part(0..len).unwrap(), &mut own.view_mut())
        .unwrap();
    own
}

pub(crate) fn down(on: &Stream, buffer: &Buffer<bf16>) -> Vec<f32> {
    widened(&on.download(buffer.view()).unwrap())
}

pub(crate) fn sum(x: &[f32], y: &[f32]) -> f64 {
    wide(x).iter().zip(wide(y)).map(|(x, y)| x * y).sum()
}
