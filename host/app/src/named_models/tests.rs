//! What plugins get from the models of `[models]`, and what it takes of their budgets.

use std::sync::atomic::{AtomicU32, Ordering};

use rl::{PolicyCard, PolicyVersion, SampledToken, ScoreRequest, Seed, TokenId, ToolSpec};

use super::*;

/// A policy that says its weights and its seed; a token is a byte.
#[derive(Default)]
struct Echo {
    /// How samples end: one that breaks after two tokens, one that is busy before any. The others end well.
    ends: Mutex<Vec<rl::Error>>,
    /// Prompts that were made into tokens.
    encoded: AtomicU32,
}

impl Policy for Echo {
    fn card(&self) -> PolicyCard {
        PolicyCard {
            model: "echo".into(),
            context: 1 << 20,
            vocab_size: 256,
        }
    }
    fn version(&self, _: &Weights) -> rl::Result<PolicyVersion> {
        Ok(PolicyVersion::BASE)
    }
    fn encode(&self, list: &[Message], _: &[ToolSpec], _: &str) -> rl::Result<Vec<TokenId>> {
        self.encoded.fetch_add(1, Ordering::SeqCst);
        Ok(list
            .iter()
            .flat_map(|one| one.content.bytes())
            .map(TokenId::from)
            .collect())
    }
    fn encode_text(&self, text: &str) -> rl::Result<Vec<TokenId>> {
        Ok(text.bytes().map(TokenId::from).collect())
    }
    fn sample(
        &self,
        request: SampleRequest,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> rl::Result<rl::Completion> {
        let mut ends = self.ends.lock();
        if let Some(busy) = ends.pop_if(|end| end.is_retryable()) {
            return Err(busy);
        }
        let most = request.sampling.max_tokens as usize;
        let most = if ends.is_empty() { most } else { 2 };
        let token = SampledToken {
            id: 1,
            logprob: 0.0,
        };
        let mut count = 0;
        let mut finish = FinishReason::Length;
        while count < most && finish == FinishReason::Length {
            count += 1;
            if on_token(token) == TokenFlow::Stop {
                finish = FinishReason::Cancelled;
            }
        }
        if let Some(error) = ends.pop() {
            return Err(error);
        }
        Ok(rl::Completion {
            tokens: vec![1; count],
            logprobs: vec![0.0; count],
            text: format!("{:?} {}", request.weights, request.sampling.seed.get()),
            finish,
            version: PolicyVersion::BASE,
            adapter_digest: String::new(),
        })
    }
    fn score(&self, _: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
        Ok(Vec::new())
    }
}

fn named(text: &str) -> anyhow::Result<NamedModels> {
    with(text, Arc::default())
}

fn with(text: &str, echo: Arc<Echo>) -> anyhow::Result<NamedModels> {
    let config = crate::config::Config::parse(text)?;
    let adapter = Weights::Adapter("own".into());
    let served = BTreeMap::from([
        ("echo".to_owned(), Weights::Base),
        ("echo:own".to_owned(), adapter),
    ]);
    NamedModels::new(
        &config.models,
        echo,
        &served,
        at_once(&config.engine),
        &mut Registry::default(),
    )
}

fn request(model: &str, prompt: &str, max_tokens: u32) -> CompletionRequest {
    CompletionRequest {
        model: model.to_owned(),
        messages: vec![Message::user(prompt)],
        max_tokens,
        temperature: 0.5,
        stop: Vec::new(),
        seed: Seed::new(7),
    }
}

#[test]
fn a_name_means_the_base_unless_it_says_otherwise_and_one_that_is_not_served_is_refused_at_start() {
    let text = "[models.plain]\n[models.mine]\npolicy = 'echo:own'";
    let mut account = named(text).unwrap().account();
    let mut said = |name| account.complete(request(name, "hi", 4)).unwrap().text;
    assert_eq!(said("plain"), "Base 7");
    assert!(said("mine").starts_with("Adapter("));
    let error = named("[models.mine]\npolicy = 'gpt'")
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("`gpt`") && error.contains("echo, echo:own"),
        "{error}"
    );
}

#[test]
fn an_unknown_name_is_told_the_known_ones() {
    let unknown = |text: &str| {
        let refusal = named(text)
            .unwrap()
            .account()
            .complete(request("user", "hi", 4));
        match refusal {
            Err(Refusal::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(unknown("[models.a]\n[models.b]").contains("it names: a, b"));
    assert!(unknown("").contains("[models.user]"));
}

#[test]
fn a_budget_holds_for_an_episode_counts_prompts_and_is_named_when_it_is_used_up() {
    let models = named("[models.user]\ntokens-per-episode = 20\nmax-tokens = 6").unwrap();
    let mut account = models.account();
    let first = account.complete(request("user", "12345", 100)).unwrap();
    assert_eq!((first.tokens, first.left), (11, 9));
    let second = account.complete(request("user", "12345", 100)).unwrap();
    assert_eq!((second.tokens, second.left), (9, 0));
    let Err(Refusal::Failed(why)) = account.complete(request("user", "12345", 1)) else {
        panic!("the budget is used up");
    };
    assert!(
        why.contains("tokens-per-episode") && why.contains("20 of the episode's 20"),
        "{why}"
    );
    // Another episode has one of its own; both are counted by name.
    models.account().complete(request("user", "1", 1)).unwrap();
    let label = Label {
        name: "user".to_owned(),
    };
    assert_eq!(models.0.tokens.get_or_create(&label).get(), 22);
}

/// What is left of a budget of 100 after this question of 5 tokens, and what it was told.
fn left_after(ends: Vec<rl::Error>, until: Duration) -> (u32, Result<Completion, Refusal>) {
    let echo = Arc::new(Echo {
        ends: Mutex::new(ends),
        ..Echo::default()
    });
    let models = with("[models.user]\ntokens-per-episode = 100", echo).unwrap();
    let mut account = Spending {
        models: Arc::clone(&models.0),
        used: BTreeMap::new(),
    };
    let said = account.complete_until(request("user", "12345", 10), Instant::now() + until);
    let used = account.used.get("user").copied().unwrap_or(0);
    let label = Label {
        name: "user".to_owned(),
    };
    let counted = models.0.tokens.get_or_create(&label).get();
    assert_eq!(counted, u64::from(used), "what is charged is counted");
    (100 - used, said)
}

fn engine_says(error: fn(String, String) -> rl::Error) -> rl::Error {
    error("engine".to_owned(), "why".to_owned())
}

#[test]
fn what_was_computed_is_charged_also_when_nothing_comes_of_it() {
    let (left, said) = left_after(Vec::new(), LONGEST);
    assert_eq!((left, said.unwrap().left), (85, 85));
    let broken = engine_says(|what, why| rl::Error::Failed { what, why });
    let (left, said) = left_after(vec![broken], LONGEST);
    assert_eq!(left, 93);
    assert!(matches!(said, Err(Refusal::Failed(_))), "{said:?}");
    // Out of time at the first token.
    let (left, said) = left_after(Vec::new(), Duration::ZERO);
    let Err(Refusal::Failed(why)) = said else {
        panic!("{said:?}")
    };
    assert_eq!(left, 94);
    assert!(why.contains("did not finish within 120s"), "{why}");
}

#[test]
fn a_full_queue_is_asked_again_while_there_is_time_and_one_that_was_waited_in_is_not() {
    let full = || engine_says(|what, why| rl::Error::Unavailable { what, why });
    let (left, said) = left_after(vec![full()], LONGEST);
    assert_eq!((left, said.is_ok()), (85, true));
    let (left, said) = left_after(vec![full()], FIRST_WAIT);
    assert_eq!((left, said.is_ok()), (100, false));
    let waited = rl::Error::TimedOut {
        what: "the queue".to_owned(),
        limit_ms: 60_000,
    };
    let (left, said) = left_after(vec![waited], LONGEST);
    assert_eq!(left, 100);
    assert!(format!("{said:?}").contains("60000 ms"), "{said:?}");
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_before_it_is_made_into_tokens() {
    let echo = Arc::new(Echo::default());
    let text = "[models.user]\ntokens-per-episode = 10";
    let mut account = with(text, Arc::clone(&echo)).unwrap().account();
    let mut why = |bytes: usize| {
        let refused = account.complete(request("user", &"x".repeat(bytes), 1));
        refused.unwrap_err().to_string()
    };
    assert!(why(641).contains("641 bytes"));
    assert_eq!(echo.encoded.load(Ordering::SeqCst), 0);
    assert!(why(640).contains("640 tokens"));
    assert_eq!(echo.encoded.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_worker_process_did_not_check_is_refused_here() {
    let mut account = named("[models.user]").unwrap().account();
    let mut asked = request("user", "hi", 1);
    asked.stop = vec!["s".repeat(257)];
    let refused = account.complete(asked).unwrap_err().to_string();
    assert!(refused.contains("256 bytes"), "{refused}");
}

#[test]
fn plugins_take_half_of_what_is_computed_for_the_loops() {
    let check = |loops: usize, expected: usize| {
        let engine = serving::engine::Config {
            max_loop_sequences: loops,
            ..serving::engine::Config::default()
        };
        assert_eq!(at_once(&engine), expected);
    };
    check(8, 4);
    check(3, 1);
    check(1, 1);
}

#[test]
fn no_more_than_a_few_are_inside_at_once_and_who_waits_too_long_is_told() {
    let door = Door::new(2);
    let first = door.enter(Duration::ZERO).unwrap();
    let _second = door.enter(Duration::ZERO).unwrap();
    assert!(door.enter(Duration::from_millis(1)).is_none());
    std::thread::scope(|scope| {
        let third = scope.spawn(|| door.enter(LONGEST).is_some());
        drop(first);
        assert!(third.join().unwrap());
    });
    assert_eq!(*door.free.lock(), 1);
}

#[test]
fn a_limit_of_nothing_is_refused_by_name() {
    let error = format!(
        "{:#}",
        named("[models.user]\nmax-tokens = 0").err().unwrap()
    );
    assert!(
        error.contains("[models.user]") && error.contains("max-tokens"),
        "{error}"
    );
}
