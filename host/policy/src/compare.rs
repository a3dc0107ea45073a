//! How two adapters differ as changes of the weights: norms and cosine, per projection, per layer and in total.
//!
//! Everything is computed from the factors, never from the product: `⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ)`, in f64. The norm
//! of the difference is that of `B₁(A₁ − A₂) + (B₁ − B₂)A₂`, so that neighbouring versions are told apart far below the
//! rounding of their norms. Says nothing about behaviour: [`crate::divergence()`] does. Start at [`compare()`].

use serde::Serialize;

use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// Two changes of the same weights.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Change {
    /// Frobenius norm of a's change `α/r · B A`.
    pub norm_a: f64,
    /// The same of b's.
    pub norm_b: f64,
    /// The same of a's change minus b's.
    pub norm_difference: f64,
    /// Cosine of the angle between the two; none when one of them changes nothing.
    pub cosine: Option<f64>,
}

/// One linear map of a layer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ProjectionChange {
    /// Its name below the layer, for example `self_attn.q_proj`.
    pub projection: &'static str,
    /// The two changes of it.
    pub change: Change,
}

/// One layer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LayerChange {
    /// From 0.
    pub layer: usize,
    /// The seven maps taken as one vector.
    pub total: Change,
    /// Each of them, in the adapter's order.
    pub projections: Vec<ProjectionChange>,
}

/// Two adapters.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// All layers taken as one vector.
    pub total: Change,
    /// Each layer.
    pub layers: Vec<LayerChange>,
}

/// Compares two adapters of one model, of any ranks; an absent one is the base and changes nothing.
///
/// # Errors
/// [`Error::AdapterSetting`] for an adapter of another model.
pub fn compare(
    model: &ModelConfig,
    a: Option<&Adapter>,
    b: Option<&Adapter>,
) -> Result<Comparison> {
    for adapter in a.into_iter().chain(b) {
        if !adapter.fits(model) {
            return Err(Error::AdapterSetting {
                what: "parameters",
                found: adapter.params().len() as f64,
                rule: "the model has another shape",
            });
        }
    }
    let mut whole = Products::default();
    let mut layers = Vec::with_capacity(model.layers);
    for layer in 0..model.layers {
        let mut total = Products::default();
        let mut projections = Vec::with_capacity(Projection::ALL.len());
        for projection in Projection::ALL {
            let (outputs, inputs) = projection.shape(model);
            let rank = |adapter: Option<&Adapter>| adapter.map_or(0, Adapter::rank);
            let rank = rank(a).max(rank(b));
            let factors =
                |adapter| Factors::new(adapter, layer, projection, rank, (outputs, inputs));
            let products = Products::of(&factors(a), &factors(b));
            total.add(&products);
            projections.push(ProjectionChange {
                projection: projection.module(),
                change: products.change(),
            });
        }
        whole.add(&total);
        layers.push(LayerChange {
            layer,
            total: total.change(),
            projections,
        });
    }
    Ok(Comparison {
        total: whole.change(),
        layers,
    })
}

/// A change `Bᵀᵀ A` with its scale in B and zeros up to a common rank.
struct Factors {
    /// (rank, inputs)
    a: Vec<f64>,
    /// (rank, outputs): B's columns.
    b_t: Vec<f64>,
    rank: usize,
}

impl Factors {
    fn new(
        adapter: Option<&Adapter>,
        layer: usize,
        projection: Projection,
        rank: usize,
        (outputs, inputs): (usize, usize),
    ) -> Self {
        let (mut a, mut b_t) = (vec![0.0; rank * inputs], vec![0.0; rank * outputs]);
        if let Some(adapter) = adapter {
            let pair = adapter.pair(layer, projection);
            for (to, from) in a.iter_mut().zip(pair.a) {
                *to = f64::from(*from);
            }
            for (to, from) in b_t.iter_mut().zip(pair.b_t) {
                *to = f64::from(*from) * f64::from(pair.scale);
            }
        }
        Self { a, b_t, rank }
    }

    /// `⟨self, other⟩`.
    fn inner(&self, other: &Factors) -> f64 {
        let rows = |values: &[f64]| (values.len() / self.rank.max(1)).max(1);
        let (inputs, outputs) = (rows(&self.a), rows(&self.b_t));
        let mut sum = 0.0;
        for (a1, b1) in self
            .a
            .chunks_exact(inputs)
            .zip(self.b_t.chunks_exact(outputs))
        {
            for (a2, b2) in other
                .a
                .chunks_exact(inputs)
                .zip(other.b_t.chunks_exact(outputs))
            {
                sum += dot(a1, a2) * dot(b1, b2);
            }
        }
        sum
    }
}

/// The inner products that norms and cosines are made of; those of disjoint weights add up.
#[derive(Clone, Copy, Default)]
struct Products {
    aa: f64,
    bb: f64,
    ab: f64,
    difference: f64,
}

impl Products {
    fn of(a: &Factors, b: &Factors) -> Self {
        let minus = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect();
        // a − b = B₁(A₁ − A₂) + (B₁ − B₂)A₂
        let one = Factors {
            a: minus(&a.a, &b.a),
            b_t: a.b_t.clone(),
            rank: a.rank,
        };
        let two = Factors {
            a: b.a.clone(),
            b_t: minus(&a.b_t, &b.b_t),
            rank: a.rank,
        };
        Self {
            aa: a.inner(a),
            bb: b.inner(b),
            ab: a.inner(b),
            difference: one.inner(&one) + 2.0 * one.inner(&two) + two.inner(&two),
        }
    }

    fn add(&mut self, other: &Self) {
        self.aa += other.aa;
        self.bb += other.bb;
        self.ab += other.ab;
        self.difference += other.difference;
    }

    fn change(&self) -> Change {
        // Squares can come out a rounding below 0.
        let norm = |square: f64| square.max(0.0).sqrt();
        let (norm_a, norm_b) = (norm(self.aa), norm(self.bb));
        let both = norm_a > 0.0 && norm_b > 0.0;
        Change {
            norm_a,
            norm_b,
            norm_difference: norm(self.difference),
            cosine: both.then(|| (self.ab / (norm_a * norm_b)).clamp(-1.0, 1.0)),
        }
    }
}

/// Eight chains, so that the sum need not wait for itself; added in a fixed order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (x, y) in a.0.iter().zip(b.0) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests;
