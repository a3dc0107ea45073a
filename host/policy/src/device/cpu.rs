//! The CPU: rows are plain vectors, every operation one of [`kernels`] on the threads of a pool.

mod gradients;
mod parts;

use super::{Device, Map, Sequences, Site, Span, Turn};
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kv::Kv;
use crate::model::{Scratch, serve};
use crate::sample::{Draw, Drawn, Picker};
use kernels::attention::{self, Queries, Rows};
use kernels::rope::Table;
use kernels::softmax::{self, Normalizer};
use kernels::{Dtype, KvCache, Packed, Pool, Slice};
use kernels::{embed, gemm, lora, rmsnorm, rope, swiglu};
use std::cell::RefCell;
use std::sync::Arc;

pub(crate) use kernels::Buffer as Numbers;
pub(crate) use parts::Inner;
use parts::{emptied, segments_of, widths, write};

/// The threads that compute.
#[derive(Clone, Debug)]
pub(crate) struct Cpu(pub(crate) Arc<Pool>);

impl Turn for Slice<'_> {
    fn breathe(&mut self) {
        Slice::breathe(self);
    }
}

impl Device for Cpu {
    const TRIMS: bool = true;
    type Wide = Numbers;
    type Narrow = Numbers;
    type Inner = Inner;
    type Matrix = Packed;
    type Vector = Vec<f32>;
    type Angles = Table;
    type Cache = KvCache;
    type Plan = ();
    type Steps = ();
    type Drawing = ();
    type Marks = ();
    type Turn<'a> = Slice<'a>;

    fn enter(&self) -> Slice<'_> {
        self.0.enter()
    }

    fn matrix(&self, parts: &[&[f32]], inputs: usize, dtype: Dtype) -> Result<Packed> {
        Ok(Packed::pack(&self.0, parts, inputs, dtype)?)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn angles(&self, table: Table) -> Result<Table> {
        Ok(table)
    }

    fn bytes(matrix: &Packed) -> usize {
        matrix.bytes()
    }

    fn prepare(&self, _: &Adapter) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()> {
        kv.host_mut()?.reserve(tokens);
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached(kv: &Kv) -> &KvCache {
        kv.host().expect("it was adopted")
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached_mut(kv: &mut Kv) -> &mut KvCache {
        kv.host_mut().expect("it was adopted")
    }

    fn scratch<'a>(
        &self,
        scratch: &'a mut Scratch,
    ) -> (&'a mut serve::Buffers<Cpu>, &'a mut serve::Results) {
        (&mut scratch.cpu, &mut scratch.results)
    }

    fn settle(&self, config: &ModelConfig, rows: usize, buffers: &mut serve::Buffers<Cpu>) {
        Numbers::side_by_side(&mut buffers.sizes(config, rows));
    }

    fn plan<S: Sequences<Cpu>>(
        &self,
        _: &ModelConfig,
        _: &S,
        _: &[u32],
        (): &mut (),
    ) -> Result<()> {
        Ok(())
    }

    fn step(
        &self,
        _: bool,
        (): &(),
        (): &mut (),
        mut work: impl FnMut(&Cpu) -> Result<()>,
    ) -> Result<()> {
        work(self)
    }

    fn embed(&self, table: &Packed, tokens: &[u32], (): &(), out: &mut Numbers) -> Result<()> {
        let out = out.fit(tokens.len() * table.inputs());
        Ok(embed::forward(&self.0, table, tokens, out)?)
    }

    fn norm(
        &self,
        config: &ModelConfig,
        x: &Numbers,
        weight: &Vec<f32>,
        out: &mut Numbers,
    ) -> Result<()> {
        let rows = x.len() / config.hidden;
        let out = out.fit(x.len());
        let eps = config.rms_eps;
        Ok(rmsnorm::forward(&self.0, rows, x, weight, eps, out)?)
    }

    fn linear<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        batch: &S,
        x: &Numbers,
        inner: &mut Inner,
        y: &mut Numbers,
    ) -> Result<()> {
        self.product(at, map, batch, x, None, inner, y)
    }

    fn linear_add<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        batch: &S,
        x: &Numbers,
        residual: &Numbers,
        inner: &mut Inner,
        y: &mut Numbers,
    ) -> Result<()> {
        self.product(at, map, batch, x, Some(residual), inner, y)
    }

    fn place<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &mut S,
        qkv: &mut Numbers,
        raw: &mut Numbers,
    ) -> Result<()> {
        let (pool, config) = (&*self.0, at.config);
        let (queries, keys) = widths(config);
        let width = queries + 2 * keys;
        if let Some((q_norm, k_norm)) = &at.weights.qk_norm {
            raw.fit(qkv.len()).copy_from_slice(qkv);
            for row in qkv.chunks_exact_mut(width) {
                let (q, kv) = row.split_at_mut(queries);
                rmsnorm::in_place(pool, config.heads, q, q_norm, config.rms_eps)?;
                let k = &mut kv[..keys];
                rmsnorm::in_place(pool, config.kv_heads, k, k_norm, config.rms_eps)?;
            }
        }
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            let own = &mut qkv[first * width..][..count * width];
            rope::forward(pool, at.angles, own, width, 0..queries + keys, start)?;
        }
        write(&self.0, at, batch, qkv)
    }

    fn attend<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &S,
        (qkv, _): (&Numbers, &Numbers),
        out: &mut Numbers,
        (): &mut (),
    ) -> Result<()> {
        let (queries, keys) = widths(at.config);
        let width = queries + 2 * keys;
        let q = Queries {
            data: qkv,
            ld: width,
            heads: at.config.heads,
        };
        let rows = |i| {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            Rows {
                cache: batch.cache(i),
                first,
                count,
                start,
            }
        };
        let out = out.fit(qkv.len() / width * queries);
        Ok(attention::forward(
            &self.0,
            at.slot,
            q,
            batch.count(),
            &rows,
            out,
        )?)
    }

    fn swiglu(&self, f: usize, gate_up: &Numbers, out: &mut Numbers) -> Result<()> {
        let rows = gate_up.len() / (2 * f);
        Ok(swiglu::forward(
            &self.0,
            rows,
            f,
            gate_up,
            out.fit(rows * f),
        )?)
    }

    fn gather(
        &self,
        width: usize,
        from: &Numbers,
        rows: &[usize],
        out: &mut Numbers,
    ) -> Result<()> {
        let out = out.fit(rows.len() * width);
        for (to, row) in out.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&from[row * width..][..width]);
        }
        Ok(())
    }

    fn trim(&self, config: &ModelConfig, rows: &[usize], qkv: &mut Numbers) -> Result<()> {
        let (queries, keys) = widths(config);
        let width = queries + 2 * keys;
        for (to, &from) in rows.iter().enumerate() {
            qkv.copy_within(from * width..(from + 1) * width, to * width);
        }
        qkv.fit(rows.len() * width);
        Ok(())
    }

    fn logits(&self, x: &Numbers, w: &Packed, _: &mut Numbers, out: &mut Vec<f32>) -> Result<()> {
        let rows = x.len() / w.inputs();
        out.resize(rows * w.outputs(), 0.0);
        Ok(gemm::forward(&self.0, rows, x, w, out)?)
    }

    fn hand_over(
        &self,
        vocab: usize,
        _: &mut Numbers,
        asked: &serve::Asked,
        (): &mut (),
        drawn: &mut Vec<Drawn>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        drawn.clear();
        drawn.extend(asked.draws.iter().map(|_| Drawn::NONE));
        self.0.each(drawn, &|row, drawn| {
            let fetched = asked.fetched.iter().any(|rows| rows.contains(&row));
            if !fetched {
                let logits = &out[row * vocab..][..vocab];
                *drawn = self.draw(&asked.draws[row], asked.given[row], logits);
            }
        });
        if !drawn.is_empty() {
            // Logits that are asked for lie behind others, of which tokens were drawn.
            let mut place = 0;
            for rows in &asked.fetched {
                out.copy_within(rows.start * vocab..rows.end * vocab, place * vocab);
                place += rows.len();
            }
        }
        Ok(())
    }

    fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer> {
        Ok(softmax::normalizer(&self.0, logits, temperature)?)
    }
}

thread_local! {
    static PICKER: RefCell<Picker> = RefCell::default();
}

impl Cpu {
    fn draw(&self, draw: &Draw, given: Option<u32>, logits: &[f32]) -> Drawn {
        let token = given.or_else(|| PICKER.with_borrow_mut(|picker| picker.pick(draw, logits)));
        // The most likely token has no distribution of its own: temperature 1, as in training.
        let temperature = match draw.temperature {
            0.0 => 1.0,
            other => other,
        };
        let log_prob = match (token, self.normalizer(logits, temperature)) {
            (Some(token), Ok(normalizer)) => normalizer.log_prob(logits[token as usize]),
            _ => f32::NAN,
        };
        Drawn { token, log_prob }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one fused product: operands, adapters, residual, results"
    )]
    fn product<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        batch: &S,
        x: &Numbers,
        residual: Option<&Numbers>,
        inner: &mut Inner,
        y: &mut Numbers,
    ) -> Result<()> {
        let weights = at.matrix(map);
        let (k, n) = (weights.inputs(), weights.outputs());
        let rows = x.len() / k;
        let Inner { of, list } = inner;
        let mut segments = emptied(std::mem::take(list));
        let room = segments_of(at, map, batch, &mut segments);
        let (u, y) = (of[map as usize].fit(room), y.fit(rows * n));
        let residual = residual.map(|residual| &**residual);
        lora::linear(&self.0, rows, x, weights, &segments, residual, u, y)?;
        *list = emptied(segments);
        Ok(())
    }
}
