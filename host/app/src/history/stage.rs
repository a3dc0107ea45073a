//! Versions asked beside each other: their greedy replies, and the log-probs of given ones.
//!
//! Works on the base weights that are in memory and on adapters of its own: nobody who is served notices.

use std::sync::Arc;

use policy::local::Local;
use policy::{Adapter, Deployed, Slot};
use rl::{
    AdapterName, Completion, Message, Policy as _, PolicyVersion, SampleRequest, Sampling,
    ScoreRequest, TokenFlow, TokenId, Weights,
};

use crate::host::Loaded;

/// Where two versions stand.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) local: Local,
    a: Arc<Slot>,
    b: Arc<Slot>,
}

/// One of the two places.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    A,
    B,
}

impl Place {
    pub(crate) fn weights(self) -> Weights {
        Weights::Adapter(AdapterName::from(match self {
            Self::A => "a",
            Self::B => "b",
        }))
    }
}

impl Stage {
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let slot = || Arc::new(Slot::new(Deployed::default()));
        let (a, b) = (slot(), slot());
        let local = Local::new(
            &loaded.name,
            Arc::clone(&loaded.model),
            Arc::clone(&loaded.tokenizer),
            Arc::clone(&loaded.template),
        );
        Self {
            local: local
                .with_adapter("a".into(), Arc::clone(&a))
                .with_adapter("b".into(), Arc::clone(&b)),
            a,
            b,
        }
    }

    /// Puts a version in a place; the base model without one.
    pub(crate) fn put(&self, place: Place, adapter: Option<Arc<Adapter>>) {
        let slot = match place {
            Place::A => &self.a,
            Place::B => &self.b,
        };
        slot.publish(Deployed {
            version: PolicyVersion::BASE,
            adapter,
        });
    }

    /// The ids of a conversation in which the user has said this.
    pub(crate) fn prompt(&self, text: &str) -> anyhow::Result<Vec<TokenId>> {
        Ok(self.local.encode(&[Message::user(text)], &[], "")?)
    }

    /// The ids of a reply that somebody wrote.
    pub(crate) fn reply(&self, text: &str) -> anyhow::Result<Vec<TokenId>> {
        let ids = self.local.encode_text(text)?;
        anyhow::ensure!(!ids.is_empty(), "the reply is empty");
        Ok(ids)
    }

    /// The most likely reply.
    pub(crate) fn greedy(
        &self,
        place: Place,
        prompt: &[TokenId],
        max_tokens: u32,
    ) -> anyhow::Result<Completion> {
        let request = SampleRequest {
            weights: place.weights(),
            prompt: prompt.to_vec(),
            sampling: Sampling {
                temperature: 0.0,
                max_tokens,
                ..Sampling::default()
            },
        };
        Ok(self.local.sample(request, &mut |_| TokenFlow::Continue)?)
    }

    /// The log-probs of a reply's tokens.
    pub(crate) fn logprobs(
        &self,
        place: Place,
        prompt: &[TokenId],
        reply: &[TokenId],
    ) -> anyhow::Result<Vec<f32>> {
        let scored = self.local.score(ScoreRequest {
            weights: place.weights(),
            prompt: prompt.to_vec(),
            continuations: vec![reply.to_vec()],
            temperature: 1.0,
        })?;
        Ok(scored.into_iter().next().unwrap_or_default())
    }
}

/// The mean of log-probs; 0 of none.
pub(crate) fn mean(logprobs: &[f32]) -> f64 {
    if logprobs.is_empty() {
        return 0.0;
    }
    let sum: f64 = logprobs.iter().map(|x| f64::from(*x)).sum();
    sum / logprobs.len() as f64
}
