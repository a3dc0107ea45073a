//! From a turn to its handler: pieces of a reply, and how much of them may wait for a client that does not read.
//!
//! A turn never waits for its client, whose reply is recorded whatever it reads. So pieces wait here, in room that all replies share and of
//! which a tenant has half at most; when there is none left, or too much waits already, the client is too far behind. One that keeps up needs no
//! room, so that nobody who does not read can harm it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use rl::TenantId;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::api_error::ApiError;
use super::reply::TokenLogprob;
use super::shares::{Room, Shares};
use super::turn::Piece;

/// What room is counted in.
const UNIT: usize = 1 << 10;
/// Bytes of all replies that wait, and of log-probs that are collected for a reply that is sent whole.
const ROOM: usize = 8 << 20;
/// Bytes of a reply that wait without room: about what a connection takes anyway.
const AHEAD: usize = 16 << 10;
/// Most bytes of a reply that wait: some thousand pieces of text, or a thousand with 20 alternatives.
const MOST: usize = 2 << 20;
/// A reply that is sent whole is there as it is collected and as it is written.
const COPIES: usize = 2;
/// Most bytes that replies hold which are not read.
pub const UNREAD_BYTES: usize = COPIES * ROOM;

/// The room for all replies.
#[derive(Debug)]
pub(crate) struct Replies {
    room: Shares,
}

/// A turn's end.
pub(crate) struct Sender {
    pieces: UnboundedSender<(Piece, Held)>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    room: Shares,
    tenant: TenantId,
}

/// A handler's end. Dropping it tells the turn that the client is gone.
pub(crate) struct Receiver {
    pieces: UnboundedReceiver<(Piece, Held)>,
}

/// What a piece takes until it is read.
struct Held {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
    _room: Option<Room>,
}

/// The client does not read as fast as the reply is written, and the piece was not kept.
#[derive(Debug)]
pub(crate) struct Behind;

/// The log-probs of a reply that is sent whole.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) logprobs: Vec<TokenLogprob>,
    bytes: usize,
    room: Room,
}

/// A reply that is sent whole, with its room.
struct Whole {
    json: String,
    _room: Option<Room>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        let units = ROOM / UNIT;
        Self {
            room: Shares::new(units, units / 2),
        }
    }

    /// Between a tenant's turn and its handler.
    pub(crate) fn channel(&self, tenant: &TenantId) -> (Sender, Receiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let sender = Sender {
            pieces: sender,
            waiting: Arc::default(),
            room: self.room.clone(),
            tenant: tenant.clone(),
        };
        (sender, Receiver { pieces: receiver })
    }

    /// For so many tokens' log-probs, each with `alternatives`.
    ///
    /// # Errors
    /// When no tenant has room for that many.
    pub(crate) fn collect(
        &self,
        tenant: &TenantId,
        tokens: u32,
        alternatives: usize,
    ) -> Result<Collected, ApiError> {
        let each = TokenLogprob::least_bytes(alternatives);
        let most = self.room.share() * UNIT / each;
        if tokens as usize > most {
            let message = format!(
                "With {alternatives} alternatives a reply that is sent whole can have {most} tokens; ask for a stream, or fewer with `max_tokens`."
            );
            return Err(ApiError::invalid("top_logprobs", message));
        }
        // None yet is always there.
        let room = self.room.try_take(tenant, 0).ok_or_else(full)?;
        Ok(Collected {
            logprobs: Vec::new(),
            bytes: 0,
            room,
        })
    }
}

impl Sender {
    /// Keeps a piece until it is read. One that nothing waits before is always kept.
    pub(crate) fn send(&self, piece: Piece) -> Result<(), Behind> {
        let bytes = piece.bytes();
        let waiting = self.waiting.load(Ordering::Relaxed);
        let room = match waiting {
            0 => None,
            _ if waiting + bytes <= AHEAD => None,
            _ if waiting + bytes > MOST => return Err(Behind),
            _ => {
                let units = bytes.div_ceil(UNIT);
                Some(self.room.try_take(&self.tenant, units).ok_or(Behind)?)
            }
        };
        self.keep(piece, bytes, room);
        Ok(())
    }

    /// The last piece of a reply that failed: a few words, for which there is always room.
    pub(crate) fn fail(&self, error: ApiError) {
        self.keep(Piece::Failed(error), 0, None);
    }

    /// Until the client is gone.
    pub(crate) async fn closed(&self) {
        self.pieces.closed().await;
    }

    fn keep(&self, piece: Piece, bytes: usize, room: Option<Room>) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let held = Held {
            bytes,
            waiting: Arc::clone(&self.waiting),
            _room: room,
        };
        // A client that is gone is noticed by who awaits `closed`.
        let _ = self.pieces.send((piece, held));
    }
}

impl Receiver {
    /// The next piece; none after the last.
    pub(crate) async fn recv(&mut self) -> Option<Piece> {
        self.pieces.recv().await.map(|(piece, _)| piece)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Collected {
    /// Adds a piece's.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(crate) fn add(&mut self, more: Vec<TokenLogprob>) -> Result<(), ApiError> {
        self.bytes += more.iter().map(TokenLogprob::bytes).sum::<usize>();
        if !self.room.resize(self.bytes.div_ceil(UNIT)) {
            return Err(full());
        }
        self.logprobs.extend(more);
        Ok(())
    }
}

/// A whole reply as a body, which keeps its room until it is sent.
pub(crate) fn body(json: String, collected: Option<Collected>) -> Bytes {
    let room = collected.map(|collected| collected.room);
    Bytes::from_owner(Whole { json, _room: room })
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.json.as_bytes()
    }
}

fn full() -> ApiError {
    let message = "The log-probs of replies that are sent whole fill this host's memory for them; try again shortly, or ask for a stream.";
    ApiError::unavailable("overloaded", message)
}

#[cfg(test)]
mod tests {
    use super::super::reply::Delta;
    use super::*;

    fn piece(bytes: usize) -> Piece {
        Piece::Delta(Delta {
            content: "x".repeat(bytes),
            ..Delta::default()
        })
    }

    /// How many pieces of 1000 bytes are kept.
    fn fill(sender: &Sender) -> usize {
        std::iter::repeat_with(|| sender.send(piece(1000)))
            .take_while(Result::is_ok)
            .count()
    }

    #[tokio::test]
    async fn what_a_client_does_not_read_has_a_limit_and_reading_makes_room() {
        let replies = Replies::new();
        let (sender, mut receiver) = replies.channel(&TenantId::new("anna"));
        let kept = fill(&sender);
        assert!(kept > 1000 && kept * 1000 < MOST, "{kept}");
        receiver.recv().await.unwrap();
        assert!(sender.send(piece(1000)).is_ok());
        drop(receiver);
        let share = replies.room.share();
        assert!(
            replies
                .room
                .try_take(&TenantId::new("anna"), share)
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_tenant_whose_clients_do_not_read_takes_half_of_the_room_and_those_who_read_need_none()
     {
        let replies = Replies::new();
        let mut stalled = Vec::new();
        for tenant in ["anna", "ben"] {
            let tenant = TenantId::new(tenant);
            for _ in 0..10 {
                let (sender, receiver) = replies.channel(&tenant);
                fill(&sender);
                stalled.push((sender, receiver));
            }
            let left = replies.room.try_take(&tenant, 2);
            assert!(left.is_none());
        }
        let (sender, mut receiver) = replies.channel(&TenantId::new("carl"));
        for _ in 0..100 {
            sender.send(piece(AHEAD * 2)).unwrap();
            receiver.recv().await.unwrap();
        }
    }

    #[test]
    fn a_whole_reply_keeps_its_room_until_it_is_sent_and_one_that_is_too_large_is_refused() {
        let replies = Replies::new();
        let tenant = TenantId::new("anna");
        let refused = replies.collect(&tenant, 8192, 20).unwrap_err();
        assert!(
            refused.json().contains("ask for a stream"),
            "{}",
            refused.json()
        );
        let mut collected = replies.collect(&tenant, 1024, 20).unwrap();
        let token = TokenLogprob {
            token: "x".repeat(4000),
            logprob: -1.0,
            bytes: vec![0; 4000],
            top_logprobs: Vec::new(),
        };
        while collected.add(vec![token.clone()]).is_ok() {}
        assert!(collected.logprobs.len() > 400 && collected.logprobs.len() < 600);
        let body = body("{}".to_owned(), Some(collected));
        assert!(replies.room.try_take(&tenant, 100).is_none());
        assert_eq!(&body[..], b"{}");
        drop(body);
        assert!(replies.room.try_take(&tenant, 100).is_some());
    }
}
