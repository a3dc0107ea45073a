//! The engine, driven one step at a time on the test's own thread: steps are counted, never timed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::{Adapter, ChatTemplate, Deployed, Model, Slot, Tape, Target};
use prometheus_client::registry::Registry;
use rl::{
    AdapterName, FinishReason, PolicyVersion, Sampling, ScoreRequest, Seed, TokenId, Weights,
};
use tokio::sync::{mpsc, oneshot};

use super::run::{Engine, Parts};
use super::worker::Worker;
use super::{Config, EngineHandle, Event, Priority, Refusal, SampleJob, Started, Token};
use crate::engine::queue::Work;

mod on_policy;
mod sharing;
#[path = "../../tests/common/tiny.rs"]
mod tiny;
mod versions;

struct Bench {
    worker: Worker,
    handle: EngineHandle,
    model: Arc<Model>,
    slots: BTreeMap<AdapterName, Arc<Slot>>,
}

/// What a sample job said, start to end.
#[derive(Debug, Default, Clone, PartialEq)]
struct Heard {
    started: Option<Started>,
    tokens: Vec<Token>,
    rest: String,
    finish: Option<FinishReason>,
    failed: Option<Refusal>,
}

impl Heard {
    fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    fn bits(&self) -> Vec<(TokenId, u32)> {
        self.tokens
            .iter()
            .map(|token| (token.id, token.logprob.to_bits()))
            .collect()
    }

    fn text(&self) -> String {
        self.tokens
            .iter()
            .map(|token| token.text.as_str())
            .chain([self.rest.as_str()])
            .collect()
    }
}

struct Listener {
    events: mpsc::UnboundedReceiver<Event>,
    heard: Heard,
}

impl Listener {
    fn listen(&mut self) -> &Heard {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Started(started) => self.heard.started = Some(started),
                Event::Token(token) => self.heard.tokens.push(token),
                Event::Done { finish, text } => {
                    self.heard.finish = Some(finish);
                    self.heard.rest = text;
                }
                Event::Failed(refusal) => self.heard.failed = Some(refusal),
            }
        }
        &self.heard
    }
}

fn noisy_adapter(model: &Model, seed: u64) -> Adapter {
    let mut adapter = Adapter::init(model.config(), 4, 8.0, seed).unwrap();
    adapter.update(|params| {
        for (index, param) in params.iter_mut().enumerate() {
            let noise = Seed::new(seed).derive(&index.to_string()).get() % 1000;
            *param += (noise as f32 / 1000.0 - 0.5) * 0.2;
        }
    });
    adapter
}

fn deployed(model: &Model, version: u64) -> Deployed {
    Deployed {
        version: PolicyVersion::new(version),
        adapter: Some(Arc::new(noisy_adapter(model, version))),
    }
}

impl Bench {
    fn new(config: Config) -> Self {
        let model = tiny::random_model();
        let slots = [("one", 1), ("two", 2)]
            .map(|(name, version)| (name.into(), Arc::new(Slot::new(deployed(&model, version)))))
            .into();
        Self::with(config, model, slots)
    }

    fn with(config: Config, model: Arc<Model>, slots: BTreeMap<AdapterName, Arc<Slot>>) -> Self {
        let parts = Parts {
            name: "tiny".into(),
            model: Arc::clone(&model),
            tokenizer: Arc::new(tiny::tokenizer()),
            template: Arc::new(ChatTemplate::chatml()),
            adapters: slots.clone(),
        };
        let registry = Arc::new(Mutex::new(Registry::default()));
        let engine = Engine::build(config, parts, &registry).unwrap();
        let Engine { worker, handle } = engine;
        Self {
            worker,
            handle,
            model,
            slots,
        }
    }

    fn sample(&self, job: SampleJob) -> Listener {
        self.sample_as(Priority::User, job)
    }

    fn sample_as(&self, priority: Priority, job: SampleJob) -> Listener {
        let permit = self.handle.reserve(priority, &"somebody".into()).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        permit.enqueue(Work::Sample {
            job,
            events: sender,
        });
        Listener {
            events,
            heard: Heard::default(),
        }
    }

    fn score(&self, request: ScoreRequest) -> oneshot::Receiver<Result<Vec<Vec<f32>>, Refusal>> {
        let permit = self
            .handle
            .reserve(Priority::Loop, &"loops".into())
            .unwrap();
        let (sender, answer) = oneshot::channel();
        permit.enqueue(Work::Score {
            request,
            answer: sender,
        });
        answer
    }

    /// Runs to the end of a job; gives what it said and how many steps it took.
    fn finish(&mut self, listener: &mut Listener) -> (Heard, u64) {
        let before = self.handle.stats().steps;
        for _ in 0..100_000 {
            let heard = listener.listen();
            if heard.finish.is_some() || heard.failed.is_some() {
                return (heard.clone(), self.handle.stats().steps - before);
            }
            self.worker.turn();
        }
        panic!("the job does not end");
    }

    fn alone(config: Config, job: SampleJob) -> Heard {
        let mut bench = Self::new(config);
        let mut listener = bench.sample(job);
        bench.finish(&mut listener).0
    }
}

fn prompt(seed: u64, length: u64) -> Vec<TokenId> {
    (0..length)
        .map(|at| (Seed::new(seed).derive(&at.to_string()).get() % 250) as TokenId)
        .collect()
}

/// Never ends before its limit.
fn job(weights: Weights, prompt: Vec<TokenId>, max_tokens: u32, seed: u64) -> SampleJob {
    let sampling = Sampling {
        max_tokens,
        seed: Seed::new(seed),
        logit_bias: vec![(tiny::END, -100.0)],
        ..Sampling::default()
    };
    SampleJob {
        weights,
        bucket: policy::NO_BUCKET,
        prompt,
        sampling,
        top_logprobs: 2,
    }
}

fn adapter(name: &str) -> Weights {
    Weights::Adapter(name.into())
}

#[test]
fn a_batch_of_mixed_adapters_gives_each_request_the_bits_that_it_gets_alone() {
    let jobs: Vec<SampleJob> = [
        (Weights::Base, 300),
        (adapter("one"), 3),
        (adapter("two"), 40),
        (adapter("one"), 129),
        (Weights::Base, 1),
    ]
    .into_iter()
    .zip(0..)
    .map(|((weights, length), seed)| job(weights, prompt(seed, length), 20, seed))
    .collect();
    let config = Config {
        prefill_rows: 32,
        ..Config::default()
    };
    let mut together = Bench::new(config.clone());
    let mut listeners: Vec<_> = jobs
        .iter()
        .map(|job| together.sample(job.clone()))
        .collect();
    let scored = together.score(ScoreRequest {
        weights: adapter("two"),
        prompt: prompt(9, 70),
        continuations: vec![prompt(10, 50)],
        temperature: 0.7,
    });
    for (job, listener) in jobs.into_iter().zip(&mut listeners) {
        let (heard, _) = together.finish(listener);
        let alone = Bench::alone(config.clone(), job);
        assert_eq!(heard.bits(), alone.bits());
        assert_eq!(heard, alone);
        assert_eq!(heard.tokens.len(), 20);
    }
    drop(scored);
    assert!(together.handle.stats().steps < 40);
}

#[test]
fn a_long_prompt_and_a_long_reply_do_not_hold_up_a_short_one() {
    let config = Config {
        prefill_rows: 64,
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    let mut long_reply = bench.sample(job(Weights::Base, prompt(1, 5), 2000, 1));
    let mut long_prompt = bench.sample(job(Weights::Base, prompt(2, 3000), 10, 2));
    bench.worker.turn();
    let mut short = bench.sample(job(adapter("one"), prompt(3, 20), 5, 3));
    let (heard, steps) = bench.finish(&mut short);
    assert_eq!(heard.tokens.len(), 5);
    // One step for its prompt beside half of the budget, and one for each further token.
    assert_eq!(steps, 5);
    assert!(long_prompt.listen().tokens.is_empty());
    assert!(long_reply.listen().finish.is_none());
}

#[test]
fn a_version_published_in_the_middle_of_a_reply_does_not_disturb_it() {
    let wanted = job(adapter("one"), prompt(4, 30), 12, 4);
    let undisturbed = Bench::alone(Config::default(), wanted.clone());
    let mut bench = Bench::new(Config::default());
    let mut listener = bench.sample(wanted.clone());
    for _ in 0..5 {
        bench.worker.turn();
    }
    let slot = &bench.slots[&AdapterName::from("one")];
    slot.publish(deployed(&bench.model, 7));
    let (heard, _) = bench.finish(&mut listener);
    assert_eq!(heard, undisturbed);
    assert_eq!(
        heard.started.as_ref().unwrap().version,
        PolicyVersion::new(1)
    );
    let mut next = bench.sample(wanted);
    let (next, _) = bench.finish(&mut next);
    let started = next.started.clone().unwrap();
    assert_eq!(started.version, PolicyVersion::new(7));
    assert_ne!(
        started.adapter_digest,
        heard.started.clone().unwrap().adapter_digest
    );
    // The old version's keys and values do not serve the new one.
    assert_eq!(started.reused, 0);
    assert_ne!(next.bits(), heard.bits());
}

#[test]
fn no_text_has_fewer_tokens_than_is_reckoned_without_looking_at_it() {
    let bench = Bench::new(Config::default());
    let words = "the cat sat on the mat ".repeat(40);
    for text in [&*words, "a", "", &"ﷺ".repeat(300), &" ".repeat(2000)] {
        let message = rl::Message::new(rl::Role::User, text);
        let tokens = bench.handle.encode_chat(&[message], &[], "").unwrap().len();
        let least = bench.handle.least_tokens(text.len());
        assert!(least <= tokens, "{least} {tokens}");
    }
    assert_eq!(bench.handle.least_tokens(3), 0);
    assert!(
        bench.handle.least_tokens(1 << 20) > 100,
        "a megabyte is too long"
    );
}

#[test]
fn recorded_log_probs_are_those_of_the_training_pass_bit_for_bit() {
    for temperature in [0.0, 1e-39, 0.7, 1.0] {
        let mut job = job(adapter("two"), prompt(5, 150), 25, 5);
        job.sampling.temperature = temperature;
        job.sampling.top_p = 0.8;
        let mut bench = Bench::new(Config::default());
        let mut listener = bench.sample(job.clone());
        let (heard, _) = bench.finish(&mut listener);
        let mut tokens = job.prompt.clone();
        tokens.extend(heard.ids());
        let targets: Vec<Target> = heard
            .ids()
            .iter()
            .zip(job.prompt.len() - 1..)
            .map(|(&token, row)| Target { row, token })
            .collect();
        let loaded = bench.slots[&AdapterName::from("two")].load();
        let recomputed = bench
            .model
            .train_forward(
                &mut Tape::new(),
                loaded.adapter.as_deref(),
                &tokens,
                &targets,
                job.sampling.logprob_temperature(),
            )
            .unwrap();
        let recorded: Vec<u32> = heard.bits().iter().map(|(_, bits)| *bits).collect();
        let trained: Vec<u32> = recomputed.iter().map(|logprob| logprob.to_bits()).collect();
        assert_eq!(recorded, trained, "temperature {temperature}");
    }
}

#[test]
fn scores_are_the_log_probs_that_sampling_recorded() {
    let job = job(adapter("one"), prompt(6, 90), 40, 6);
    let heard = Bench::alone(Config::default(), job.clone());
    for prefill_rows in [7, 128] {
        let mut bench = Bench::new(Config {
            prefill_rows,
            ..Config::default()
        });
        let other = prompt(7, 3);
        let mut answer = bench.score(ScoreRequest {
            weights: adapter("one"),
            prompt: job.prompt.clone(),
            continuations: vec![
                other.clone(),
                vec![],
                heard.ids(),
                heard.ids()[..1].to_vec(),
            ],
            temperature: 1.0,
        });
        let scores = loop {
            bench.worker.turn();
            if let Ok(scores) = answer.try_recv() {
                break scores.unwrap();
            }
        };
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let recorded: Vec<u32> = heard.bits().iter().map(|(_, bits)| *bits).collect();
        assert_eq!(scores[0].len(), other.len());
        assert!(scores[1].is_empty());
        assert_eq!(bits(&scores[2]), recorded);
        assert_eq!(bits(&scores[3]), recorded[..1]);
        assert_eq!(bench.handle.stats().live, 0);
    }
}

#[test]
fn a_common_beginning_is_reused_and_changes_no_bit() {
    let beginning = prompt(8, 200);
    let with_end = |seed: u64| {
        let mut tokens = beginning.clone();
        tokens.extend(prompt(seed, 30));
        job(adapter("one"), tokens, 8, seed)
    };
    let mut reusing = Bench::new(Config::default());
    let mut forgetful = Bench::new(Config {
        prefix_bytes: 0,
        ..Config::default()
    });
    for (round, seed) in [11, 12, 11].into_iter().enumerate() {
        let mut one = reusing.sample(with_end(seed));
        let mut other = forgetful.sample(with_end(seed));
        let (one, _) = reusing.finish(&mut one);
        let (other, _) = forgetful.finish(&mut other);
        assert_eq!(one.bits(), other.bits());
        let reused = one.started.unwrap().reused;
        // Everything but the prompt's last token, whose logits are needed.
        assert_eq!(reused, [0, 200, 229][round]);
        assert_eq!(other.started.unwrap().reused, 0);
    }
    // The base weights and the other adapter share nothing with it.
    for weights in [Weights::Base, adapter("two")] {
        let mut other = reusing.sample(SampleJob {
            weights,
            ..with_end(11)
        });
        assert_eq!(reusing.finish(&mut other).0.started.unwrap().reused, 0);
    }
    assert!(reusing.handle.stats().prefix_bytes > 0);
    assert_eq!(forgetful.handle.stats().prefix_bytes, 0);
}

#[test]
fn a_trial_serves_its_buckets_the_candidate_and_everybody_else_what_is_live() {
    let mut bench = Bench::new(Config::default());
    let live = bench.slots[&AdapterName::from("one")].load();
    let candidate = deployed(&bench.model, 9);
    bench.slots[&AdapterName::from("one")].try_out(candidate.clone(), 0.5);
    let mut seen = Vec::new();
    for bucket in [0, u64::MAX / 4 * 3, policy::NO_BUCKET, 0] {
        let mut listener = bench.sample(SampleJob {
            bucket,
            ..job(adapter("one"), prompt(21, 60), 3, 21)
        });
        seen.push(bench.finish(&mut listener).0);
    }
    let started: Vec<&Started> = seen.iter().filter_map(|h| h.started.as_ref()).collect();
    let versions: Vec<u64> = started.iter().map(|s| s.version.get()).collect();
    assert_eq!(versions, [9, 1, 1, 9]);
    let digest = |deployed: &Deployed| deployed.adapter.as_ref().unwrap().digest();
    assert_eq!(&*started[0].adapter_digest, digest(&candidate));
    assert_eq!(&*started[1].adapter_digest, digest(&live));
    // Neither reads what the other kept, each reads its own.
    let reused: Vec<usize> = started.iter().map(|s| s.reused).collect();
    assert_eq!(reused, [0, 0, 59, 59]);
    assert_eq!(seen[1].bits(), seen[2].bits());
    assert_ne!(seen[0].bits(), seen[1].bits());
}

#[test]
fn what_was_computed_before_forgetting_is_never_reused() {
    let mut bench = Bench::new(Config::default());
    let wanted = job(Weights::Base, prompt(14, 100), 2, 14);
    let mut first = bench.sample(wanted.clone());
    bench.finish(&mut first);
    assert!(bench.handle.stats().prefix_bytes > 0);
    bench.handle.forget_prefixes();
    // An idle engine is woken by the wish alone.
    bench.worker.turn();
    assert_eq!(bench.handle.stats().prefix_bytes, 0);
    // A sequence that runs at that moment ends as usual and leaves nothing behind.
    let mut running = bench.sample(wanted.clone());
    bench.worker.turn();
    bench.handle.forget_prefixes();
    let (running, _) = bench.finish(&mut running);
    assert_eq!(running.tokens.len(), 2);
    assert_eq!(bench.handle.stats().prefix_bytes, 0);
    let mut again = bench.sample(wanted);
    let (again, _) = bench.finish(&mut again);
    assert_eq!(again.started.as_ref().unwrap().reused, 0);
    assert_eq!(again.bits(), running.bits());
}

#[test]
fn another_tenants_beginning_is_never_reused() {
    let mut bench = Bench::new(Config::default());
    let wanted = job(Weights::Base, prompt(13, 100), 2, 13);
    let mut first = bench.sample(wanted.clone());
    bench.finish(&mut first);
    let permit = bench
        .handle
        .reserve(Priority::User, &"somebody else".into())
        .unwrap();
    let (sender, events) = mpsc::unbounded_channel();
    permit.enqueue(Work::Sample {
        job: wanted,
        events: sender,
    });
    let mut other = Listener {
        events,
        heard: Heard::default(),
    };
    assert_eq!(bench.finish(&mut other).0.started.unwrap().reused, 0);
}

#[test]
fn a_caller_that_goes_away_frees_its_place_within_one_step() {
    let mut bench = Bench::new(Config {
        max_sequences: 1,
        ..Config::default()
    });
    let gone = bench.sample(job(Weights::Base, prompt(14, 10), 3000, 14));
    bench.worker.turn();
    bench.worker.turn();
    let mut waiting = bench.sample(job(Weights::Base, prompt(15, 10), 2, 15));
    bench.worker.turn();
    assert!(waiting.listen().started.is_none());
    drop(gone);
    bench.worker.turn();
    assert_eq!(waiting.listen().tokens.len(), 1);
    let stats = bench.handle.stats();
    assert_eq!((stats.cancelled, stats.live), (1, 1));
}

#[test]
fn memory_for_keys_and_values_stays_within_its_budget_and_everybody_is_served() {
    // A block of 32 tokens of this model is 8 KiB.
    let config = Config {
        kv_bytes: 64 << 10,
        prefix_bytes: 16 << 10,
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    assert_eq!(bench.handle.card().context, 256);
    let mut listeners: Vec<_> = (0..10)
        .map(|seed| bench.sample(job(Weights::Base, prompt(seed, 60), 60, seed)))
        .collect();
    let mut most = 0;
    for listener in &mut listeners {
        while listener.listen().finish.is_none() {
            bench.worker.turn();
            let stats = bench.handle.stats();
            most = most.max(stats.live);
            assert!(stats.kv_bytes <= 64 << 10, "{stats:?}");
            assert!(stats.prefix_bytes <= 16 << 10, "{stats:?}");
        }
    }
    assert_eq!(most, 2);
    let too_long = bench.handle.room_for(256).unwrap_err();
    assert_eq!(
        too_long,
        Refusal::PromptTooLong {
            prompt: 256,
            context: 256
        }
    );
}

#[test]
fn users_are_served_before_loops_and_loops_keep_their_places() {
    let config = Config {
        max_sequences: 4,
        max_loop_sequences: 2,
        ..Config::default()
    };
    let mut bench = Bench::new(config);
    let work = |seed| job(Weights::Base, prompt(seed, 10), 50, seed);
    let mut loops: Vec<_> = (20..23)
        .map(|seed| bench.sample_as(Priority::Loop, work(seed)))
        .collect();
    let mut users: Vec<_> = (30..32).map(|seed| bench.sample(work(seed))).collect();
    bench.worker.turn();
    assert!(users.iter_mut().all(|user| user.listen().started.is_some()));
    let started = loops
        .iter_mut()
        .filter_map(|work| work.listen().started.clone())
        .count();
    assert_eq!(started, 2);
}

#[test]
fn a_reply_ends_at_the_end_token_at_a_stop_text_and_at_the_context() {
    let mut bench = Bench::new(Config {
        context: 64,
        ..Config::default()
    });
    let mut ends = job(Weights::Base, prompt(16, 10), 30, 16);
    ends.sampling.logit_bias = vec![(tiny::END, 100.0)];
    let mut listener = bench.sample(ends);
    let (heard, _) = bench.finish(&mut listener);
    assert_eq!(heard.ids(), [tiny::END]);
    assert!(heard.tokens[0].is_stop && heard.text().is_empty());
    assert_eq!(heard.finish, Some(FinishReason::Stop));

    let mut says_ab = job(Weights::Base, prompt(17, 10), 30, 17);
    says_ab.sampling.logit_bias = vec![(u32::from(b'a'), 100.0)];
    says_ab.sampling.stop = vec!["aaaa".into()];
    let mut listener = bench.sample(says_ab.clone());
    let (heard, _) = bench.finish(&mut listener);
    assert_eq!((heard.ids().len(), heard.text().as_str()), (4, ""));
    assert_eq!(heard.finish, Some(FinishReason::Stop));

    says_ab.sampling.stop = vec!["b".into()];
    says_ab.sampling.max_tokens = 1000;
    let mut listener = bench.sample(says_ab);
    let (heard, _) = bench.finish(&mut listener);
    assert_eq!((heard.ids().len(), heard.text()), (54, "a".repeat(54)));
    assert_eq!(heard.finish, Some(FinishReason::Length));
}

#[test]
fn a_request_that_cannot_be_computed_is_refused_and_the_others_go_on() {
    let mut bench = Bench::new(Config {
        context: 64,
        ..Config::default()
    });
    let mut good = bench.sample(job(Weights::Base, prompt(18, 5), 3, 18));
    let refused = [
        job(Weights::Base, vec![], 3, 0),
        job(Weights::Base, prompt(1, 64), 3, 0),
        job(Weights::Base, vec![100_000], 3, 0),
        job(adapter("nobody"), vec![1], 3, 0),
        {
            let mut job = job(Weights::Base, vec![1], 3, 0);
            job.sampling.temperature = f32::NAN;
            job
        },
    ];
    for job in refused {
        let mut listener = bench.sample(job);
        let (heard, _) = bench.finish(&mut listener);
        assert!(heard.failed.is_some(), "{heard:?}");
    }
    let score = |prompt: Vec<TokenId>, continuation: Vec<TokenId>, temperature| ScoreRequest {
        weights: Weights::Base,
        prompt,
        continuations: vec![continuation],
        temperature,
    };
    for request in [
        score(vec![], vec![1], 1.0),
        score(vec![1], vec![999_999], 1.0),
        score(vec![1], prompt(1, 64), 1.0),
        score(vec![1], vec![1], 0.0),
    ] {
        let mut answer = bench.score(request);
        let _keeps_the_engine_busy = bench.sample(job(Weights::Base, vec![1], 3, 0));
        bench.worker.turn();
        assert!(answer.try_recv().unwrap().is_err());
    }
    assert_eq!(bench.finish(&mut good).0.tokens.len(), 3);
}

#[test]
fn a_panic_fails_what_runs_and_the_engine_serves_on() {
    let mut bench = Bench::new(Config::default());
    let mut steps = 0;
    bench.worker.before_step = Some(Box::new(move || {
        steps += 1;
        assert!(steps != 3, "a test said so");
    }));
    let handle = bench.handle.clone();
    let thread = std::thread::spawn(move || bench.worker.run());
    let last = |max_tokens| {
        let permit = handle.reserve(Priority::User, &"somebody".into()).unwrap();
        let mut stream = permit.submit(job(Weights::Base, vec![1, 2, 3], max_tokens, 1));
        std::iter::from_fn(|| stream.blocking_next())
            .last()
            .unwrap()
    };
    let why = "a test said so".to_owned();
    assert_eq!(last(3000), Event::Failed(Refusal::Stopped { why }));
    assert!(matches!(
        last(3),
        Event::Done {
            finish: FinishReason::Length,
            ..
        }
    ));
    handle.inner.queue.drain();
    thread.join().unwrap().unwrap();
    let refusal = handle
        .reserve(Priority::User, &"somebody".into())
        .unwrap_err();
    assert!(matches!(refusal, Refusal::Stopped { .. }));
}

#[test]
fn an_engine_that_only_panics_gives_up_and_says_why() {
    let mut bench = Bench::new(Config::default());
    let mut steps = 0;
    bench.worker.before_step = Some(Box::new(move || {
        steps += 1;
        assert!(steps < 3, "a test said so");
    }));
    let handle = bench.handle.clone();
    let permit = handle.reserve(Priority::User, &"somebody".into()).unwrap();
    let mut stream = permit.submit(job(Weights::Base, vec![1, 2, 3], 3000, 1));
    let waiting = handle.reserve(Priority::User, &"somebody".into()).unwrap();
    let waiting = std::thread::spawn(move || {
        // Comes in after the first panic, as a client that tries again.
        let events: Vec<Event> = std::iter::from_fn(|| stream.blocking_next()).collect();
        let mut next = waiting.submit(job(Weights::Base, vec![1], 3, 1));
        let more: Vec<Event> = std::iter::from_fn(|| next.blocking_next()).collect();
        (events, more)
    });
    let ended = bench.worker.run();
    assert!(ended.unwrap_err().to_string().contains("a test said so"));
    let (events, more) = waiting.join().unwrap();
    for events in [events, more] {
        let last = events.last().unwrap();
        let Event::Failed(Refusal::Stopped { why }) = last else {
            panic!("{last:?}")
        };
        assert!(why.contains("a test said so"), "{why}");
    }
}
