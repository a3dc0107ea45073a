//! A reply as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};

use super::pieces::Receiver;
use super::reply::Envelope;
use super::turn::Piece;

/// How a streamed reply is written.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub(crate) envelope: Envelope,
    pub(crate) include_usage: bool,
    pub(crate) keep_alive: Duration,
}

/// The response: the role at once, then pieces as they come. Dropping it tells the turn that the client is gone.
pub(crate) fn respond(style: Style, pieces: Receiver) -> Response {
    let keep_alive = KeepAlive::new()
        .interval(style.keep_alive)
        .text("keep-alive");
    Sse::new(events(style, pieces))
        .keep_alive(keep_alive)
        .into_response()
}

fn events(style: Style, pieces: Receiver) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = style.envelope.role(style.include_usage);
    let rest = stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    })
    .flat_map(move |piece| stream::iter(lines(&style, &piece)));
    stream::iter([first])
        .chain(rest)
        .map(|line| Ok(Event::default().data(line)))
}

fn lines(style: &Style, piece: &Piece) -> Vec<String> {
    let Style {
        envelope,
        include_usage,
        ..
    } = style;
    match piece {
        Piece::Head(_) => Vec::new(),
        Piece::Delta(delta) => vec![envelope.delta(delta, *include_usage)],
        Piece::Done { finish, counts, .. } => {
            let mut lines = vec![envelope.finish(*finish, *include_usage)];
            if *include_usage {
                lines.push(envelope.usage(*counts));
            }
            lines.push("[DONE]".to_owned());
            lines
        }
        // The status is sent already: clients raise on an event that holds `error`. No `[DONE]` follows.
        Piece::Failed(error) => vec![error.json()],
    }
}
