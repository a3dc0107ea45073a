//! Two adapters' updates of the base weights compared: norms and cosines of α/r·B·A, layer by layer.
//!
//! The update is never formed. ⟨B₁A₁, B₂A₂⟩ is the trace of (B₁ᵀB₂)(A₂A₁ᵀ), which takes two products of the ranks' size.

use std::collections::BTreeMap;

use policy::Adapter;

use super::response::{Delta, Weights};
use super::workbench::{Point, Workbench};

pub(crate) fn compare(bench: &Workbench, a: &Point, b: &Point) -> anyhow::Result<Weights> {
    let (a, b) = (bench.adapter(a)?, bench.adapter(b)?);
    let (a, b) = (a.as_deref().map(Update::new), b.as_deref().map(Update::new));
    let layers: BTreeMap<usize, ()> = [&a, &b]
        .into_iter()
        .flatten()
        .flat_map(|update| update.maps.keys().map(|(layer, _)| (*layer, ())))
        .collect();
    let mut all = Sums::default();
    let layers = layers.into_keys().map(|layer| {
        let sums = Sums::of(a.as_ref(), b.as_ref(), layer);
        all.aa += sums.aa;
        all.bb += sums.bb;
        all.ab += sums.ab;
        sums.delta()
    });
    let layers = layers.collect();
    Ok(Weights {
        all: all.delta(),
        layers,
    })
}

/// The factors of one linear map.
#[derive(Clone, Copy, Default)]
struct Map<'a> {
    /// (rank, inputs)
    a: &'a [f32],
    /// (outputs, rank)
    b: &'a [f32],
}

struct Update<'a> {
    maps: BTreeMap<(usize, String), Map<'a>>,
    rank: usize,
    scale: f64,
}

impl<'a> Update<'a> {
    fn new(adapter: &'a Adapter) -> Self {
        let mut maps: BTreeMap<(usize, String), Map<'a>> = BTreeMap::new();
        for (name, _, values) in adapter.tensors() {
            let layer = name.split('.').find_map(|part| part.parse().ok());
            let Some((module, is_a)) = name
                .split_once(".lora_A.")
                .map(|(module, _)| (module, true))
                .or_else(|| {
                    name.split_once(".lora_B.")
                        .map(|(module, _)| (module, false))
                })
            else {
                continue;
            };
            let map = maps
                .entry((layer.unwrap_or(0), module.to_owned()))
                .or_default();
            if is_a {
                map.a = values;
            } else {
                map.b = values;
            }
        }
        Self {
            maps,
            rank: adapter.rank(),
            scale: f64::from(adapter.alpha()) / adapter.rank() as f64,
        }
    }
}

/// Inner products of two updates.
#[derive(Clone, Copy, Default)]
struct Sums {
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Sums {
    fn of(a: Option<&Update<'_>>, b: Option<&Update<'_>>, layer: usize) -> Self {
        Self {
            aa: a.map_or(0.0, |a| product(a, a, layer)),
            bb: b.map_or(0.0, |b| product(b, b, layer)),
            ab: a.zip(b).map_or(0.0, |(a, b)| product(a, b, layer)),
        }
    }

    fn delta(self) -> Delta {
        let (norm_a, norm_b) = (self.aa.max(0.0).sqrt(), self.bb.max(0.0).sqrt());
        let both = norm_a * norm_b;
        Delta {
            norm_a,
            norm_b,
            difference: (self.aa + self.bb - 2.0 * self.ab).max(0.0).sqrt(),
            cosine: (both > 0.0).then(|| (self.ab / both).clamp(-1.0, 1.0)),
        }
    }
}

fn product(x: &Update<'_>, y: &Update<'_>, layer: usize) -> f64 {
    let of_layer = x.maps.iter().filter(|((at, _), _)| *at == layer);
    let sum: f64 = of_layer
        .filter_map(|(key, map)| Some(trace(*map, *y.maps.get(key)?, x.rank, y.rank)))
        .sum();
    sum * x.scale * y.scale
}

/// The trace of (B₁ᵀB₂)(A₂A₁ᵀ).
fn trace(x: Map<'_>, y: Map<'_>, rank_x: usize, rank_y: usize) -> f64 {
    let mut outputs = vec![0.0f64; rank_x * rank_y];
    for (bx, by) in x.b.chunks_exact(rank_x).zip(y.b.chunks_exact(rank_y)) {
        for (i, p) in bx.iter().enumerate() {
            for (j, q) in by.iter().enumerate() {
                outputs[i * rank_y + j] += f64::from(*p) * f64::from(*q);
            }
        }
    }
    let inputs = x.a.len() / rank_x;
    let mut sum = 0.0;
    for (i, ax) in x.a.chunks_exact(inputs).enumerate() {
        for (j, ay) in y.a.chunks_exact(inputs).enumerate() {
            let pairs = ax.iter().zip(ay);
            let dot: f64 = pairs.map(|(p, q)| f64::from(*p) * f64::from(*q)).sum();
            sum += outputs[i * rank_y + j] * dot;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_the_inner_product_of_the_whole_updates() {
        // Rank 2, 3 inputs, 2 outputs.
        let (a, b) = ([1.0, 2.0, 3.0, -1.0, 0.5, 2.0], [1.0, 2.0, -3.0, 0.25]);
        // Rank 1.
        let (c, d) = ([2.0, 0.0, 1.0], [0.5, -1.0]);
        let whole = |a: &[f32], b: &[f32], rank: usize| -> Vec<f64> {
            let inputs = a.len() / rank;
            let row = |o: usize, i: usize| -> f64 {
                (0..rank)
                    .map(|r| f64::from(b[o * rank + r]) * f64::from(a[r * inputs + i]))
                    .sum()
            };
            (0..b.len() / rank)
                .flat_map(|o| (0..inputs).map(move |i| (o, i)))
                .map(|(o, i)| row(o, i))
                .collect()
        };
        let pairs = whole(&a, &b, 2).into_iter().zip(whole(&c, &d, 1));
        let expected: f64 = pairs.map(|(x, y)| x * y).sum();
        let found = trace(Map { a: &a, b: &b }, Map { a: &c, b: &d }, 2, 1);
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn equal_updates_have_no_difference_and_a_base_has_no_direction() {
        let sums = Sums {
            aa: 4.0,
            bb: 4.0,
            ab: 4.0,
        };
        assert_eq!(
            (sums.delta().difference, sums.delta().cosine),
            (0.0, Some(1.0))
        );
        let base = Sums {
            aa: 0.0,
            bb: 9.0,
            ab: 0.0,
        };
        assert_eq!((base.delta().difference, base.delta().cosine), (3.0, None));
    }
}
