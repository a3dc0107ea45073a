//! A client's session: one WebSocket, an episode at a time.
//!
//! Messages are `reset`, `step`, `state` and `close`, as OpenEnv has them. Its episode ends with it.

use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::{
    episodes::{Episodes, Running},
    protocol::{Failure, action, reset},
};
use crate::interop::deadline::Timed;

/// Serves a session until the client closes it or says nothing for too long. `read` is what it sent already.
pub(super) fn serve(stream: Timed, read: Vec<u8>, episodes: &Episodes) {
    let most = Some(episodes.limits.body_bytes);
    let sizes = WebSocketConfig::default()
        .max_message_size(most)
        .max_frame_size(most);
    let mut socket = WebSocket::from_partially_read(stream, read, Role::Server, Some(sizes));
    let mut running = None;
    let talked = talk(&mut socket, &mut running, episodes);
    // Before the goodbye: a client that has seen it may count on the place.
    drop(running);
    if let Err(error) = talked {
        // Nothing may be read after an error: tungstenite panics when that was a message that was too long.
        tracing::debug!(%error, "a session broke");
        return;
    }
    socket.get_mut().allow(episodes.limits.request);
    let closed = socket.close(None).and_then(|()| socket.flush());
    if closed.is_ok() {
        while socket.read().is_ok() {}
    }
}

fn talk(
    socket: &mut WebSocket<Timed>,
    running: &mut Option<Running>,
    episodes: &Episodes,
) -> tungstenite::Result<()> {
    loop {
        socket.get_mut().allow(episodes.limits.idle);
        let text = match socket.read()? {
            Message::Text(text) => text,
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Binary(_) | Message::Frame(_) => return Ok(()),
        };
        let answer = match answer(text.as_str(), running, episodes) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(()),
            Err(failure) => failure.message(),
        };
        socket.get_mut().allow(episodes.limits.request);
        socket.send(Message::text(answer.to_string()))?;
    }
}

/// The answer to a message; none to `close`.
fn answer(
    text: &str,
    running: &mut Option<Running>,
    episodes: &Episodes,
) -> Result<Option<Value>, Failure> {
    let message: Value = serde_json::from_str(text)
        .map_err(|error| Failure::Json(format!("the message is not JSON: {error}")))?;
    let not_begun = || Failure::Over("there is no episode yet: reset".into());
    let data = &message["data"];
    match message["type"].as_str().unwrap_or_default() {
        "reset" => {
            let wanted = match data {
                Value::Null => reset(&json!({}))?,
                data => reset(data)?,
            };
            // The old one first: it holds a place that the new one may need.
            *running = None;
            let begun = running.insert(episodes.start(wanted)?);
            let data = begun.begin()?;
            Ok(Some(json!({"type": "observation", "data": data})))
        }
        "step" => {
            let action = action(data)?;
            let data = running.as_mut().ok_or_else(not_begun)?.step(&action)?;
            Ok(Some(json!({"type": "observation", "data": data})))
        }
        "state" => {
            let data = running.as_ref().map(Running::state);
            let idle = || json!({"episode_id": null, "step_count": 0});
            Ok(Some(
                json!({"type": "state", "data": data.unwrap_or_else(idle)}),
            ))
        }
        "close" => Ok(None),
        other => {
            let other: String = other.chars().take(64).collect();
            Err(Failure::Unknown(format!(
                "there is no message of type `{other}`: reset, step, state and close are spoken here"
            )))
        }
    }
}
