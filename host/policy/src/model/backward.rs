//! The hand-written backward pass: from gradients of log-probs to gradients of an adapter.
//!
//! The base weights are frozen and have no gradient buffers. Each layer's intermediate results come from the tape or are
//! computed again from its input; names are those of [`super::block::Activations`] with a `d` in front.

use crate::adapter::{Adapter, AdapterGrads, Projection};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::block::{self, Activations, fit};
use crate::model::train::{Tape, Whole};
use kernels::attention::{self, Queries};
use kernels::lora::{Columns, Forward, Into};
use kernels::{KvCache, Packed, Pool, gemm, lora, rmsnorm, rope, softmax, swiglu};

/// Gradients that flow, and work space.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// (N, C) by the layer's output, in the end by its input.
    dx: Vec<f32>,
    /// (N, C) by a norm's result.
    dnormed: Vec<f32>,
    /// (N, F).
    dgated: Vec<f32>,
    /// (N, H·D).
    dattended: Vec<f32>,
    /// (N, (H + 2K)·D).
    dqkv: Vec<f32>,
    /// (N, R).
    dinner: Vec<f32>,
    /// Of one row's heads.
    dheads: Vec<f32>,
    stats: Vec<f32>,
    /// Gradients of the log-probs of one tile.
    upstream: Vec<f32>,
}

impl Model {
    /// Adds the gradients of `Σ dlog_probs[i] · log_prob[i]` by the adapter's parameters to `grads`.
    ///
    /// The tape is that of the last [`Model::train_forward`], with the same adapter. Lets serving take its turn after every
    /// layer.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] when adapter, gradients and model do not belong together; [`Error::Gradients`] for another
    /// number of gradients than the tape has targets.
    pub fn backward(
        &self,
        tape: &mut Tape,
        adapter: &Adapter,
        dlog_probs: &[f32],
        grads: &mut AdapterGrads,
    ) -> Result<()> {
        self.check_adapter(Some(adapter))?;
        if !grads.fits(adapter) {
            let (what, rule) = ("gradients", "they were made for another adapter");
            return Err(Error::AdapterSetting {
                what,
                found: grads.values().len() as f64,
                rule,
            });
        }
        if dlog_probs.len() != tape.targets.len() {
            let expected = tape.targets.len();
            return Err(Error::Gradients {
                found: dlog_probs.len(),
                expected,
            });
        }
        let rows = tape.rows;
        if rows == 0 || dlog_probs.iter().all(|g| *g == 0.0) {
            return Ok(());
        }
        let mut turn = self.pool.enter();
        self.output_backward(tape, dlog_probs)?;
        for layer in (0..self.layers.len()).rev() {
            turn.breathe();
            self.layer_backward(tape, layer, adapter, grads)?;
        }
        Ok(())
    }

    /// From the log-probs to `dx` of the last layer's output, tile by tile.
    fn output_backward(&self, tape: &mut Tape, dlog_probs: &[f32]) -> Result<()> {
        let (c, vocab) = (self.config.hidden, self.config.vocab_size);
        fit(&mut tape.grads.dx, tape.rows * c).fill(0.0);
        let mut done = 0;
        while let Some(tile) = self.output_tile(tape, done)? {
            let Buffers {
                dx,
                dnormed,
                dattended: dhidden,
                upstream,
                ..
            } = &mut tape.grads;
            let output = &mut tape.output;
            let rows = output.rows.len();
            upstream.clear();
            upstream.extend(tile.clone().map(|i| dlog_probs[tape.order[i]]));
            let logits = &mut output.logits[..rows * vocab];
            softmax::backward(
                &self.pool,
                logits,
                &output.normalizers,
                &output.targets,
                upstream,
            )?;
            let dnormed = fit(dnormed, rows * c);
            gemm::backward(&self.pool, rows, logits, self.output(), dnormed)?;
            let dhidden = fit(dhidden, rows * c);
            dhidden.fill(0.0);
            let hidden = &output.hidden[..rows * c];
            rmsnorm::backward(
                &self.pool,
                rows,
                hidden,
                &self.norm,
                self.config.rms_eps,
                dnormed,
                dhidden,
            )?;
            for (from, row) in dhidden.chunks_exact(c).zip(&output.rows) {
                dx[row * c..][..c].copy_from_slice(from);
            }
            done = tile.end;
        }
        Ok(())
    }

    /// One layer: `dx` by its output becomes `dx` by its input.
    fn layer_backward(
        &self,
        tape: &mut Tape,
        layer: usize,
        adapter: &Adapter,
        grads: &mut AdapterGrads,
    ) -> Result<()> {
        let mut acts = if tape.keeps {
            std::mem::take(&mut tape.kept[layer])
        } else {
            self.recompute(tape, layer, adapter)?
        };
        self.feed_forward_backward(tape, &mut acts, layer, adapter, grads)?;
        self.attention_backward(tape, &acts, layer, adapter, grads)?;
        let place = if tape.keeps {
            &mut tape.kept[layer]
        } else {
            &mut tape.acts
        };
        *place = acts;
        Ok(())
    }

    /// A layer's intermediate results, computed again from its input.
    fn recompute(&self, tape: &mut Tape, layer: usize, adapter: &Adapter) -> Result<Activations> {
        let (rows, len) = (tape.rows, tape.rows * self.config.hidden);
        let mut acts = std::mem::take(&mut tape.acts);
        fit(&mut acts.x, len).copy_from_slice(&tape.inputs[layer * len..][..len]);
        let cache = tape
            .keys
            .get_or_insert_with(|| KvCache::new(self.one_layer()));
        let mut whole = Whole {
            cache,
            rows,
            adapter: Some(adapter),
        };
        block::attend(self, layer, 0, &mut whole, rows, &mut acts)?;
        block::gate(self, layer, &whole, rows, &mut acts)?;
        // The product of `down` itself is not needed, but its adapter's inner result is.
        let pair = adapter.pair(layer, Projection::Down);
        let inner = fit(&mut acts.inner[Projection::Down as usize], rows * pair.rank);
        lora::down(
            &self.pool,
            rows,
            &acts.gated[..rows * self.config.ffn],
            &pair,
            inner,
        )?;
        Ok(acts)
    }

    fn feed_forward_backward(
        &self,
        tape: &mut Tape,
        acts: &mut Activations,
        layer: usize,
        adapter: &Adapter,
        grads: &mut AdapterGrads,
    ) -> Result<()> {
        let (pool, config, weights) = (&*self.pool, &self.config, &self.layers[layer]);
        let (rows, c, f) = (tape.rows, config.hidden, config.ffn);
        let (b, gated) = (&mut tape.grads, &acts.gated[..rows * f]);
        let (inner, dinner) = (&acts.inner, &mut b.dinner);
        let mut linear = Linear {
            pool,
            layer,
            adapter,
            inner,
            grads,
            dinner,
        };
        let (dx, dgated) = (fit(&mut b.dx, rows * c), fit(&mut b.dgated, rows * f));
        linear.backward(&weights.down, &[(Projection::Down, 0)], gated, dx, dgated)?;
        let gate_up = &mut acts.gate_up[..rows * 2 * f];
        swiglu::backward(pool, rows, f, gate_up, dgated)?;
        let dnormed = fit(&mut b.dnormed, rows * c);
        let parts = [(Projection::Gate, 0), (Projection::Up, f)];
        let ffn_in = &acts.ffn_in[..rows * c];
        linear.backward(&weights.gate_up, &parts, ffn_in, gate_up, dnormed)?;
        let mid = &acts.mid[..rows * c];
        rmsnorm::backward(
            pool,
            rows,
            mid,
            &weights.ffn_norm,
            config.rms_eps,
            dnormed,
            dx,
        )?;
        Ok(())
    }

    fn attention_backward(
        &self,
        tape: &mut Tape,
        acts: &Activations,
        layer: usize,
        adapter: &Adapter,
        grads: &mut AdapterGrads,
    ) -> Result<()> {
        let (pool, config, weights) = (&*self.pool, &self.config, &self.layers[layer]);
        let (rows, c, d) = (tape.rows, config.hidden, config.head_dim);
        let (queries, keys) = (config.heads * d, config.kv_heads * d);
        let width = queries + 2 * keys;
        let b = &mut tape.grads;
        let mut linear = Linear {
            pool,
            layer,
            adapter,
            inner: &acts.inner,
            grads,
            dinner: &mut b.dinner,
        };
        let dx = fit(&mut b.dx, rows * c);
        let (attended, dattended) = (
            &acts.attended[..rows * queries],
            fit(&mut b.dattended, rows * queries),
        );
        linear.backward(&weights.o, &[(Projection::O, 0)], attended, dx, dattended)?;
        let qkv = &acts.qkv[..rows * width];
        let cache = tape
            .keys
            .get_or_insert_with(|| KvCache::new(self.one_layer()));
        cache.reserve(rows);
        cache.write(0, 0, qkv, width, queries, queries + keys)?;
        let mirror = tape
            .mirror
            .get_or_insert_with(|| KvCache::new(self.one_layer()));
        mirror.reserve(rows);
        mirror.write(0, 0, qkv, width, queries + keys, queries)?;
        let q = Queries {
            data: qkv,
            ld: width,
            heads: config.heads,
        };
        let forward = attention::Backward {
            layer: 0,
            start: 0,
            cache,
            mirror,
            q,
            out: attended,
            dout: dattended,
        };
        let dqkv = fit(&mut b.dqkv, rows * width);
        attention::backward(pool, &forward, &mut b.stats, dqkv, &mut [])?;
        rope::backward(pool, &self.rope, dqkv, width, 0..queries + keys, 0)?;
        self.qk_norm_backward(layer, &acts.raw_qkv, dqkv, &mut b.dheads)?;
        let dnormed = fit(&mut b.dnormed, rows * c);
        let parts = [
            (Projection::Q, 0),
            (Projection::K, queries),
            (Projection::V, queries + keys),
        ];
        let attention_in = &acts.attention_in[..rows * c];
        linear.backward(&weights.qkv, &parts, attention_in, dqkv, dnormed)?;
        let x = &acts.x[..rows * c];
        rmsnorm::backward(
            pool,
            rows,
            x,
            &weights.attention_norm,
            config.rms_eps,
            dnormed,
            dx,
        )?;
        Ok(())
    }

    /// Through the norms of the heads, in place; nothing without QK-norm.
    fn qk_norm_backward(
        &self,
        layer: usize,
        raw_qkv: &[f32],
        dqkv: &mut [f32],
        dheads: &mut Vec<f32>,
    ) -> Result<()> {
        let config = &self.config;
        let Some((q_norm, k_norm)) = &self.layers[layer].qk_norm else {
            return Ok(());
        };
        let d = config.head_dim;
        let (queries, keys) = (config.heads * d, config.kv_heads * d);
        let width = queries + 2 * keys;
        for (raw, drow) in raw_qkv
            .chunks_exact(width)
            .zip(dqkv.chunks_exact_mut(width))
        {
            for (columns, norm) in [(0..queries, q_norm), (queries..queries + keys, k_norm)] {
                let dheads = fit(dheads, columns.len());
                dheads.fill(0.0);
                let (raw, own) = (&raw[columns.clone()], &mut drow[columns]);
                rmsnorm::backward(
                    &self.pool,
                    own.len() / d,
                    raw,
                    norm,
                    config.rms_eps,
                    own,
                    dheads,
                )?;
                own.copy_from_slice(dheads);
            }
        }
        Ok(())
    }
}

/// What the backward passes of all linear maps of a layer share.
struct Linear<'a> {
    pool: &'a Pool,
    layer: usize,
    adapter: &'a Adapter,
    /// The adapters' inner results of the forward pass.
    inner: &'a [Vec<f32>; 7],
    grads: &'a mut AdapterGrads,
    dinner: &'a mut Vec<f32>,
}

impl Linear<'_> {
    /// `dx` by the input `x` of one (fused) linear map, overwritten; adds to the adapter's gradients.
    fn backward(
        &mut self,
        weights: &Packed,
        parts: &[(Projection, usize)],
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
    ) -> Result<()> {
        let (k, n) = (weights.inputs(), weights.outputs());
        let rows = x.len() / k;
        gemm::backward(self.pool, rows, dy, weights, dx)?;
        for &(projection, first) in parts {
            let pair = self.adapter.pair(self.layer, projection);
            let u = &self.inner[projection as usize][..rows * pair.rank];
            let (da, db) = self.grads.pair(self.layer, projection);
            let du = fit(self.dinner, rows * pair.rank);
            let into = Into {
                du,
                da,
                db,
                dx: &mut *dx,
            };
            let at = Columns { first, ld: n };
            lora::backward(self.pool, rows, &pair, Forward { x, u }, (dy, at), into)?;
        }
        Ok(())
    }
}
