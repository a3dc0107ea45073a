//! Against the products, materialised.

use super::*;
use crate::config::{Architecture, Rope, RopeScaling};

fn model() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 16,
        hidden: 24,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ffn: 37,
        rms_eps: 1e-5,
        rope: Rope {
            theta: 1e4,
            scaling: RopeScaling::None,
        },
        context: 16,
        tied: true,
        qk_norm: false,
        attention_bias: false,
        eos: vec![1],
        bos: None,
    }
}

fn adapter(rank: usize, alpha: f32, seed: u64) -> Adapter {
    let mut adapter = Adapter::init(&model(), rank, alpha, seed).unwrap();
    adapter.update(|params| {
        for (place, p) in params.iter_mut().enumerate() {
            *p += crate::adapter::uniform(seed + 7, place as u64) - 0.5;
        }
    });
    adapter
}

/// The change of one map, number by number.
fn product(adapter: Option<&Adapter>, layer: usize, projection: Projection) -> Vec<f64> {
    let (outputs, inputs) = projection.shape(&model());
    let mut out = vec![0.0; outputs * inputs];
    let Some(adapter) = adapter else { return out };
    let pair = adapter.pair(layer, projection);
    for o in 0..outputs {
        for i in 0..inputs {
            for r in 0..pair.rank {
                let (b, a) = (pair.b[o * pair.rank + r], pair.a[r * inputs + i]);
                out[o * inputs + i] += f64::from(pair.scale) * f64::from(b) * f64::from(a);
            }
        }
    }
    out
}

fn expected(a: &[f64], b: &[f64]) -> Change {
    let inner = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let difference: Vec<f64> = a.iter().zip(b).map(|(x, y)| x - y).collect();
    let (norm_a, norm_b) = (inner(a, a).sqrt(), inner(b, b).sqrt());
    Change {
        norm_a,
        norm_b,
        norm_difference: inner(&difference, &difference).sqrt(),
        cosine: (norm_a > 0.0 && norm_b > 0.0).then(|| inner(a, b) / (norm_a * norm_b)),
    }
}

#[track_caller]
fn close(found: &Change, expected: &Change) {
    let numbers = |c: &Change| {
        [
            c.norm_a,
            c.norm_b,
            c.norm_difference,
            c.cosine.unwrap_or(9.0),
        ]
    };
    for (f, e) in numbers(found).into_iter().zip(numbers(expected)) {
        assert!(
            (f - e).abs() <= 1e-9 * e.abs().max(1e-3),
            "{found:?} is not {expected:?}"
        );
    }
}

#[test]
fn norms_and_cosines_are_those_of_the_products() {
    let (one, two, near) = (adapter(3, 6.0, 1), adapter(5, 4.0, 2), {
        let mut near = adapter(3, 6.0, 1);
        near.update(|params| params.iter_mut().step_by(3).for_each(|p| *p += 1e-3));
        near
    });
    for (a, b) in [
        (Some(&one), Some(&two)),
        (Some(&one), Some(&near)),
        (Some(&two), None),
        (None, Some(&one)),
        (None, None),
    ] {
        let found = compare(&model(), a, b).unwrap();
        let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
        for layer in &found.layers {
            let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
            for (projection, part) in Projection::ALL.into_iter().zip(&layer.projections) {
                let changes = [a, b].map(|adapter| product(adapter, layer.layer, projection));
                close(&part.change, &expected(&changes[0], &changes[1]));
                assert_eq!(part.projection, projection.module());
                of_a.extend(&changes[0]);
                of_b.extend(&changes[1]);
            }
            close(&layer.total, &expected(&of_a, &of_b));
            all_a.extend(of_a);
            all_b.extend(of_b);
        }
        assert_eq!(found.layers.len(), 2);
        close(&found.total, &expected(&all_a, &all_b));
    }
}

#[test]
fn an_adapter_does_not_differ_from_itself_and_hardly_from_a_neighbour() {
    let one = adapter(3, 6.0, 1);
    let same = compare(&model(), Some(&one), Some(&one)).unwrap().total;
    assert_eq!(same.norm_difference, 0.0);
    assert!(same.cosine.unwrap() > 1.0 - 1e-12);
    // One parameter moved by the least that f32 can say: far below the rounding of the norms' squares.
    let mut next = one.clone();
    next.update(|params| params[0] = params[0].next_up());
    let step = f64::from(next.params()[0]) - f64::from(one.params()[0]);
    let found = compare(&model(), Some(&one), Some(&next)).unwrap().total;
    let column: f64 = one
        .pair(0, Projection::Q)
        .b
        .iter()
        .step_by(3)
        .map(|b| f64::from(*b).powi(2))
        .sum();
    let expected = 2.0 * step * column.sqrt();
    assert!(
        (found.norm_difference / expected - 1.0).abs() < 1e-9,
        "{found:?}, {expected}"
    );
}

#[test]
fn a_fresh_adapter_changes_nothing_and_a_foreign_one_is_refused() {
    let fresh = Adapter::init(&model(), 4, 8.0, 1).unwrap();
    let found = compare(&model(), Some(&fresh), None).unwrap().total;
    assert_eq!(
        (found.norm_a, found.norm_difference, found.cosine),
        (0.0, 0.0, None)
    );
    let mut other = model();
    other.ffn = 38;
    assert!(matches!(
        compare(&other, Some(&fresh), None),
        Err(Error::AdapterSetting { .. })
    ));
    let json = serde_json::to_value(found).unwrap();
    assert_eq!(json["cosine"], serde_json::Value::Null);
}
