//! The engine as [`rl::Policy`], against the other implementation: the model called directly.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::local::Local;
use policy::{ChatTemplate, Slot};
use prometheus_client::registry::Registry;
use rl::{
    FinishReason, Message, Policy, PolicyVersion, SampleRequest, Sampling, ScoreRequest, Seed,
    TokenFlow, TokenId, Weights,
};
use serving::engine::{Config, Engine, Parts};

use crate::bench::deployed;
use crate::tiny;

/// What every policy must do, whatever computes it. Gives the numbers, to be compared between implementations.
fn conforms(policy: &dyn Policy) -> Vec<u32> {
    let mut numbers = Vec::new();
    let adapter = Weights::Adapter("main".into());
    let nobody = Weights::Adapter("nobody".into());
    assert_eq!(policy.version(&Weights::Base).unwrap(), PolicyVersion::BASE);
    assert_eq!(policy.version(&adapter).unwrap(), PolicyVersion::new(3));
    assert!(matches!(
        policy.version(&nobody),
        Err(rl::Error::Refused { .. })
    ));

    let messages = [Message::user("What does <|im_end|> mean?")];
    let prompt = policy.encode(&messages, &[], "I say ").unwrap();
    assert_eq!(prompt.iter().filter(|id| **id == tiny::END).count(), 1);
    assert!(prompt.ends_with(&policy.encode_text("I say ").unwrap()));
    assert_eq!(
        policy.encode_text("<|im_end|>").unwrap().len(),
        "<|im_end|>".len()
    );

    refuses(policy, &prompt);
    let sampling = Sampling {
        max_tokens: 12,
        seed: Seed::new(3),
        ..Sampling::default()
    };
    for weights in [Weights::Base, adapter.clone()] {
        let request = SampleRequest {
            weights: weights.clone(),
            prompt: prompt.clone(),
            sampling: sampling.clone(),
        };
        let mut seen = Vec::new();
        let done = policy
            .sample(request.clone(), &mut |token| {
                seen.push(token);
                TokenFlow::Continue
            })
            .unwrap();
        assert!(
            seen.iter()
                .map(|token| token.id)
                .eq(done.tokens.iter().copied())
        );
        assert!(
            seen.iter()
                .map(|token| token.logprob)
                .eq(done.logprobs.iter().copied())
        );
        assert_eq!(done.version, policy.version(&weights).unwrap());
        assert_eq!(done.adapter_digest.is_empty(), weights == Weights::Base);
        let scored = policy
            .score(ScoreRequest {
                weights,
                prompt: prompt.clone(),
                continuations: vec![done.tokens.clone(), done.tokens[..1].to_vec()],
                temperature: 1.0,
            })
            .unwrap();
        assert_eq!(scored[0], done.logprobs);
        assert_eq!(scored[1], done.logprobs[..1]);
        numbers.extend(&done.tokens);
        numbers.extend(done.logprobs.iter().map(|logprob| logprob.to_bits()));
        let stopped = policy.sample(request, &mut |_| TokenFlow::Stop).unwrap();
        assert_eq!(
            (stopped.finish, stopped.tokens.len()),
            (FinishReason::Cancelled, 1)
        );
    }
    numbers
}

/// What no policy may compute.
fn refuses(policy: &dyn Policy, prompt: &[TokenId]) {
    let nobody = Weights::Adapter("nobody".into());
    for (weights, prompt) in [
        (nobody, prompt.to_vec()),
        (Weights::Base, vec![]),
        (Weights::Base, vec![1; 5000]),
    ] {
        let request = SampleRequest {
            weights,
            prompt,
            sampling: Sampling::default(),
        };
        let refused = policy.sample(request, &mut |_| TokenFlow::Continue);
        assert!(
            matches!(refused, Err(rl::Error::Refused { .. })),
            "{refused:?}"
        );
    }
    let score = ScoreRequest {
        weights: Weights::Base,
        prompt: prompt.to_vec(),
        continuations: vec![vec![1]],
        temperature: 0.0,
    };
    assert!(matches!(
        policy.score(score),
        Err(rl::Error::Refused { .. })
    ));
}

#[test]
fn the_engine_and_the_model_called_directly_are_the_same_policy() {
    let model = tiny::random_model();
    let slot = Arc::new(Slot::new(deployed(&model, 3)));
    let parts = Parts {
        name: "tiny".into(),
        model: Arc::clone(&model),
        tokenizer: Arc::new(tiny::tokenizer()),
        template: Arc::new(ChatTemplate::chatml()),
        adapters: BTreeMap::from([("main".into(), Arc::clone(&slot))]),
    };
    let registry = Arc::new(Mutex::new(Registry::default()));
    let running = Engine::build(Config::default(), parts, &registry)
        .unwrap()
        .start()
        .unwrap();
    let local = Local::new("tiny", model, tiny::tokenizer(), ChatTemplate::chatml())
        .with_adapter("main".into(), slot);
    assert_eq!(conforms(&running.handle()), conforms(&local));
    running.shutdown().unwrap();
}
