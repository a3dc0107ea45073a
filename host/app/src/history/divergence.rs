//! How far two versions' distributions are apart along a reply: exact, over the whole vocabulary.

use policy::{Adapter, Kv, Logits, Model, Scratch, Segment};
use rl::TokenId;

use super::response::Divergence;

/// Rows of logits that are held at once: each is as wide as the vocabulary.
const ROWS: usize = 32;

/// KL(a ‖ b) at each token of `reply` after `prompt`, and what b thinks of the reply.
pub(crate) fn divergence(
    model: &Model,
    (a, b): (Option<&Adapter>, Option<&Adapter>),
    prompt: &[TokenId],
    reply: &[TokenId],
) -> anyhow::Result<Option<Divergence>> {
    let (Some((last, before)), false) = (prompt.split_last(), reply.is_empty()) else {
        return Ok(None);
    };
    let (mut in_a, mut in_b) = (Reader::new(model, a), Reader::new(model, b));
    for chunk in before.chunks(ROWS) {
        in_a.read(chunk, Logits::None)?;
        in_b.read(chunk, Logits::None)?;
    }
    let (mut sum, mut most, mut drift) = (0.0f64, 0.0f64, 0.0f64);
    let mut previous = *last;
    for asked in reply.chunks(ROWS) {
        let mut fed = vec![previous];
        fed.extend_from_slice(&asked[..asked.len() - 1]);
        previous = asked[asked.len() - 1];
        in_a.read(&fed, Logits::All)?;
        in_b.read(&fed, Logits::All)?;
        let rows = in_a.scratch.logits(0).zip(in_b.scratch.logits(0));
        for ((row_a, row_b), token) in rows.zip(asked) {
            let (log_a, log_b) = (log_softmax(row_a), log_softmax(row_b));
            let terms = log_a.iter().zip(&log_b);
            // A token that a never says counts for nothing, whatever b thinks of it.
            let kl: f64 = terms
                .filter(|(p, _)| p.is_finite())
                .map(|(p, q)| p.exp() * (p - q))
                .sum();
            // Rounding may leave a little below 0, where the true value cannot be.
            let kl = kl.max(0.0);
            sum += kl;
            most = most.max(kl);
            if let (Some(p), Some(q)) = (log_a.get(*token as usize), log_b.get(*token as usize)) {
                drift += q - p;
            }
        }
    }
    let count = reply.len() as f64;
    Ok(Some(Divergence {
        mean_kl: sum / count,
        max_kl: most,
        logprob_drift: drift / count,
    }))
}

struct Reader<'a> {
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    kv: Kv,
    scratch: Scratch,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model, adapter: Option<&'a Adapter>) -> Self {
        Self {
            model,
            adapter,
            kv: Kv::new(model.config()),
            scratch: Scratch::new(),
        }
    }

    fn read(&mut self, tokens: &[TokenId], logits: Logits) -> anyhow::Result<()> {
        let segment = Segment {
            kv: &mut self.kv,
            tokens,
            adapter: self.adapter,
            logits,
        };
        self.model.forward(&mut self.scratch, &mut [segment])?;
        Ok(())
    }
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = f64::from(most);
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    let normalizer = most + sum.ln();
    row.iter().map(|x| f64::from(*x) - normalizer).collect()
}
