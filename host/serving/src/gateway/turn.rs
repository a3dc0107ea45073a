//! One turn, from its beginning in the sink to its durable end, in a task of its own.
//!
//! The task outlives the connection: when the client goes away it stops computing and still records what was served.
//! It speaks to the handler in [`Piece`]s and knows nothing of HTTP bodies. The sink's word comes before the reply's
//! last piece: what is not durable is not acknowledged.

use std::sync::Arc;
use std::time::Instant;

use rl::{
    FinishReason, Message, Role, Sampling, Seed, Served, SessionId, TenantId, Ticket, TokenId,
    TurnRequest, Weights,
};

use super::api_error::ApiError;
use super::parse::{Format, ReplyParser};
use super::pieces::{Behind, Sender};
use super::reply::{Counts, Delta, TokenLogprob, TopLogprob};
use super::service::{Backend, Service};
use super::shares::Room;
use crate::engine::{Event, Permit, SampleJob, Started, Token, TokenStream};

/// What the handler needs before the first byte of a reply.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) ticket: Ticket,
    pub(crate) started: Started,
}

/// What a turn sends to its handler.
#[derive(Debug)]
pub(crate) enum Piece {
    /// It left the queue. Always first, unless it fails before.
    Head(Head),
    /// Something was sampled.
    Delta(Delta),
    /// It is durable. Always last, unless it fails.
    Done {
        message: Message,
        finish: FinishReason,
        counts: Counts,
    },
    /// It cannot be completed.
    Failed(ApiError),
}

impl Piece {
    /// About what it takes until it is read.
    pub(crate) fn bytes(&self) -> usize {
        let own = size_of::<Self>();
        match self {
            Self::Head(_) | Self::Failed(_) => own,
            Self::Delta(delta) => own + delta.bytes(),
            Self::Done { message, .. } => own + text_bytes(message),
        }
    }
}

fn text_bytes(message: &Message) -> usize {
    let reasoning = message.reasoning.as_ref().map_or(0, String::len);
    let calls = message.tool_calls.iter();
    let calls = calls.map(|call| size_of_val(call) + call.arguments.len());
    message.content.len() + reasoning + calls.sum::<usize>()
}

/// A turn that has not begun.
pub(crate) struct Turn {
    pub(crate) service: Arc<Service>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) permit: Permit,
    /// Of the messages, which it holds to its end.
    pub(crate) _room: Room,
    pub(crate) request: TurnRequest,
    pub(crate) weights: Weights,
    pub(crate) prompt: Vec<TokenId>,
    /// Without a seed, which needs the turn's id.
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<Seed>,
    pub(crate) logprobs: Option<usize>,
    pub(crate) format: Format,
    pub(crate) arrived: Instant,
}

/// What was served so far.
struct Record {
    started: Option<Started>,
    response: Vec<TokenId>,
    logprobs: Vec<f32>,
    message: Message,
}

impl Turn {
    /// Runs the turn to its end, whatever the client does.
    pub(crate) async fn run(self, pieces: Sender) {
        let metrics = self.service.metrics.clone();
        metrics.turns_in_flight.inc();
        let last = self.serve(&pieces).await;
        metrics.turns_in_flight.dec();
        // The client may be gone; the turn is recorded either way.
        let sent = last.and_then(|done| pieces.send(done).map_err(|Behind| ApiError::unread()));
        if let Err(error) = sent {
            pieces.fail(error);
        }
    }

    async fn serve(self, pieces: &Sender) -> Result<Piece, ApiError> {
        let tenant = self.request.tenant.clone();
        let ticket = self.backend.sink.begin(self.request).await?;
        let mut sampling = self.sampling;
        sampling.seed = self
            .seed
            .unwrap_or_else(|| Seed::default().derive(ticket.turn.as_str()));
        let job = SampleJob {
            weights: self.weights,
            bucket: bucket(&tenant, &ticket.session),
            prompt: self.prompt.clone(),
            sampling: sampling.clone(),
            top_logprobs: self.logprobs.unwrap_or(0),
        };
        let mut progress = Progress {
            service: &self.service,
            backend: &self.backend,
            pieces,
            ticket: &ticket,
            with_logprobs: self.logprobs.is_some(),
            parser: ReplyParser::new(self.format, &ticket.turn),
            record: Record {
                started: None,
                response: Vec::new(),
                logprobs: Vec::new(),
                message: Message::new(Role::Assistant, ""),
            },
            arrived: self.arrived,
            is_behind: false,
        };
        let mut outcome = progress.follow(self.permit.submit(job)).await;
        let (record, is_behind) = progress.finish();
        if is_behind {
            self.service.metrics.turns_unread.inc();
            tracing::info!(%tenant, "a reply is cut off: its client does not read it");
            outcome = Err(ApiError::unread());
        }
        let finish = match &outcome {
            Ok(FinishReason::Stop) if !record.message.tool_calls.is_empty() => {
                FinishReason::ToolCalls
            }
            Ok(finish) => *finish,
            // Recorded as cut off, so that a begun turn always ends and is never trained.
            Err(_) => FinishReason::Cancelled,
        };
        let counts = Counts {
            prompt: self.prompt.len(),
            cached: record.started.as_ref().map_or(0, |started| started.reused),
            completion: record.response.len(),
        };
        let served = Served {
            version: record
                .started
                .as_ref()
                .map(|s| s.version)
                .unwrap_or_default(),
            adapter_digest: record
                .started
                .map(|s| s.adapter_digest.to_string())
                .unwrap_or_default(),
            prompt: self.prompt,
            response: record.response,
            logprobs: record.logprobs,
            sampling,
            reply: record.message.clone(),
            finish,
        };
        self.backend.sink.finish(ticket, served).await?;
        self.service
            .metrics
            .turn_seconds
            .observe(self.arrived.elapsed().as_secs_f64());
        outcome.map(|_| Piece::Done {
            message: record.message,
            finish,
            counts,
        })
    }
}

/// Where a session lies among all: a trial gives the lower buckets the candidate, each session always the same.
fn bucket(tenant: &TenantId, session: &SessionId) -> u64 {
    // Chained, so that no tenant's name and session can be read as another's.
    let place = Seed::default().derive("trial").derive(tenant.as_str());
    place.derive(session.as_str()).get()
}

/// A turn while the engine works on it.
struct Progress<'a> {
    service: &'a Service,
    backend: &'a Backend,
    pieces: &'a Sender,
    ticket: &'a Ticket,
    with_logprobs: bool,
    parser: ReplyParser,
    record: Record,
    arrived: Instant,
    /// The client did not take what it was sent, and gets nothing more.
    is_behind: bool,
}

impl Progress<'_> {
    /// Passes on what the engine says until it ends, the client goes away or is too far behind, or the host must stop.
    async fn follow(&mut self, mut stream: TokenStream) -> Result<FinishReason, ApiError> {
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.pieces.closed() => None,
                () = self.service.abort.cancelled() => None,
            };
            match event {
                Some(Event::Started(started)) => {
                    self.record.started = Some(started.clone());
                    self.send(Piece::Head(Head {
                        ticket: self.ticket.clone(),
                        started,
                    }));
                }
                Some(Event::Token(token)) => {
                    self.token(&token);
                    if self.is_behind {
                        return Ok(FinishReason::Cancelled);
                    }
                }
                Some(Event::Done { finish, text }) => {
                    let delta = self.parser.push(&text);
                    self.add(delta);
                    return Ok(finish);
                }
                Some(Event::Failed(refusal)) => return Err(refusal.into()),
                // Dropping the stream makes the engine stop at its next step.
                None => {
                    self.service.metrics.turns_cancelled.inc();
                    return Ok(FinishReason::Cancelled);
                }
            }
        }
    }

    fn token(&mut self, token: &Token) {
        if self.record.response.is_empty() {
            let seconds = self.arrived.elapsed().as_secs_f64();
            self.service.metrics.first_token_seconds.observe(seconds);
        }
        self.record.response.push(token.id);
        self.record.logprobs.push(token.logprob);
        let mut delta = self.parser.push(&token.text);
        if self.with_logprobs && !token.is_stop {
            delta.logprobs = Some(vec![self.logprob(token)]);
        }
        self.add(delta);
    }

    fn logprob(&self, token: &Token) -> TokenLogprob {
        let bytes = |id| self.backend.engine.token_bytes(id);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own = bytes(token.id);
        TokenLogprob {
            token: text(&own),
            logprob: token.logprob,
            bytes: own,
            top_logprobs: token
                .top
                .iter()
                .map(|&(id, logprob)| {
                    let bytes = bytes(id);
                    TopLogprob {
                        token: text(&bytes),
                        logprob,
                        bytes,
                    }
                })
                .collect(),
        }
    }

    /// The record, with what the parser held back, and whether the client did not take all of it.
    fn finish(mut self) -> (Record, bool) {
        let delta = self.parser.finish();
        self.add(delta);
        (self.record, self.is_behind)
    }

    /// Adds to the recorded message exactly what the client is shown, if it reads it.
    fn add(&mut self, delta: Delta) {
        let message = &mut self.record.message;
        message.content.push_str(&delta.content);
        if !delta.reasoning.is_empty() {
            message
                .reasoning
                .get_or_insert_default()
                .push_str(&delta.reasoning);
        }
        for part in &delta.calls {
            if message.tool_calls.len() <= part.index {
                message
                    .tool_calls
                    .resize_with(part.index + 1, || rl::ToolCall {
                        id: String::new(),
                        name: String::new(),
                        arguments: String::new(),
                    });
            }
            let call = &mut message.tool_calls[part.index];
            call.id.push_str(part.id.as_deref().unwrap_or_default());
            call.name.push_str(part.name.as_deref().unwrap_or_default());
            call.arguments.push_str(&part.arguments);
        }
        let silent = delta.content.is_empty()
            && delta.reasoning.is_empty()
            && delta.calls.is_empty()
            && delta.logprobs.is_none();
        if !silent {
            self.send(Piece::Delta(delta));
        }
    }

    fn send(&mut self, piece: Piece) {
        self.is_behind = self.is_behind || self.pieces.send(piece).is_err();
    }
}
