//! Tokens drawn where the logits are: of a row, a token and its log-prob come to the host. Of tokens that are given, the log-prob.
//!
//! What a sampler does to logits before it draws is the host's: such rows' logits are brought there. Start at [`Drawing::hand_over`].

use super::Cuda;
use super::memory::Grown;
use super::output::inverse;
use crate::error::Result;
use crate::model::serve::Asked;
use crate::sample::{Draw, Drawn};
use kernels::cuda::output::{self, Normalizer, Work};
use kernels::cuda::{View, sample};
use std::ops::Range;

/// What a batch's tokens are drawn with; it stays for the next.
#[derive(Default, Debug)]
pub(crate) struct Drawing {
    /// What was asked last: most requests' settings stay.
    inverses: Vec<f32>,
    inverse: Grown<f32>,
    draws: Grown<Draw>,
    /// Rows that the works are for.
    room: usize,
    works: Option<(sample::Work, Work)>,
    normalizers: Grown<Normalizer>,
    tokens: Grown<u32>,
    log_probs: Grown<f32>,
    /// Tokens that are given.
    known: Vec<u32>,
    found: (Vec<u32>, Vec<f32>),
}

impl Drawing {
    /// Draws what is asked for, and brings the logits that are.
    pub(super) fn hand_over(
        &mut self,
        device: &Cuda,
        vocab: usize,
        logits: View<'_, f32>,
        asked: &Asked,
        drawn: &mut Vec<Drawn>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let (on, rows) = (device.stream(), asked.draws.len());
        drawn.clear();
        if rows > 0 {
            self.draw(device, vocab, logits, asked)?;
        }
        let fetched: usize = asked.fetched.iter().map(Range::len).sum();
        // It never shrinks: what is long enough is not filled again.
        if out.len() < fetched * vocab {
            out.resize(fetched * vocab, 0.0);
        }
        let mut to = &mut out[..];
        for rows in &asked.fetched {
            let (own, rest) = to.split_at_mut(rows.len() * vocab);
            on.read(logits.part(rows.start * vocab..rows.end * vocab)?, own)?;
            to = rest;
        }
        if rows == 0 {
            return Ok(());
        }
        let (tokens, log_probs) = &mut self.found;
        tokens.resize(rows, 0);
        log_probs.resize(rows, 0.0);
        on.read(self.tokens.view()?, tokens)?;
        on.read(self.log_probs.view()?, log_probs)?;
        drawn.extend(
            tokens
                .iter()
                .zip(log_probs)
                .map(|(&token, log_prob)| Drawn {
                    token: ((token as usize) < vocab).then_some(token),
                    log_prob: *log_prob,
                }),
        );
        Ok(())
    }

    /// Queues the draws.
    fn draw(
        &mut self,
        device: &Cuda,
        vocab: usize,
        logits: View<'_, f32>,
        Asked { draws, given, .. }: &Asked,
    ) -> Result<()> {
        let (on, gpu, rows) = (device.stream(), device.gpu(), draws.len());
        // The most likely token has no distribution of its own: temperature 1, as in training.
        let of = |draw: &Draw| match draw.temperature {
            0.0 => inverse(1.0),
            other => inverse(other),
        };
        let inverses = draws.iter().map(of).collect::<Result<Vec<f32>>>()?;
        if self.inverses != inverses {
            device.put(&inverses, &mut self.inverse)?;
            self.inverses = inverses;
        }
        device.put(draws, &mut self.draws)?;
        let (mut drawing, mut work) = match self.works.take() {
            Some(works) if self.room >= rows => works,
            _ => {
                self.room = rows.next_power_of_two();
                let drawing = sample::Work::new(on, self.room, vocab)?;
                (drawing, Work::new(gpu, self.room, vocab, self.room)?)
            }
        };
        let (inverse, draws) = (self.inverse.view()?, self.draws.view()?);
        let tokens = &mut self.tokens.fit(device, rows)?;
        if given.iter().any(Option::is_none) {
            sample::draw(on, logits, draws, &mut drawing, tokens)?;
        }
        let mut place = 0;
        for run in given.chunk_by(|a, b| a.is_some() == b.is_some()) {
            let own = place..place + run.len();
            place = own.end;
            self.known.clear();
            self.known.extend(run.iter().flatten());
            if !self.known.is_empty() {
                on.write(&self.known, &mut tokens.part(own)?)?;
            }
        }
        let normalizers = &mut self.normalizers.fit(device, rows)?;
        output::normalizers(on, logits, vocab, inverse, &mut work, normalizers)?;
        self.works = Some((drawing, work));
        let log_probs = &mut self.log_probs.fit(device, rows)?;
        let norms = normalizers.as_view();
        let tokens = tokens.as_view();
        output::log_probs_of_drawn(on, logits, vocab, norms, inverse, tokens, log_probs)?;
        Ok(())
    }
}
