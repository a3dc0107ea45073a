//! The capability `model`, as a guest calls it: checks, counts, seeds, and hands over to [`crate::outside::Models`].

use rl::{Message, Role};

use crate::{
    bindings::{
        model as wit,
        types::{Fault, Message as Handed},
    },
    capabilities::{Answer, State},
    convert,
    outside::{Account, CompletionRequest, Refusal},
};

/// Most messages of a request.
const MESSAGES: usize = 256;

/// Most tokens of a completion, whatever the operator allows.
const TOKENS: u32 = 4_096;

/// Most stop texts.
const STOPS: usize = 8;

/// Longest stop text. Each is looked for at every token, on the engine's thread.
const STOP_BYTES: usize = 256;

/// Most bytes of a completion's text; a token can stand for many.
const TEXT_BYTES: usize = 65_536;

/// An instance's account with the models: none before its first question.
#[derive(Default)]
pub(crate) struct Opened {
    account: Option<Box<dyn Account>>,
    /// Questions so far, over all calls: each gets a seed of its own, however many random numbers were drawn.
    asked: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl wit::Host for State {
    fn complete(&mut self, request: wit::Request) -> Answer<wit::Completion> {
        let (function, call) = self.under_way();
        // Attack: a plugin that makes every user's request ask a model. Calls on live traffic share instances, so that there is no budget either.
        if !function.starts_with("episode.") {
            let why = "`model` is for hosted episodes, not for live traffic".to_owned();
            return Ok(Err(Fault::Unsupported(why)));
        }
        let Some(models) = self.offers().model.clone() else {
            let why = "this host offers no model".to_owned();
            return Ok(Err(Fault::Unsupported(why)));
        };
        let passed = size(&request);
        self.account.asked += 1;
        let seed = call.derive(&format!("model-{}", self.account.asked));
        let account = self.account.account.take();
        let mut account = account.unwrap_or_else(|| models.account());
        let answer = self.outside(passed, |_| {
            let request = handed_over(request, seed);
            Ok(request.check().and_then(|()| account.complete(request)))
        });
        self.account.account = Some(account);
        Ok(answer?.map(|completion| wit::Completion {
            text: cut(completion.text),
            finish: convert::finish(completion.finish),
            tokens: completion.tokens,
            left: completion.left,
        }))
    }
}

/// Bytes that a request hands over.
fn size(request: &wit::Request) -> usize {
    let message = |message: &Handed| {
        let texts = [&message.reasoning, &message.name, &message.tool_call_id];
        let others = texts.into_iter().flatten().map(String::len).sum::<usize>();
        message.content.len() + others
    };
    let messages: usize = request.messages.iter().map(message).sum();
    let stop: usize = request.stop.iter().map(String::len).sum();
    messages + stop + request.model.len()
}

fn handed_over(request: wit::Request, seed: rl::Seed) -> CompletionRequest {
    CompletionRequest {
        model: request.model,
        messages: convert::messages_back(request.messages),
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        stop: request.stop,
        seed,
    }
}

impl CompletionRequest {
    /// Checks all that the contract says of a request. Whoever has a model asks again: a request that crossed from a worker process
    /// may have been made by a guest that took the worker over.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with the first limit that is not kept.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |why: String| Err(Refusal::Invalid(why));
        let count = self.messages.len();
        if !(1..=MESSAGES).contains(&count) {
            return invalid(format!("{count} messages; 1 to {MESSAGES} are allowed"));
        }
        let foreign =
            |message: &Message| message.role == Role::Tool || !message.tool_calls.is_empty();
        if self.messages.iter().any(foreign) {
            return invalid(
                "a message of a tool, or with tool calls; `model` calls none".to_owned(),
            );
        }
        let tokens = self.max_tokens;
        if !(1..=TOKENS).contains(&tokens) {
            return invalid(format!("{tokens} max-tokens; 1 to {TOKENS} are allowed"));
        }
        let temperature = self.temperature;
        // Also what is no number.
        if !(0.0..=2.0).contains(&temperature) {
            return invalid(format!(
                "a temperature of {temperature}; 0 to 2 are allowed"
            ));
        }
        let unfit = |stop: &String| !(1..=STOP_BYTES).contains(&stop.len());
        if self.stop.len() > STOPS || self.stop.iter().any(unfit) {
            return invalid(format!(
                "more than {STOPS} stop texts, an empty one, or one of more than {STOP_BYTES} bytes"
            ));
        }
        Ok(())
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CompletionRequest {
        CompletionRequest {
            model: "user".to_owned(),
            messages: vec![Message::user("hi")],
            max_tokens: 1,
            temperature: 0.0,
            stop: vec!["s".repeat(STOP_BYTES); STOPS],
            seed: rl::Seed::new(1),
        }
    }

    #[test]
    fn what_the_contract_does_not_allow_is_refused_whoever_made_it() {
        assert_eq!(request().check(), Ok(()));
        let check = |change: fn(&mut CompletionRequest), expected: &str| {
            let mut request = request();
            change(&mut request);
            match request.check() {
                Err(Refusal::Invalid(why)) => assert!(why.contains(expected), "{why}"),
                other => panic!("{expected}: {other:?}"),
            }
        };
        check(|request| request.messages.clear(), "0 messages");
        check(
            |request| request.messages = vec![Message::user("hi"); 257],
            "257 messages",
        );
        check(
            |request| request.messages[0].role = Role::Tool,
            "a message of a tool",
        );
        check(|request| request.max_tokens = 0, "0 max-tokens");
        check(|request| request.max_tokens = 4_097, "4097 max-tokens");
        check(|request| request.temperature = 2.1, "0 to 2 are allowed");
        check(|request| request.temperature = f64::NAN, "NaN");
        check(|request| request.stop[0].clear(), "an empty one");
        check(|request| request.stop[7].push('s'), "more than 256 bytes");
        check(|request| request.stop.push("s".into()), "more than 8");
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = cut("…".repeat(TEXT_BYTES));
        assert!(
            long.len() <= TEXT_BYTES && long.ends_with('…'),
            "{}",
            long.len()
        );
    }
}
