//! `POST /v1/chat/completions`, the request: what is read, what is refused, what is ignored.
//!
//! | field | here |
//! |---|---|
//! | `model` | `<base>` (no adapter) or `<base>:<adapter>`; required |
//! | `messages` | required; `content` a string or text parts; other parts are refused by name |
//! | `temperature` | 0 to 2, default 1; 0, and what is below 0.001, is greedy |
//! | `top_p` | 0 to 1, default 1 |
//! | `top_k`, `min_p`, `repetition_penalty` | vendor fields, as vLLM calls them; default off |
//! | `max_completion_tokens`, `max_tokens` | at least 1; the first wins; default [`Config::default_max_tokens`](super::Config) |
//! | `stop` | a string or at most 4 |
//! | `seed` | the same request with the same seed gives the same tokens; default: from the reply's id |
//! | `logit_bias` | token id → −100 to 100 |
//! | `logprobs`, `top_logprobs` | at the sampling temperature, before truncation; up to 20 alternatives |
//! | `n` | 1 |
//! | `tools`, `tool_choice` | functions; `none`, `auto`, `required` or a named one |
//! | `stream`, `stream_options.include_usage` | server-sent events |
//! | `presence_penalty`, `frequency_penalty` | refused unless 0 |
//! | `response_format` | refused unless `{"type": "text"}` |
//! | `session_id`, `metadata.session_id`, `prompt_cache_key` | the session, in this order, after the header `x-session-id` |
//! | `user` | the person, at most 256 bytes; recorded, so that an erasure can ask for them |
//! | anything else | ignored |

use axum::http::HeaderMap;
use rl::{Message, Sampling, Seed, SessionId, TokenId, ToolSpec, TurnKind};
use serde_json::{Map, Value};

use super::api_error::ApiError;
use super::fields::{Fields, wrong_type};
use super::messages::{self, ToolChoice};

const MAX_STOPS: usize = 4;
const MAX_STOP_BYTES: usize = 256;
const MAX_TOP_LOGPROBS: i64 = 20;
/// Entries of `logit_bias`, as in the OpenAI API.
const MAX_BIASES: usize = 1024;
/// Longer session ids are refused rather than cut: a cut id could merge two sessions.
const MAX_SESSION_BYTES: usize = 256;
/// Refused rather than cut, for the same reason: an erasure must find one person and no other.
const MAX_USER_BYTES: usize = 256;

/// A request for a reply, checked.
#[derive(Debug, Clone)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Vec<ToolSpec>,
    pub(crate) tool_choice: ToolChoice,
    /// Without `max_tokens` and seed, which need the prompt's length and the turn's id.
    pub(crate) sampling: Sampling,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) seed: Option<Seed>,
    /// How many alternatives each token's log-prob comes with; none without `logprobs`.
    pub(crate) logprobs: Option<usize>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) user: Option<String>,
    pub(crate) kind: Option<TurnKind>,
    pub(crate) session_done: bool,
}

/// Whether a body is a request for a reply that would be understood; the fuzzer's way in, which needs no model.
///
/// # Errors
/// What a client would be told.
pub fn understand(body: &[u8]) -> Result<(), String> {
    /// Any: no field's meaning depends on it.
    const VOCAB_SIZE: usize = 50_000;
    ChatRequest::read(&HeaderMap::new(), body, VOCAB_SIZE)
        .map(drop)
        .map_err(|error| format!("{error:?}"))
}

/// The body as an object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::body("The body is JSON, but not an object.")),
        Err(error) => Err(ApiError::body(format!("The body is not JSON: {error}."))),
    }
}

impl ChatRequest {
    /// Reads a request. `vocab_size` bounds the ids of `logit_bias`.
    pub(crate) fn read(
        headers: &HeaderMap,
        body: &[u8],
        vocab_size: usize,
    ) -> Result<Self, ApiError> {
        let object = object(body)?;
        let root = Fields::root(&object);
        refuse_what_is_not_there(root)?;
        let stream = root.flag("stream")?;
        let tools = messages::tools(root)?;
        let tool_choice = messages::tool_choice(root, &tools)?;
        Ok(Self {
            model: root.required_text("model")?.to_owned(),
            messages: messages::messages(root)?,
            tool_choice,
            tools,
            sampling: sampling(root, vocab_size)?,
            max_tokens: max_tokens(root)?,
            seed: root
                .integer("seed", i64::MIN, i64::MAX)?
                .map(|seed| Seed::new(seed.cast_unsigned())),
            logprobs: logprobs(root)?,
            stream,
            include_usage: include_usage(root, stream)?,
            session: session(headers, root)?,
            user: user(root)?,
            kind: kind(headers)?,
            session_done: session_done(headers)?,
        })
    }
}

fn refuse_what_is_not_there(root: Fields<'_, '_>) -> Result<(), ApiError> {
    for penalty in ["presence_penalty", "frequency_penalty"] {
        root.must_be_neutral(penalty, 0.0)?;
    }
    root.must_be_neutral("n", 1.0)?;
    if let Some(format) = root.get("response_format") {
        let format = Fields::at(format, "response_format")?;
        let kind = format.required_text("type")?;
        if kind != "text" {
            let message = format!("`response_format` of type `{kind}` is not supported here.");
            return Err(ApiError::unsupported("response_format", message));
        }
    }
    Ok(())
}

fn sampling(root: Fields<'_, '_>, vocab_size: usize) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let top_k = root
        .integer("top_k", -1, i64::from(u32::MAX))?
        .unwrap_or(0)
        .max(0);
    // The smallest positive share keeps the most likely token, which is what 0 asks for.
    let top_p = root
        .number("top_p", 0.0, 1.0)?
        .unwrap_or(default.top_p)
        .max(f32::MIN_POSITIVE);
    Ok(Sampling {
        temperature: root
            .number("temperature", 0.0, 2.0)?
            .unwrap_or(default.temperature),
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        top_p,
        min_p: root.number("min_p", 0.0, 1.0)?.unwrap_or(default.min_p),
        repetition_penalty: root
            .number("repetition_penalty", 0.01, 10.0)?
            .unwrap_or(default.repetition_penalty),
        logit_bias: logit_bias(root, vocab_size)?,
        stop: stops(root)?,
        ..default
    })
}

fn logit_bias(root: Fields<'_, '_>, vocab_size: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let Some(object) = root.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    if object.len() > MAX_BIASES {
        let message = format!("`logit_bias` has more than {MAX_BIASES} entries.");
        return Err(ApiError::invalid("logit_bias", message));
    }
    let fields = Fields::root(object);
    object
        .keys()
        .map(|key| {
            let id = key
                .parse::<TokenId>()
                .ok()
                .filter(|id| (*id as usize) < vocab_size);
            let id = id.ok_or_else(|| {
                let message =
                    format!("`logit_bias` names `{key}`, which is not a token id of this model.");
                ApiError::invalid("logit_bias", message)
            })?;
            let bias = fields.number(key, -100.0, 100.0).map_err(|_| {
                let message = format!("`logit_bias` of {key} must be a number from -100 to 100.");
                ApiError::invalid("logit_bias", message)
            })?;
            Ok((id, bias.unwrap_or(0.0)))
        })
        .collect()
}

fn stops(root: Fields<'_, '_>) -> Result<Vec<String>, ApiError> {
    let stops = match root.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(index, stop)| {
                stop.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong_type(&format!("stop[{index}]"), "a string", stop))
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong_type("stop", "a string or an array of strings", other)),
    };
    if stops.len() > MAX_STOPS {
        let message = format!(
            "`stop` has {} texts, but at most {MAX_STOPS} are allowed.",
            stops.len()
        );
        return Err(ApiError::invalid("stop", message));
    }
    if stops
        .iter()
        .any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
    {
        let message = format!("Each text of `stop` must have 1 to {MAX_STOP_BYTES} bytes.");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

fn max_tokens(root: Fields<'_, '_>) -> Result<Option<u32>, ApiError> {
    let read = |field| root.integer(field, 1, i64::from(u32::MAX));
    let (new, old) = (read("max_completion_tokens")?, read("max_tokens")?);
    Ok(new
        .or(old)
        .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)))
}

fn logprobs(root: Fields<'_, '_>) -> Result<Option<usize>, ApiError> {
    let wanted = root.flag("logprobs")?;
    let top = root.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)?;
    if top.is_some() && !wanted {
        let message = "`top_logprobs` needs `logprobs` to be true.";
        return Err(ApiError::invalid("top_logprobs", message));
    }
    Ok(wanted.then(|| top.and_then(|top| usize::try_from(top).ok()).unwrap_or(0)))
}

fn include_usage(root: Fields<'_, '_>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = root.get("stream_options") else {
        return Ok(false);
    };
    if !stream {
        let message = "`stream_options` needs `stream` to be true.";
        return Err(ApiError::invalid("stream_options", message));
    }
    Fields::at(options, "stream_options")?.flag("include_usage")
}

fn session(headers: &HeaderMap, root: Fields<'_, '_>) -> Result<Option<SessionId>, ApiError> {
    let metadata = root
        .object("metadata")?
        .and_then(|fields| fields.get("session_id"));
    let (name, id) = if let Some(id) = header(headers, "x-session-id")? {
        ("x-session-id", Some(id))
    } else if let Some(id) = root.text("session_id")? {
        ("session_id", Some(id))
    } else if let Some(Value::String(id)) = metadata {
        ("metadata.session_id", Some(id.as_str()))
    } else {
        ("prompt_cache_key", root.text("prompt_cache_key")?)
    };
    let Some(id) = id.map(str::trim).filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ';
    if id.len() > MAX_SESSION_BYTES || !id.bytes().all(visible) {
        let message =
            format!("`{name}` must be at most {MAX_SESSION_BYTES} printable ASCII characters.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(SessionId::new(id)))
}

fn user(root: Fields<'_, '_>) -> Result<Option<String>, ApiError> {
    let Some(user) = root.text("user")?.filter(|user| !user.is_empty()) else {
        return Ok(None);
    };
    if user.len() > MAX_USER_BYTES {
        let message = format!("`user` must have at most {MAX_USER_BYTES} bytes.");
        return Err(ApiError::invalid("user", message));
    }
    Ok(Some(user.to_owned()))
}

fn kind(headers: &HeaderMap) -> Result<Option<TurnKind>, ApiError> {
    match header(headers, "x-turn-type")? {
        None => Ok(None),
        Some("main") => Ok(Some(TurnKind::Main)),
        Some("side") => Ok(Some(TurnKind::Side)),
        Some(other) => {
            let message = format!("`x-turn-type` is `{other}`, but must be main or side.");
            Err(ApiError::invalid("x-turn-type", message))
        }
    }
}

fn session_done(headers: &HeaderMap) -> Result<bool, ApiError> {
    match header(headers, "x-session-done")? {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => {
            let message = format!("`x-session-done` is `{other}`, but must be true or false.");
            Err(ApiError::invalid("x-session-done", message))
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    headers
        .get(name)
        .map(|value| {
            value.to_str().map(str::trim).map_err(|_| {
                ApiError::invalid(
                    name,
                    format!("`{name}` must be printable ASCII characters."),
                )
            })
        })
        .transpose()
}
