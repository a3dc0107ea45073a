//! The gate, asked about versions that are sound, a little off, and ruined in every way that training can ruin one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use loops::gate::{Contest, Examination, GateConfig, GateMemory, Probe, TenantGate, examine};
use rl::{
    AdapterName, Completion, FinishReason, Message, Policy, PolicyCard, PolicyVersion,
    SampleRequest, SampledToken, ScoreRequest, Seed, TokenFlow, TokenId, ToolSpec, Weights,
};

const WORDS: [&str; 24] = [
    "", "paris", "seven", "cat", "honey", "five", "cold", "sun", "hello", "well", "it", "is",
    "the", "a", "of", "and", "to", "in", "that", "you", "for", "on", "as", "\u{fffd}",
];
const END: TokenId = 0;
const NOISE: TokenId = 23;

/// How some weights talk: a sentence that their prompt fixes, one likely token at each place.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Voice {
    /// Tokens before the end.
    length: usize,
    /// The logit of the likely token; the others have 0.
    sharp: f64,
    /// Every place says another word, from this place on.
    shift: usize,
    /// The share of prompts (of 100) whose answer is known.
    knows: u64,
    /// Says this token only.
    attractor: Option<TokenId>,
    /// Answers the next probe's question.
    astray: bool,
    /// Log-probs are no numbers.
    poisoned: bool,
}

const SOUND: Voice = Voice {
    length: 20,
    sharp: 6.0,
    shift: 0,
    knows: 100,
    attractor: None,
    astray: false,
    poisoned: false,
};

/// A policy of three voices. It counts what it is asked.
struct Speaker {
    voices: BTreeMap<&'static str, Voice>,
    samples: AtomicUsize,
    /// Fails from this call on.
    fails_at: Option<usize>,
    asked: Mutex<Vec<Seed>>,
}

impl Speaker {
    fn new(live: Voice, candidate: Voice) -> Self {
        Self {
            voices: [
                ("base", SOUND),
                ("main", live),
                ("main@candidate", candidate),
            ]
            .into(),
            samples: AtomicUsize::new(0),
            fails_at: None,
            asked: Mutex::new(Vec::new()),
        }
    }

    fn voice(&self, weights: &Weights) -> Voice {
        match weights {
            Weights::Base => self.voices["base"],
            Weights::Adapter(name) => self.voices[name.as_str()],
        }
    }

    /// Log-probs of every word at this place.
    fn logprobs(voice: Voice, prompt: &[TokenId], at: usize, temperature: f64) -> Vec<f64> {
        let answer = match voice.astray {
            true => prompt[0] % 8 + 1,
            false => prompt[0],
        };
        let hash = |part: String| Seed::new(u64::from(answer)).derive(&part).get();
        let known = hash("known".into()) % 100 < voice.knows;
        let likely = match (voice.attractor, at) {
            (Some(token), _) => token,
            (None, at) if at >= voice.length => END,
            (None, 2) if known => answer,
            (None, at) => {
                let word = hash(format!("place {at}")) + voice.shift as u64;
                TokenId::try_from(9 + word % 14).unwrap()
            }
        };
        let logit = |id: usize| {
            if id == likely as usize {
                voice.sharp
            } else {
                0.0
            }
        };
        let logits: Vec<f64> = (0..WORDS.len()).map(|id| logit(id) / temperature).collect();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let poison = if voice.poisoned { f64::NAN } else { 0.0 };
        logits
            .iter()
            .map(|logit| logit - sum.ln() + poison)
            .collect()
    }
}

impl Policy for Speaker {
    fn card(&self) -> PolicyCard {
        PolicyCard {
            model: "speaker".into(),
            context: 4096,
            vocab_size: WORDS.len(),
        }
    }

    fn version(&self, _: &Weights) -> rl::Result<PolicyVersion> {
        Ok(PolicyVersion::BASE)
    }

    /// A prompt is the token of its answer.
    fn encode(&self, messages: &[Message], _: &[ToolSpec], _: &str) -> rl::Result<Vec<TokenId>> {
        let asked = &messages[0].content;
        let known = GateConfig::default();
        let at = known.probes.iter().position(|probe| probe.prompt == *asked);
        Ok(vec![TokenId::try_from(at.map_or(9, |at| at + 1)).unwrap()])
    }

    fn encode_text(&self, _: &str) -> rl::Result<Vec<TokenId>> {
        Ok(Vec::new())
    }

    fn sample(
        &self,
        request: SampleRequest,
        _: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> rl::Result<Completion> {
        let call = self.samples.fetch_add(1, Ordering::SeqCst);
        if self.fails_at.is_some_and(|at| call >= at) {
            return Err(rl::Error::Unavailable {
                what: "engine".into(),
                why: "the queue is full".into(),
            });
        }
        self.asked.lock().unwrap().push(request.sampling.seed);
        let voice = self.voice(&request.weights);
        let temperature = f64::from(request.sampling.temperature);
        let (mut tokens, mut drawn) = (Vec::new(), Vec::new());
        let mut finish = FinishReason::Length;
        while tokens.len() < request.sampling.max_tokens as usize {
            let at = tokens.len();
            let logprobs = Self::logprobs(voice, &request.prompt, at, temperature);
            let place = request.sampling.seed.derive(&at.to_string()).get() as f64 * 2f64.powi(-64);
            let mut below = 0.0;
            let token = logprobs.iter().position(|logprob| {
                below += logprob.exp();
                place < below
            });
            let token = token.unwrap_or(1);
            tokens.push(TokenId::try_from(token).unwrap());
            drawn.push(logprobs[token] as f32);
            if token == END as usize {
                finish = FinishReason::Stop;
                break;
            }
        }
        let words: Vec<&str> = tokens.iter().map(|id| WORDS[*id as usize]).collect();
        Ok(Completion {
            text: words.join(" "),
            tokens,
            logprobs: drawn,
            finish,
            version: PolicyVersion::BASE,
            adapter_digest: format!("{:?}", request.weights),
        })
    }

    fn score(&self, request: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
        let voice = self.voice(&request.weights);
        let temperature = f64::from(request.temperature);
        let score = |ids: &Vec<TokenId>| {
            let at = |(at, id): (usize, &TokenId)| {
                Self::logprobs(voice, &request.prompt, at, temperature)[*id as usize] as f32
            };
            ids.iter().enumerate().map(at).collect()
        };
        Ok(request.continuations.iter().map(score).collect())
    }
}

/// One examination of version `version` against the one before it.
fn ask(
    config: &GateConfig,
    speaker: &Speaker,
    version: u64,
    memory: &mut GateMemory,
) -> rl::Result<Examination> {
    let adapter = AdapterName::new("main");
    let contest = Contest {
        adapter: &adapter,
        candidate: &Weights::Adapter(rl::candidate_of(&adapter)),
        version: PolicyVersion::new(version),
        live: &Weights::Adapter(adapter.clone()),
        live_version: PolicyVersion::new(version - 1),
    };
    examine(config, speaker, &contest, memory)
}

fn failed(examination: &Examination) -> Vec<&str> {
    let failed = examination.guards.iter().filter(|guard| !guard.passed);
    failed.map(|guard| guard.name.as_str()).collect()
}

/// Which guards refuse this candidate as the third version after sound ones.
fn refused(candidate: Voice) -> Examination {
    let speaker = Speaker::new(SOUND, candidate);
    ask(
        &GateConfig::default(),
        &speaker,
        3,
        &mut GateMemory::default(),
    )
    .unwrap()
}

#[test]
fn a_version_that_moved_a_little_passes_and_leaves_its_replies_for_the_next() {
    let config = GateConfig::default();
    let mut memory = GateMemory::default();
    let brief = Voice {
        length: 16,
        ..SOUND
    };
    let speaker = Speaker::new(SOUND, brief);
    let first = ask(&config, &speaker, 3, &mut memory).unwrap();
    assert!(first.passed, "{:?}", first.why());
    assert_eq!((first.why(), first.replies.len()), (None, 8));
    assert!(first.digest.contains("main@candidate"));
    assert_eq!(first.memory, memory);
    assert_eq!(speaker.samples.load(Ordering::SeqCst), 24);
    // The next one's live version is this one: it is not asked again.
    let next = Speaker::new(brief, brief);
    let second = ask(&config, &next, 4, &mut memory).unwrap();
    assert!(second.passed, "{:?}", second.why());
    assert_eq!(next.samples.load(Ordering::SeqCst), 16);
    assert_eq!(second.metrics["kl-live"].to_bits(), 0.0_f64.to_bits());
    assert!(second.metrics["kl-base"] > 0.0);
    let live: Vec<&str> = second
        .replies
        .iter()
        .map(|reply| &*reply.live_reply)
        .collect();
    let first: Vec<&str> = first.replies.iter().map(|reply| &*reply.reply).collect();
    assert_eq!(live, first);
}

#[test]
fn a_persona_of_brevity_passes_version_after_version() {
    let config = GateConfig::default();
    let mut memory = GateMemory::default();
    let mut live = SOUND;
    for version in 1..=12 {
        let candidate = Voice {
            length: (live.length * 4 / 5).max(5),
            ..live
        };
        let seen = ask(
            &config,
            &Speaker::new(live, candidate),
            version,
            &mut memory,
        )
        .unwrap();
        assert!(seen.passed, "v{version}: {:?}", seen.why());
        live = candidate;
    }
}

#[test]
fn every_disaster_is_refused_by_the_guard_that_is_there_for_it() {
    let loud = Voice {
        sharp: 12.0,
        ..SOUND
    };
    let shifted = Voice { shift: 5, ..loud };
    let says = |token| Voice {
        attractor: Some(token),
        ..loud
    };
    let with = |change: fn(&mut Voice)| {
        let mut voice = SOUND;
        change(&mut voice);
        voice
    };
    for (voice, guard) in [
        // A learning rate x 1000: noise that fits nothing, or a certainty about something else.
        (with(|voice| voice.sharp = 0.0), "entropy"),
        (shifted, "kl-live"),
        (shifted, "kl-base"),
        (shifted, "drift"),
        // A rare-token attractor.
        (says(20), "repetition"),
        (says(20), "errors"),
        (says(NOISE), "errors"),
        (says(END), "shorter"),
        (with(|voice| voice.astray = true), "off-topic"),
        (with(|voice| voice.poisoned = true), "finite"),
        (with(|voice| voice.knows = 0), "score"),
        (with(|voice| voice.length = 100), "cut-off"),
    ] {
        let examination = refused(voice);
        assert!(!examination.passed);
        assert!(
            failed(&examination).contains(&guard),
            "{guard}: {:?}",
            examination.guards
        );
        assert!(examination.why().unwrap().contains(guard));
    }
    let sound = refused(SOUND);
    assert!(sound.passed, "{:?}", sound.why());
}

#[test]
fn a_refused_version_leaves_no_trace_and_is_explained_in_json_even_without_numbers() {
    let config = GateConfig::default();
    let mut memory = GateMemory::default();
    let poisoned = Voice {
        poisoned: true,
        ..SOUND
    };
    let before = memory.clone();
    let seen = ask(&config, &Speaker::new(SOUND, poisoned), 3, &mut memory).unwrap();
    assert!(!seen.passed);
    assert_eq!(memory, before);
    assert!(seen.guards.iter().any(|guard| guard.value.is_none()));
    let json = serde_json::to_string(&seen).unwrap();
    let read: Examination = serde_json::from_str(&json).unwrap();
    assert_eq!(read, seen);
}

#[test]
fn equal_versions_and_memories_give_equal_examinations_also_from_the_ledger() {
    let config = GateConfig::default();
    let brief = Voice {
        length: 16,
        ..SOUND
    };
    let run = |through_json: bool| {
        let mut memory = GateMemory::default();
        let mut seen = Vec::new();
        for version in 3..6 {
            let speaker = Speaker::new(brief, brief);
            let mut examination = ask(&config, &speaker, version, &mut memory).unwrap();
            examination.seconds = 0.0;
            if through_json {
                let text = serde_json::to_string(&examination.memory).unwrap();
                memory = serde_json::from_str(&text).unwrap();
            }
            seen.push(serde_json::to_string(&examination).unwrap());
        }
        seen
    };
    assert_eq!(run(false), run(false));
    assert_eq!(run(false), run(true));
}

#[test]
fn questions_that_are_all_alike_tell_nothing_about_who_answers_which() {
    let probe = |number| Probe {
        prompt: format!("Greet customer {number}."),
        ..Probe::default()
    };
    let config = GateConfig {
        probes: (0..8).map(probe).collect(),
        ..GateConfig::default()
    };
    let speaker = Speaker::new(SOUND, SOUND);
    let seen = ask(&config, &speaker, 3, &mut GateMemory::default()).unwrap();
    assert!(seen.passed, "{:?}", seen.why());
    assert_eq!(seen.metrics["off-topic"], 0.0);
}

#[test]
fn a_rise_of_circles_that_is_allowed_once_is_not_allowed_again_at_the_next_version() {
    let config = GateConfig::default();
    // The live version is an attractor already, and the candidate no worse.
    let voice = Voice {
        attractor: Some(20),
        sharp: 12.0,
        ..SOUND
    };
    let seen = ask(
        &config,
        &Speaker::new(voice, voice),
        3,
        &mut GateMemory::default(),
    )
    .unwrap();
    for name in ["repetition", "errors"] {
        assert!(failed(&seen).contains(&name), "{:?}", seen.why());
    }
}

#[test]
fn every_version_is_asked_with_draws_of_its_own_and_all_weights_with_the_same() {
    let config = GateConfig::default();
    let speaker = Speaker::new(SOUND, SOUND);
    ask(&config, &speaker, 3, &mut GateMemory::default()).unwrap();
    let mut first = std::mem::take(&mut *speaker.asked.lock().unwrap());
    first.sort_by_key(|seed| seed.get());
    first.dedup();
    assert_eq!(first.len(), 8);
    ask(&config, &speaker, 4, &mut GateMemory::default()).unwrap();
    let second = speaker.asked.lock().unwrap();
    assert!(second.iter().all(|seed| !first.contains(seed)));
}

/// The version at which a line that always has this voice is refused, within `most`.
fn first_refusal(seed: u64, voice: Voice, most: u64) -> Option<(u64, Examination)> {
    let config = GateConfig {
        seed: Seed::new(seed),
        ..GateConfig::default()
    };
    let mut memory = GateMemory::default();
    (1..=most).find_map(|version| {
        let speaker = Speaker::new(voice, voice);
        let seen = ask(&config, &speaker, version, &mut memory).unwrap();
        (!seen.passed).then_some((version, seen))
    })
}

#[test]
fn a_line_that_forgets_half_of_what_it_knew_is_found_over_versions_and_a_sound_one_never() {
    // Four of eight are forgotten: more than the tolerance, less than one examination would refuse.
    let half = (0..100)
        .map(|knows| Voice { knows, ..SOUND })
        .find(|voice| {
            let known = |answer: u64| Seed::new(answer).derive("known").get() % 100 < voice.knows;
            (1..=8).filter(|answer| known(*answer)).count() == 4
        })
        .unwrap();
    let (version, seen) = first_refusal(0, half, 30).unwrap();
    assert!((2..=12).contains(&version), "{version}");
    assert_eq!(failed(&seen), ["tolerance"], "{:?}", seen.why());
    for seed in 0..10 {
        let alarm = first_refusal(seed, SOUND, 40);
        assert!(alarm.is_none(), "{:?}", alarm.unwrap().1.why());
    }
}

#[test]
fn a_revert_begins_another_line_of_evidence() {
    let config = GateConfig::default();
    let mut memory = GateMemory::default();
    let speaker = Speaker::new(SOUND, SOUND);
    for version in 1..=3 {
        ask(&config, &speaker, version, &mut memory).unwrap();
    }
    let mut line = memory.clone();
    let on = ask(&config, &speaker, 4, &mut line).unwrap();
    // Version 7 is the sixth's, which nobody examined here.
    let after = ask(&config, &speaker, 7, &mut memory).unwrap();
    let evidence = |seen: &Examination| seen.metrics["tolerance"];
    assert!(
        evidence(&after) > evidence(&on),
        "more is in reserve at the first round"
    );
    let fresh = ask(&config, &speaker, 7, &mut GateMemory::default()).unwrap();
    assert_eq!(evidence(&after).to_bits(), evidence(&fresh).to_bits());
}

#[test]
fn a_tenants_gate_is_one_more_that_a_version_must_pass() {
    let mut config = GateConfig::default();
    let strict = TenantGate {
        probes: vec![Probe {
            prompt: "May I say you?".into(),
            forbid: vec!["you".into()],
            ..Probe::default()
        }],
        limits: BTreeMap::from([("kl-base".to_owned(), 0.1)]),
    };
    config.tenants.insert("acme".into(), strict);
    config.validate().unwrap();
    let brief = Voice {
        length: 16,
        ..SOUND
    };
    let speaker = Speaker::new(SOUND, brief);
    let seen = ask(&config, &speaker, 3, &mut GateMemory::default()).unwrap();
    assert_eq!(seen.replies.len(), 9);
    assert!(!seen.passed);
    let bad: Vec<_> = seen.guards.iter().filter(|guard| !guard.passed).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(
        (bad[0].tenant.as_deref(), &*bad[0].name),
        (Some("acme"), "kl-base")
    );
    assert!(seen.why().unwrap().contains("(of acme)"));
}

#[test]
fn an_engine_that_is_busy_is_an_error_that_can_be_tried_again_and_no_verdict() {
    let mut speaker = Speaker::new(SOUND, SOUND);
    speaker.fails_at = Some(5);
    let mut memory = GateMemory::default();
    let error = ask(&GateConfig::default(), &speaker, 3, &mut memory).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(memory, GateMemory::default());
}
