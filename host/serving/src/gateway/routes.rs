//! The routes: each handler checks who calls, reads the request, and leaves the work to a [`Turn`].

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rl::{Feedback, Rating, TenantId, TurnId, TurnKind, TurnRequest, Weights};
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use super::api_error::ApiError;
use super::auth::Caller;
use super::connections::parted;
use super::fields::Fields;
use super::http::PIECE;
use super::messages::ToolChoice;
use super::operator;
use super::parse::Format;
use super::pieces::{self, Collected, Receiver};
use super::reply::{Delta, Envelope};
use super::request::{self, ChatRequest};
use super::service::{Backend, Service};
use super::shares::Room;
use super::stream::{self, Style};
use super::turn::{Head, Piece, Turn};
use crate::engine::Priority;
use crate::metrics::RequestLabels;

/// Digits of an adapter's digest in `system_fingerprint`.
const SHORT_DIGEST: usize = 12;

pub(super) type Shared = State<Arc<Service>>;

/// All routes.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/feedback", post(feedback))
        .route("/v1/status", get(status))
        .route("/v1/history", post(operator::answer))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || ApiError::unknown_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn_with_state(Arc::clone(service), count))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(Arc::clone(service))
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // The panic's message is on stderr; it may hold a text and is not for clients.
    tracing::error!("a request handler panicked");
    ApiError::internal("The host failed to answer.").into_response()
}

async fn count(State(service): Shared, request: Request, next: Next) -> Response {
    // A few fixed words: a label made from a path would let clients fill the memory.
    let route = match request.uri().path() {
        "/v1/chat/completions" => "chat",
        "/v1/feedback" => "feedback",
        "/v1/status" | "/v1/history" | "/healthz" | "/readyz" | "/metrics" => "operator",
        path if path.starts_with("/v1/models") => "models",
        _ => "unknown",
    };
    let response = next.run(request).await;
    let labels = RequestLabels {
        route,
        status: response.status().as_u16(),
    };
    service.metrics.requests.get_or_create(&labels).inc();
    response
}

async fn chat(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let caller = service.keys.check(request.headers())?;
    let open = service.open.begin(&caller.tenant)?;
    let backend = service.backend()?;
    let headers = request.headers().clone();
    let (bytes, memory) = service.bodies.read(&caller.tenant, request).await?;
    let request = ChatRequest::read(&headers, &bytes, backend.engine.card().vocab_size)?;
    drop(bytes);
    let weights = backend.resolve(&request.model)?;
    let (request, prompt, format, memory) =
        encode(&service, &backend, &caller.tenant, request, memory).await?;
    let room = backend.engine.room_for(prompt.len())?;
    let permit = backend.engine.reserve(Priority::User, &caller.tenant)?;
    let mut sampling = request.sampling.clone();
    sampling.stop.extend(format.stop().map(str::to_owned));
    sampling.max_tokens = request
        .max_tokens
        .unwrap_or(service.config.default_max_tokens)
        .min(room);
    let collected = match request.logprobs {
        Some(alternatives) if !request.stream => {
            let tokens = sampling.max_tokens;
            let of_tenant = &caller.tenant;
            Some(service.replies.collect(of_tenant, tokens, alternatives)?)
        }
        _ => None,
    };
    let (sender, mut pieces) = service.replies.channel(&caller.tenant);
    let (model, stream) = (request.model.clone(), request.stream);
    let include_usage = request.include_usage;
    let turn = Turn {
        service: Arc::clone(&service),
        backend,
        permit,
        _room: memory,
        weights: weights.clone(),
        prompt,
        sampling,
        seed: request.seed,
        logprobs: request.logprobs,
        format,
        request: turn_request(request, caller, &weights),
        arrived,
    };
    service.turns.spawn(turn.run(sender));
    let head = match pieces.recv().await {
        Some(Piece::Head(head)) => head,
        Some(Piece::Failed(error)) => return Err(error),
        _ => return Err(ApiError::internal("The turn ended before it began.")),
    };
    let envelope = envelope(&head, &model, (service.now)());
    let mut response = if stream {
        let keep_alive = service.config.keep_alive;
        stream::respond(
            Style {
                envelope,
                include_usage,
                keep_alive,
            },
            pieces,
        )
    } else {
        whole(&envelope, pieces, collected).await?
    };
    set_headers(response.headers_mut(), &head);
    Ok(parted(response, open, PIECE))
}

/// Renders the prompt on a blocking thread: a long conversation takes milliseconds. When the client goes away the thread goes on, and the
/// room of the request with it.
async fn encode(
    service: &Service,
    backend: &Arc<Backend>,
    tenant: &TenantId,
    request: ChatRequest,
    room: Room,
) -> Result<(ChatRequest, Vec<rl::TokenId>, Format, Room), ApiError> {
    // Texts that are certainly too long are not made tokens of, which takes twenty times their memory.
    let text = request.messages.iter().map(|m| m.content.len()).sum();
    let least = backend.engine.least_tokens(text);
    if least > 0 {
        backend.engine.room_for(least)?;
    }
    let alone = service.encoding.take(tenant, 1).await;
    let backend = Arc::clone(backend);
    let encode = move || {
        let _alone = alone;
        let format = Format::new(&backend.engine, &request.tool_choice, &request.tools);
        let tools = match request.tool_choice {
            ToolChoice::None => &[][..],
            _ => &request.tools,
        };
        let prompt = backend
            .engine
            .encode_chat(&request.messages, tools, format.prefix())?;
        Ok((request, prompt, format, room))
    };
    let joined = tokio::task::spawn_blocking(encode).await;
    joined.map_err(|_| ApiError::internal("The prompt could not be rendered."))?
}

fn turn_request(request: ChatRequest, caller: Caller, weights: &Weights) -> TurnRequest {
    TurnRequest {
        tenant: caller.tenant,
        key: caller.key,
        adapter: match weights {
            Weights::Base => None,
            Weights::Adapter(name) => Some(name.clone()),
        },
        session: request.session,
        user: request.user,
        kind: request.kind,
        session_done: request.session_done,
        messages: request.messages,
        tools: request.tools,
    }
}

fn envelope(head: &Head, model: &str, created: u64) -> Envelope {
    let digest = &head.started.adapter_digest;
    let short = digest.get(..SHORT_DIGEST).unwrap_or(digest);
    let dash = if short.is_empty() { "" } else { "-" };
    Envelope {
        id: head.ticket.turn.to_string(),
        created,
        model: model.to_owned(),
        fingerprint: format!("{model}@{}{dash}{short}", head.started.version),
    }
}

fn set_headers(headers: &mut HeaderMap, head: &Head) {
    let mut set = |name: &'static str, value: &str| {
        // A value that is no header (a session id from a plugin, say) is left out rather than failing the reply.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-policy-version", &head.started.version.get().to_string());
    if !head.started.adapter_digest.is_empty() {
        set("x-adapter-digest", &head.started.adapter_digest);
    }
    set("x-session-id", head.ticket.session.as_str());
    let kind = match head.ticket.kind {
        TurnKind::Main => "main",
        TurnKind::Side => "side",
        TurnKind::Unclassified => "unclassified",
    };
    set("x-turn-type", kind);
}

async fn whole(
    envelope: &Envelope,
    mut pieces: Receiver,
    mut collected: Option<Collected>,
) -> Result<Response, ApiError> {
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Delta(Delta {
                logprobs: Some(more),
                ..
            }) => {
                if let Some(collected) = &mut collected {
                    collected.add(more)?;
                }
            }
            Piece::Head(_) | Piece::Delta(_) => {}
            Piece::Done {
                message,
                finish,
                counts,
            } => {
                let logprobs = collected.as_ref().map(|all| &all.logprobs[..]);
                let json = envelope.whole(&message, finish, logprobs, counts);
                let body = pieces::body(json, collected);
                return Ok(([(CONTENT_TYPE, "application/json")], body).into_response());
            }
            Piece::Failed(error) => return Err(error),
        }
    }
    Err(ApiError::internal("The turn ended without a reply."))
}

async fn models(State(service): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    service.keys.check(&headers)?;
    let backend = service.backend()?;
    let data: Vec<Value> = backend
        .models()
        .into_iter()
        .map(|(id, weights)| describe(&service, &backend, &id, &weights))
        .collect::<Result<_, _>>()?;
    Ok(axum::Json(json!({ "object": "list", "data": data })).into_response())
}

async fn model(
    State(service): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    service.keys.check(&headers)?;
    let backend = service.backend()?;
    let weights = backend.resolve(&id)?;
    Ok(axum::Json(describe(&service, &backend, &id, &weights)?).into_response())
}

fn describe(
    service: &Service,
    backend: &Backend,
    id: &str,
    weights: &Weights,
) -> Result<Value, ApiError> {
    let (version, digest) = backend.engine.deployed(weights)?;
    Ok(json!({
        "id": id,
        "object": "model",
        "created": service.started,
        "owned_by": "nextstate",
        "max_model_len": backend.engine.card().context,
        "policy_version": version.get(),
        "adapter_digest": &*digest,
    }))
}

async fn feedback(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let caller = service.keys.check(request.headers())?;
    let _open = service.open.begin(&caller.tenant)?;
    let backend = service.backend()?;
    let (bytes, _room) = service.bodies.read(&caller.tenant, request).await?;
    let object = request::object(&bytes)?;
    let root = Fields::root(&object);
    let id = root.required_text("id")?;
    let rating = match root.text("rating")? {
        None => None,
        Some("up") => Some(Rating::Up),
        Some("down") => Some(Rating::Down),
        Some(other) => {
            let message = format!("`rating` is `{other}`, but must be up or down.");
            return Err(ApiError::invalid("rating", message));
        }
    };
    let correction = root
        .text("correction")?
        .filter(|text| !text.trim().is_empty());
    if rating.is_none() && correction.is_none() {
        let message = "Give a `rating`, a `correction` or both.";
        return Err(ApiError::invalid("rating", message));
    }
    let feedback = Feedback {
        tenant: caller.tenant,
        turn: TurnId::new(id),
        rating,
        correction: correction.map(str::to_owned),
    };
    match backend.sink.feedback(feedback).await {
        Ok(()) => Ok(
            axum::Json(json!({ "id": id, "object": "feedback", "recorded": true })).into_response(),
        ),
        // Another tenant's reply is as unknown as one that never was.
        Err(rl::Error::Refused { .. }) => Err(ApiError::unknown_reply(id)),
        Err(other) => Err(other.into()),
    }
}

async fn status(State(service): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    let caller = service.keys.check(&headers)?;
    let backend = service.backend()?;
    let status = Arc::clone(&backend.status);
    // The closure may read a store.
    let value = tokio::task::spawn_blocking(move || status(&caller.tenant)).await;
    let value = value.map_err(|_| ApiError::internal("The status could not be read."))?;
    Ok(axum::Json(value).into_response())
}

async fn ready(State(service): Shared) -> Result<&'static str, ApiError> {
    service.backend().map(|_| "ready")
}

async fn metrics(State(service): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    service.keys.check(&headers)?;
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, &service.registry.lock());
    encoded.map_err(|_| ApiError::internal("The metrics could not be written."))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
