//! The hand-written backward pass: from gradients of log-probs to gradients of an adapter.
//!
//! The base weights are frozen and have no gradient buffers. Each layer's intermediate results come from the tape or are
//! computed again from its input; names are those of [`super::block::Activations`] with a `d` in front.

use crate::adapter::{Adapter, AdapterGrads};
use crate::config::ModelConfig;
use crate::device::{Attended, Cpu, Map, Site, Trains, Turn};
use crate::error::{Error, Result};
use crate::model::block::{self, Activations, Room};
use crate::model::train::{Asked, Buffers, Forest, Tape};
use crate::model::weights::on;
use crate::model::{Model, Net};

/// Gradients that flow, and work space.
#[derive(Debug)]
pub(crate) struct Gradients<D: Trains> {
    /// (N, C) by the layer's output, in the end by its input.
    dx: D::Wide,
    /// (N, C) by a norm's result.
    dnormed: D::Wide,
    /// (N, F).
    dgated: D::Wide,
    /// (N, 2F).
    pub(super) dgate_up: D::Narrow,
    /// (N, H·D).
    dattended: D::Wide,
    /// (N, (H + 2K)·D).
    dqkv: D::Narrow,
    /// `dx` as an operand.
    narrow: D::Narrow,
    space: D::Space,
}

impl<D: Trains> Default for Gradients<D> {
    fn default() -> Self {
        Gradients {
            dx: D::Wide::default(),
            dnormed: D::Wide::default(),
            dgated: D::Wide::default(),
            dgate_up: D::Narrow::default(),
            dattended: D::Wide::default(),
            dqkv: D::Narrow::default(),
            narrow: D::Narrow::default(),
            space: D::Space::default(),
        }
    }
}

impl Gradients<Cpu> {
    /// But `dgate_up`, which changes places with a layer's and therefore lies among those.
    pub(crate) fn sizes(&mut self, config: &ModelConfig, rows: usize) -> [Room<'_>; 5] {
        let queries = config.heads * config.head_dim;
        let qkv = queries + 2 * config.kv_heads * config.head_dim;
        [
            (&mut self.dx, rows * config.hidden),
            (&mut self.dnormed, rows * config.hidden),
            (&mut self.dgated, rows * config.ffn),
            (&mut self.dattended, rows * queries),
            (&mut self.dqkv, rows * qkv),
        ]
    }
}

impl Model {
    /// Adds the gradients of `Σ dlog_probs[i] · log_prob[i]` by the adapter's parameters to `grads`.
    ///
    /// The tape is that of the last [`Model::train_pack`] or [`Model::train_forward`], with the same adapter. Lets serving take its turn after
    /// every layer.
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
        on!(self, net => net.backward(tape, adapter, dlog_probs, grads))
    }
}

impl<D: Trains> Net<D> {
    fn backward(
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
                found: grads.count() as f64,
                rule,
            });
        }
        let (buffers, asked) = self.device.tape(tape);
        if dlog_probs.len() != asked.targets.len() {
            let expected = asked.targets.len();
            return Err(Error::Gradients {
                found: dlog_probs.len(),
                expected,
            });
        }
        if asked.rows == 0 || dlog_probs.iter().all(|g| *g == 0.0) {
            return Ok(());
        }
        let device = &self.device.background();
        device.settle_gradients(&self.config, asked.rows, &mut buffers.grads);
        let mut turn = device.enter();
        self.output_backward(device, buffers, asked, dlog_probs, &mut turn)?;
        let mut plan = std::mem::take(&mut buffers.plan);
        let mut caches = std::mem::take(&mut buffers.caches);
        let mut batch = Forest {
            nodes: &asked.nodes,
            caches: &mut caches,
            adapter: Some(adapter),
        };
        device.plan(&self.config, &batch, &[], &mut plan)?;
        let mut sums = device.open(grads)?;
        for layer in (0..self.layers.len()).rev() {
            turn.breathe();
            let at = self.lone_site(&plan, layer);
            self.layer_backward(device, buffers, asked, at, &mut batch, &mut sums)?;
        }
        (buffers.caches, buffers.plan) = (caches, plan);
        Ok(())
    }

    /// From the log-probs to `dx` of the last layer's output.
    fn output_backward(
        &self,
        device: &D,
        buffers: &mut Buffers<D>,
        asked: &Asked,
        dlog_probs: &[f32],
        turn: &mut D::Turn<'_>,
    ) -> Result<()> {
        let c = self.config.hidden;
        let Gradients {
            dx,
            dnormed,
            dattended: dhidden,
            ..
        } = &mut buffers.grads;
        let upstream: Vec<f32> = asked.order.iter().map(|&i| dlog_probs[i]).collect();
        device.log_probs_backward(
            turn,
            &buffers.normed,
            self.output(),
            &asked.targets,
            &upstream,
            &mut buffers.output,
            dnormed,
        )?;
        device.zeros(asked.answering.len() * c, dhidden)?;
        device.norm_backward(&self.config, &buffers.hidden, &self.norm, dnormed, dhidden)?;
        device.scatter(c, dhidden, &asked.answering, asked.rows, dx)
    }

    /// One layer: `dx` by its output becomes `dx` by its input.
    fn layer_backward(
        &self,
        device: &D,
        buffers: &mut Buffers<D>,
        asked: &Asked,
        at: Site<'_, D>,
        batch: &mut Forest<'_, D>,
        sums: &mut D::Grads<'_>,
    ) -> Result<()> {
        let x = &buffers.inputs[at.layer];
        let acts = &mut buffers.acts[asked.place(at.layer)];
        if at.layer < asked.kept {
            recompute(device, at, batch, x, acts)?;
        }
        let Some(adapter) = batch.adapter else {
            return Ok(());
        };
        feed_forward_backward(device, at, adapter, acts, &mut buffers.grads, sums)?;
        attention_backward(
            device,
            at,
            adapter,
            batch,
            x,
            acts,
            &mut buffers.grads,
            sums,
        )
    }
}

/// A layer's intermediate results, computed again from its input.
fn recompute<D: Trains>(
    device: &D,
    at: Site<'_, D>,
    batch: &mut Forest<'_, D>,
    x: &D::Wide,
    acts: &mut Activations<D>,
) -> Result<()> {
    block::attend(device, at, batch, x, acts)?;
    block::gate(device, at, batch, acts)?;
    match batch.adapter {
        // The product of `down` itself is not needed, but its adapter's inner result is.
        Some(adapter) => {
            let inner = &mut acts.inner;
            device.inner(at, Map::Down, adapter, &acts.gated, inner)
        }
        None => Ok(()),
    }
}

fn feed_forward_backward<D: Trains>(
    device: &D,
    at: Site<'_, D>,
    adapter: &Adapter,
    acts: &mut Activations<D>,
    grads: &mut Gradients<D>,
    sums: &mut D::Grads<'_>,
) -> Result<()> {
    let Gradients {
        dx,
        dnormed,
        dgated,
        dgate_up,
        narrow,
        space,
        ..
    } = grads;
    let (x, inner) = (&acts.gated, &acts.inner);
    let dy = device.operand(dx, narrow)?;
    device.linear_backward(at, Map::Down, adapter, x, inner, dy, dgated, sums, space)?;
    device.swiglu_backward(at.config.ffn, &mut acts.gate_up, dgated, dgate_up)?;
    let (x, dy) = (&acts.ffn_in, &*dgate_up);
    device.linear_backward(at, Map::GateUp, adapter, x, inner, dy, dnormed, sums, space)?;
    device.norm_backward(at.config, &acts.mid, &at.weights.ffn_norm, dnormed, dx)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two halves of a layer's gradient take the same parts"
)]
fn attention_backward<D: Trains>(
    device: &D,
    at: Site<'_, D>,
    adapter: &Adapter,
    batch: &mut Forest<'_, D>,
    input: &D::Wide,
    acts: &Activations<D>,
    grads: &mut Gradients<D>,
    sums: &mut D::Grads<'_>,
) -> Result<()> {
    let Gradients {
        dx,
        dnormed,
        dattended,
        dqkv,
        narrow,
        space,
        ..
    } = grads;
    let (x, inner) = (&acts.attended, &acts.inner);
    let dy = device.operand(dx, narrow)?;
    device.linear_backward(at, Map::O, adapter, x, inner, dy, dattended, sums, space)?;
    let forward = Attended {
        placed: (&acts.qkv, &acts.beside),
        out: &acts.attended,
        marks: &acts.marks,
        dout: dattended,
    };
    device.attend_backward(at, batch, forward, dqkv, space)?;
    let (x, dy) = (&acts.attention_in, &*dqkv);
    device.linear_backward(at, Map::Qkv, adapter, x, inner, dy, dnormed, sums, space)?;
    device.norm_backward(at.config, input, &at.weights.attention_norm, dnormed, dx)
}
