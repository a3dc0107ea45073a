//! The model called directly keeps to what [`rl::Policy`] promises.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use policy::{Adapter, Checkpoint, Deployed, Dtype, Local, Model, Pool, Slot, Tape, Target};
use rl::{
    AdapterName, Completion, Error, FinishReason, Message, Policy, PolicyVersion, SampleRequest,
    SampledToken, Sampling, ScoreRequest, Seed, TokenFlow, TokenId, Weights,
};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-llama")
}

fn model() -> Arc<Model> {
    let pool = Arc::new(Pool::new(2).unwrap());
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    Arc::new(Model::load(&checkpoint, Dtype::F32, pool).unwrap())
}

fn local(model: &Arc<Model>) -> Local {
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    let (tokenizer, template) = (
        checkpoint.tokenizer().unwrap(),
        checkpoint.template().unwrap(),
    );
    Local::new("tiny", Arc::clone(model), tokenizer, template)
}

/// An adapter that changes what the model says.
fn adapter(model: &Model) -> Arc<Adapter> {
    let mut adapter = Adapter::init(model.config(), 4, 8.0, 1).unwrap();
    adapter.update(|params| {
        for (i, p) in params.iter_mut().enumerate() {
            *p += [0.02, -0.01, 0.03][i % 3];
        }
    });
    Arc::new(adapter)
}

fn request(weights: Weights, seed: u64) -> SampleRequest {
    let sampling = Sampling {
        seed: Seed::new(seed),
        max_tokens: 24,
        temperature: 0.7,
        ..Sampling::default()
    };
    SampleRequest {
        weights,
        prompt: vec![5, 6, 7, 8],
        sampling,
    }
}

fn sample(policy: &Local, request: SampleRequest) -> rl::Result<Completion> {
    policy.sample(request, &mut |_| TokenFlow::Continue)
}

fn main_weights() -> Weights {
    Weights::Adapter(AdapterName::from("main"))
}

#[test]
fn recorded_log_probs_are_those_of_scoring_and_of_training_bit_for_bit() {
    let model = model();
    let slot = Slot::new(Deployed {
        version: PolicyVersion::new(4),
        adapter: Some(adapter(&model)),
    });
    let policy = local(&model).with_adapter("main".into(), Arc::new(slot));
    for weights in [Weights::Base, main_weights()] {
        let done = sample(&policy, request(weights.clone(), 1)).unwrap();
        let prompt = request(Weights::Base, 0).prompt;
        let scored = policy.score(ScoreRequest {
            weights: weights.clone(),
            prompt: prompt.clone(),
            continuations: vec![vec![1, 2], done.tokens.clone(), vec![]],
            temperature: 0.7,
        });
        let scored = scored.unwrap();
        assert_eq!((scored[0].len(), scored[2].len()), (2, 0));
        assert_eq!(scored[1], done.logprobs);
        let tokens: Vec<TokenId> = prompt.iter().chain(&done.tokens).copied().collect();
        let targets: Vec<Target> = done
            .tokens
            .iter()
            .enumerate()
            .map(|(t, token)| Target {
                row: prompt.len() - 1 + t,
                token: *token,
            })
            .collect();
        let held = (weights == main_weights()).then(|| adapter(&model));
        let trained =
            model.train_forward(&mut Tape::new(), held.as_deref(), &tokens, &targets, 0.7);
        assert_eq!(trained.unwrap(), done.logprobs);
    }
}

#[test]
fn a_long_prompt_and_a_long_continuation_give_the_same_bits_as_short_ones() {
    let policy = local(&model());
    let long: Vec<TokenId> = (0..400).map(|i| (i * 7 + 3) % 250).collect();
    let score = |cut: usize| {
        let request = ScoreRequest {
            weights: Weights::Base,
            prompt: long[..cut].to_vec(),
            continuations: vec![long[cut..].to_vec()],
            temperature: 1.0,
        };
        policy.score(request).unwrap().remove(0)
    };
    let whole = score(1);
    for cut in [2, 63, 64, 65, 256, 257, 399] {
        assert_eq!(score(cut), whole[cut - 1..], "cut at {cut}");
    }
}

#[test]
fn a_seed_decides_the_reply_and_on_token_sees_all_of_it() {
    let policy = local(&model());
    let mut seen: Vec<SampledToken> = Vec::new();
    let first = policy.sample(request(Weights::Base, 1), &mut |token| {
        seen.push(token);
        TokenFlow::Continue
    });
    let first = first.unwrap();
    assert_eq!(
        seen.iter().map(|token| token.id).collect::<Vec<_>>(),
        first.tokens
    );
    assert_eq!(sample(&policy, request(Weights::Base, 1)).unwrap(), first);
    assert_ne!(
        sample(&policy, request(Weights::Base, 2)).unwrap().tokens,
        first.tokens
    );
    assert!((1..=24).contains(&first.tokens.len()));
}

#[test]
fn a_caller_that_goes_away_ends_the_reply() {
    let policy = local(&model());
    let done = policy
        .sample(request(Weights::Base, 1), &mut |_| TokenFlow::Stop)
        .unwrap();
    assert_eq!(
        (done.tokens.len(), done.finish),
        (1, FinishReason::Cancelled)
    );
}

#[test]
fn replies_end_at_the_stop_token_a_stop_text_or_the_limit() {
    let policy = local(&model());
    // A bias beyond every logit makes the draw certain.
    let forced = |id: TokenId, stop: &[&str]| {
        let mut request = request(Weights::Base, 1);
        request.sampling.logit_bias = vec![(id, 1e6)];
        request.sampling.max_tokens = 3;
        request.sampling.stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
        sample(&policy, request).unwrap()
    };
    let ended = forced(257, &[]);
    assert_eq!(
        (ended.tokens.as_slice(), ended.text.as_str()),
        (&[257][..], "")
    );
    assert_eq!(ended.finish, FinishReason::Stop);
    let id = policy.encode_text("a").unwrap()[0];
    let limited = forced(id, &[]);
    assert_eq!(
        (limited.text.as_str(), limited.finish),
        ("aaa", FinishReason::Length)
    );
    let stopped = forced(id, &["aa"]);
    assert_eq!(
        (stopped.text.as_str(), stopped.finish),
        ("", FinishReason::Stop)
    );
    assert_eq!(
        stopped.tokens,
        [id, id],
        "what was sampled is kept, what is shown is cut"
    );
}

#[test]
fn a_new_version_in_the_slot_answers_the_next_request() {
    let model = model();
    let slot = Arc::new(Slot::default());
    let policy = local(&model).with_adapter("main".into(), Arc::clone(&slot));
    let before = sample(&policy, request(main_weights(), 1)).unwrap();
    assert_eq!(
        (before.version, before.adapter_digest.as_str()),
        (PolicyVersion::BASE, "")
    );
    let next = adapter(&model);
    slot.publish(Deployed {
        version: PolicyVersion::new(7),
        adapter: Some(Arc::clone(&next)),
    });
    assert_eq!(
        policy.version(&main_weights()).unwrap(),
        PolicyVersion::new(7)
    );
    let after = sample(&policy, request(main_weights(), 1)).unwrap();
    assert_eq!(
        (after.version, after.adapter_digest),
        (PolicyVersion::new(7), next.digest())
    );
    assert_ne!(after.logprobs[0].to_bits(), before.logprobs[0].to_bits());
    assert_eq!(
        sample(&policy, request(Weights::Base, 1)).unwrap().tokens,
        before.tokens
    );
}

#[test]
fn message_texts_are_data_and_the_prefix_begins_the_reply() {
    let policy = local(&model());
    let messages = [Message::user("<|im_end|>")];
    let plain = policy.encode(&messages, &[], "").unwrap();
    assert_eq!(plain.iter().filter(|id| **id == 257).count(), 1);
    let prefixed = policy.encode(&messages, &[], "Yes").unwrap();
    assert_eq!(prefixed[..plain.len()], plain);
    assert_eq!(prefixed[plain.len()..], policy.encode_text("Yes").unwrap());
    assert!(!policy.encode_text("<|im_end|>").unwrap().contains(&257));
    assert_eq!(policy.encode_prompt("<|im_end|>").unwrap(), [257]);
}

#[test]
fn what_cannot_be_done_is_refused_in_words() {
    let policy = local(&model());
    let score = |prompt: &[TokenId], asked: &[TokenId], temperature| {
        let (prompt, continuations) = (prompt.to_vec(), vec![asked.to_vec()]);
        policy
            .score(ScoreRequest {
                weights: Weights::Base,
                prompt,
                continuations,
                temperature,
            })
            .unwrap_err()
    };
    let with = |change: fn(&mut SampleRequest)| {
        let mut request = request(Weights::Base, 1);
        change(&mut request);
        sample(&policy, request).unwrap_err()
    };
    for (error, says) in [
        (score(&[], &[1], 1.0), "the prompt holds no token"),
        (score(&[1], &[2], 0.0), "temperature is 0"),
        (score(&[1], &[2], f32::NAN), "temperature is NaN"),
        (score(&[1], &[264], 1.0), "token 264"),
        (score(&[264], &[1], 1.0), "token 264"),
        (score(&[1; 300], &[1; 300], 1.0), "context of 512"),
        (with(|r| r.prompt.clear()), "no token"),
        (
            with(|r| r.prompt = vec![1; 512]),
            "no room in a context of 512",
        ),
        (with(|r| r.sampling.top_p = 0.0), "top-p"),
        (
            with(|r| r.weights = Weights::Adapter("none".into())),
            "there is no adapter none",
        ),
    ] {
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(
            error.to_string().contains(says),
            "{error} does not say: {says}"
        );
    }
    assert!(policy.version(&Weights::Adapter("none".into())).is_err());
}
