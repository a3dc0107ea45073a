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
use serving::engine::longest_prompt;

use super::workbench::{Control, Workbench};

/// Most tokens of prompt and reply of an operator's request to a host that serves: the plan of its memory has so many. On a folder it is the
/// model's context.
pub const REQUEST_TOKENS: usize = 2048;

/// Where two versions stand.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) local: Local,
    a: Arc<Slot>,
    b: Arc<Slot>,
    /// Most tokens of a prompt and its reply.
    context: usize,
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
    /// # Errors
    /// The model cannot be had.
    pub(crate) fn new(bench: &Workbench) -> anyhow::Result<Self> {
        let loaded = bench.loaded()?;
        let context = match bench.control() {
            Control::Live { .. } => bench.config().engine.context.min(REQUEST_TOKENS),
            Control::Offline => usize::MAX,
        };
        let slot = || Arc::new(Slot::new(Deployed::default()));
        let (a, b) = (slot(), slot());
        let local = Local::new(
            &loaded.name,
            Arc::clone(&loaded.model),
            Arc::clone(&loaded.tokenizer),
            Arc::clone(&loaded.template),
        );
        Ok(Self {
            local: local
                .with_adapter("a".into(), Arc::clone(&a))
                .with_adapter("b".into(), Arc::clone(&b)),
            a,
            b,
            context: context.min(loaded.model.context()),
        })
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
        self.check_text(text)?;
        let ids = self.local.encode(&[Message::user(text)], &[], "")?;
        self.check(ids.len() + 1)?;
        Ok(ids)
    }

    /// The ids of a reply that somebody wrote.
    pub(crate) fn reply(&self, text: &str) -> anyhow::Result<Vec<TokenId>> {
        self.check_text(text)?;
        let ids = self.local.encode_text(text)?;
        anyhow::ensure!(!ids.is_empty(), "the reply is empty");
        Ok(ids)
    }

    /// Refuses a text that is certainly too long before tokens are made of it, which takes a hundred times its memory.
    fn check_text(&self, text: &str) -> anyhow::Result<()> {
        let most = longest_prompt(self.context).bytes;
        anyhow::ensure!(
            text.len() <= most,
            "a text of {} bytes, and {most} are the most that is computed with here",
            text.len()
        );
        Ok(())
    }

    /// Refuses what the host has planned no memory for.
    fn check(&self, tokens: usize) -> anyhow::Result<()> {
        let most = self.context;
        anyhow::ensure!(
            tokens <= most,
            "prompt and reply have {tokens} tokens, and {most} are computed here; on a copy of the folder (--data) the model's context is the limit"
        );
        Ok(())
    }

    /// The most likely reply.
    pub(crate) fn greedy(
        &self,
        place: Place,
        prompt: &[TokenId],
        max_tokens: u32,
    ) -> anyhow::Result<Completion> {
        let room = self.context.saturating_sub(prompt.len());
        let max_tokens = max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX));
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
        self.check(prompt.len() + reply.len())?;
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

#[cfg(test)]
mod tests {
    use super::super::live::tests::bench;
    use super::*;

    #[test]
    fn a_text_that_is_certainly_too_long_is_refused_before_tokens_are_made_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (bench, _) = bench(folder.path());
        let stage = Stage::new(&bench).unwrap();
        let most = longest_prompt(stage.context).bytes;
        let long = "x".repeat(most + 1);
        for refused in [stage.prompt(&long), stage.reply(&long)] {
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.contains(&format!("a text of {} bytes", most + 1)),
                "{refused}"
            );
        }
        assert!(!stage.reply(&long[..10]).unwrap().is_empty());
    }
}
