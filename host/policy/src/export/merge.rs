//! A base model's weights with an adapter's update added.
//!
//! Does arithmetic and checks shapes; writes nothing.

use std::collections::BTreeMap;

use half::bf16;

use crate::adapter::{Adapter, Projection};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::{Error, Problem, Result, field};

/// A base model and an adapter that fits it.
pub(super) struct Merge<'a> {
    pub(super) base: &'a Checkpoint,
    adapter: &'a Adapter,
    adapted: BTreeMap<String, (usize, Projection)>,
}

impl<'a> Merge<'a> {
    /// Refuses an adapter of another model.
    pub(super) fn new(base: &'a Checkpoint, adapter: &'a Adapter) -> Result<Self> {
        if !adapter.fits(&base.config) {
            return Err(Error::AdapterSetting {
                what: "parameters",
                found: adapter.params().len() as f64,
                rule: "the model to merge it into has other layers or widths",
            });
        }
        let layers = 0..base.config.layers;
        let adapted = layers.flat_map(|layer| {
            let name = move |p: Projection| format!("model.layers.{layer}.{}.weight", p.module());
            Projection::ALL.map(|p| (name(p), (layer, p)))
        });
        Ok(Self {
            base,
            adapter,
            adapted: adapted.collect(),
        })
    }

    pub(super) fn config(&self) -> &'a ModelConfig {
        &self.base.config
    }

    /// The names (Hugging Face's) and shapes of the tensors that the adapter changes.
    pub(super) fn adapted(&self) -> impl Iterator<Item = (&str, [usize; 2])> {
        self.adapted.iter().map(|(name, (_, projection))| {
            let (outputs, inputs) = projection.shape(self.config());
            (name.as_str(), [outputs, inputs])
        })
    }

    /// A tensor by its Hugging Face name, merged when the adapter changes it.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut weights = self.base.tensor(name, shape)?;
        if let Some(&(layer, projection)) = self.adapted.get(name) {
            self.add(layer, projection, &mut weights);
        }
        Ok(weights)
    }

    /// Adds (α/rank)·B·A, row by row.
    fn add(&self, layer: usize, projection: Projection, weights: &mut [f32]) {
        let pair = self.adapter.pair(layer, projection);
        let (_, inputs) = projection.shape(self.config());
        let mut update = vec![0.0f32; inputs];
        let rows = weights.chunks_exact_mut(inputs);
        for (row, b) in rows.zip(pair.b.chunks_exact(pair.rank)) {
            update.fill(0.0);
            for (&b, a) in b.iter().zip(pair.a.chunks_exact(inputs)) {
                for (sum, &a) in update.iter_mut().zip(a) {
                    *sum += b * a;
                }
            }
            for (weight, &update) in row.iter_mut().zip(&update) {
                *weight += pair.scale * update;
            }
        }
    }

    /// The bytes of numbers in BF16, each rounded to the nearest.
    pub(super) fn bf16(&self, name: &str, numbers: &[f32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(numbers.len() * 2);
        for (index, &number) in numbers.iter().enumerate() {
            let number = bf16::from_f32(number);
            if !number.is_finite() {
                return Err(field(self.base.path(), name, Problem::NonFinite { index }));
            }
            bytes.extend(number.to_le_bytes());
        }
        Ok(bytes)
    }
}
