//! `POST /v1/chat/completions`, the reply: one object, or chunks of a stream.
//!
//! The chunks of a stream, in order: the role; text, reasoning (`reasoning_content`) and tool-call deltas as they are
//! sampled; the finish reason; with `stream_options.include_usage` one chunk with `usage` and no choices; `[DONE]`.
//! The finish reason is sent only after the turn is durable. Beyond OpenAI's fields there is `reasoning_content`
//! and the log-probs of *all* sampled tokens but the stop token, those of tool calls included.

use rl::{FinishReason, Message};
use serde::Serialize;

/// What every object of one reply carries.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) completion: usize,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TopLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
}

/// What a token or a few of its bytes take beside their own length, in memory of their own.
const ALLOCATED: usize = 24;

impl TokenLogprob {
    /// What it takes, without the bytes of its tokens, with so many alternatives.
    pub(crate) fn least_bytes(alternatives: usize) -> usize {
        let each = size_of::<TopLogprob>() + 2 * ALLOCATED;
        size_of::<Self>() + 2 * ALLOCATED + alternatives * each
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        let alternatives = self.top_logprobs.iter();
        let texts = alternatives.map(|top| top.token.len() + top.bytes.len());
        let own = self.token.len() + self.bytes.len();
        Self::least_bytes(self.top_logprobs.len()) + own + texts.sum::<usize>()
    }
}

/// What one step of the engine adds to a reply.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delta {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<CallDelta>,
    pub(crate) logprobs: Option<Vec<TokenLogprob>>,
}

impl Delta {
    /// What it takes beside itself.
    pub(crate) fn bytes(&self) -> usize {
        let calls = self.calls.iter().map(|call| {
            let words = [&call.id, &call.name].map(|word| word.as_ref().map_or(0, String::len));
            size_of_val(call) + words.iter().sum::<usize>() + call.arguments.len()
        });
        let logprobs = self.logprobs.iter().flatten().map(TokenLogprob::bytes);
        let texts = self.content.len() + self.reasoning.len();
        texts + calls.sum::<usize>() + logprobs.sum::<usize>()
    }
}

/// A part of a tool call: the id and the name come first, the arguments in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallDelta {
    pub(crate) index: usize,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) arguments: String,
}

#[derive(Serialize)]
struct Object<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Reply<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Reply<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Logprobs<'a> {
    content: &'a [TokenLogprob],
    refusal: Option<&'a str>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: ChunkDelta<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ChunkCall<'a>>,
}

#[derive(Serialize)]
struct ChunkCall<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: ChunkFunction<'a>,
}

#[derive(Serialize)]
struct ChunkFunction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// The word that clients know.
pub(crate) fn finish_word(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        // A cancelled reply has no reader; the draining host ends streams early with this word, too.
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

impl Counts {
    fn usage(self) -> Usage {
        Usage {
            prompt_tokens: self.prompt,
            completion_tokens: self.completion,
            total_tokens: self.prompt + self.completion,
            prompt_tokens_details: PromptDetails {
                cached_tokens: self.cached,
            },
        }
    }
}

impl Envelope {
    /// The whole reply as one object.
    pub(crate) fn whole(
        &self,
        message: &Message,
        finish: FinishReason,
        logprobs: Option<&[TokenLogprob]>,
        counts: Counts,
    ) -> String {
        let tool_calls: Vec<_> = message
            .tool_calls
            .iter()
            .map(|call| Call {
                id: &call.id,
                r#type: "function",
                function: Function {
                    name: &call.name,
                    arguments: &call.arguments,
                },
            })
            .collect();
        let content = (!message.content.is_empty() || tool_calls.is_empty())
            .then_some(message.content.as_str());
        let choice = Choice {
            index: 0,
            message: Reply {
                role: "assistant",
                content,
                refusal: None,
                reasoning_content: message.reasoning.as_deref(),
                tool_calls,
            },
            logprobs: logprobs.map(|content| Logprobs {
                content,
                refusal: None,
            }),
            finish_reason: finish_word(finish),
        };
        self.json("chat.completion", [choice], Some(Some(counts.usage())))
    }

    /// The first chunk.
    pub(crate) fn role(&self, usage: bool) -> String {
        let delta = ChunkDelta {
            role: Some("assistant"),
            content: Some(""),
            ..Default::default()
        };
        self.chunk(delta, None, None, usage)
    }

    /// A chunk of text, reasoning or tool calls.
    pub(crate) fn delta(&self, delta: &Delta, usage: bool) -> String {
        let text = |text: &str| !text.is_empty();
        let nothing_else = delta.reasoning.is_empty() && delta.calls.is_empty();
        let part = ChunkDelta {
            role: None,
            content: (text(&delta.content) || nothing_else).then_some(&delta.content),
            reasoning_content: text(&delta.reasoning).then_some(&delta.reasoning),
            tool_calls: delta
                .calls
                .iter()
                .map(|call| ChunkCall {
                    index: call.index,
                    id: call.id.as_deref(),
                    r#type: call.id.is_some().then_some("function"),
                    function: ChunkFunction {
                        name: call.name.as_deref(),
                        arguments: &call.arguments,
                    },
                })
                .collect(),
        };
        self.chunk(part, delta.logprobs.as_deref(), None, usage)
    }

    /// The chunk that says why the reply ended.
    pub(crate) fn finish(&self, finish: FinishReason, usage: bool) -> String {
        self.chunk(
            ChunkDelta::default(),
            None,
            Some(finish_word(finish)),
            usage,
        )
    }

    /// The chunk with the counts.
    pub(crate) fn usage(&self, counts: Counts) -> String {
        let none: [ChunkChoice<'_>; 0] = [];
        self.json("chat.completion.chunk", none, Some(Some(counts.usage())))
    }

    /// `usage`: whether the stream will end with a usage chunk; every other chunk then carries `"usage": null`.
    fn chunk(
        &self,
        delta: ChunkDelta<'_>,
        logprobs: Option<&[TokenLogprob]>,
        finish_reason: Option<&'static str>,
        usage: bool,
    ) -> String {
        let logprobs = logprobs.map(|content| Logprobs {
            content,
            refusal: None,
        });
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs,
            finish_reason,
        };
        self.json("chat.completion.chunk", [choice], usage.then_some(None))
    }

    fn json<C: Serialize>(
        &self,
        object: &'static str,
        choices: C,
        usage: Option<Option<Usage>>,
    ) -> String {
        let object = Object {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
        };
        // Strings and finite numbers only: serialising them cannot fail.
        serde_json::to_string(&object).unwrap_or_default()
    }
}
