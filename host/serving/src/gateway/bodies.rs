//! The memory of requests: a body is read only when there is room for it, and its request keeps the room to its end.
//!
//! A request holds its body several times over, as bytes, as messages and as the prompt's text, until its turn is durable, and any number of
//! them can arrive at once. Room is counted in bytes of bodies and given in the order of arrival; whoever waits too long for it is told to
//! try again. Not the queue: that is for computing, and is asked when the body has been read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header::CONTENT_LENGTH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Config;
use super::api_error::ApiError;

/// What room is counted in: bytes would be more than a semaphore counts.
const UNIT: usize = 1 << 10;
/// Bytes that a JSON value takes beside its text; hostile bodies are nothing but values.
const VALUE: usize = 128;
/// Most values of a body: read on all of the runtime's threads at once they are what the plan of a host's memory has for the program.
const MAX_VALUES: usize = 1 << 16;
/// A body that takes longer keeps others out.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The room for all bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    units: usize,
    most: usize,
    wait: Duration,
}

/// The room of one request, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _units: Vec<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(crate) fn new(config: &Config) -> Self {
        let units = config.body_bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(units)),
            units,
            most: config.max_body_bytes,
            wait: config.max_body_wait,
        }
    }

    /// Reads a body when there is room. Who asks must have been checked.
    pub(crate) async fn read(&self, request: Request) -> Result<(Bytes, Room), ApiError> {
        // A body that does not say how long it is may be as long as any.
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let units = self.units_of(length.unwrap_or(self.most).min(self.most));
        let waiting = timeout(self.wait, Arc::clone(&self.room).acquire_many_owned(units));
        let Ok(Ok(first)) = waiting.await else {
            return Err(full());
        };
        let reading = timeout(ARRIVAL, Bytes::from_request(request, &()));
        let Ok(read) = reading.await else {
            return Err(ApiError::body("The body took too long to arrive."));
        };
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(self.most),
            _ => ApiError::body("The body could not be read."),
        })?;
        let values = values(&bytes);
        if values > MAX_VALUES {
            let message = format!("The body has more than {MAX_VALUES} JSON values.");
            return Err(ApiError::body(message));
        }
        let mut room = vec![first];
        let more = self.units_of(values * VALUE).saturating_sub(units);
        if more > 0 {
            // Whoever has some room already does not wait for more: two of that kind would wait for each other.
            let more = Arc::clone(&self.room).try_acquire_many_owned(more);
            room.push(more.map_err(|_| full())?);
        }
        Ok((bytes, Room { _units: room }))
    }

    /// All of the room at most: a larger body is refused when it is read.
    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

fn full() -> ApiError {
    let message =
        "The requests that this host works on fill its memory for bodies; try again shortly.";
    ApiError::unavailable("overloaded", message)
}

/// At least as many as there are values in a JSON text: each one but the first follows one of these outside of strings.
fn values(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&Config {
            body_bytes: 16 << 10,
            max_body_bytes: 12 << 10,
            max_body_wait: Duration::ZERO,
            ..Config::default()
        })
    }

    async fn read(bodies: &Bodies, body: String, says: bool) -> Result<(Bytes, Room), ApiError> {
        let request = Request::builder();
        let request = match says {
            true => request.header(CONTENT_LENGTH, body.len()),
            false => request,
        };
        bodies.read(request.body(Body::from(body)).unwrap()).await
    }

    fn text(kib: usize) -> String {
        "x".repeat(kib << 10)
    }

    #[tokio::test]
    async fn bodies_are_read_while_there_is_room_and_a_request_that_ends_makes_room() {
        let bodies = bodies();
        let first = read(&bodies, text(10), true).await.unwrap();
        let second = read(&bodies, text(6), true).await.unwrap();
        let third = read(&bodies, text(1), true).await.unwrap_err();
        assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(third.json().contains("overloaded"), "{}", third.json());
        drop(second);
        // One that does not say its length may be as long as any.
        assert!(read(&bodies, text(1), false).await.is_err());
        assert!(read(&bodies, text(6), true).await.is_ok());
        drop(first);
        assert!(read(&bodies, text(1), false).await.is_ok());
    }

    #[tokio::test]
    async fn values_take_room_though_their_text_is_short() {
        let bodies = bodies();
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count));
        let (_, room) = read(&bodies, zeros(100), true).await.unwrap();
        assert!(read(&bodies, text(4), true).await.is_err());
        drop(room);
        let many = Bodies {
            most: 1 << 20,
            ..bodies
        };
        let error = read(&many, zeros(MAX_VALUES), true).await.unwrap_err();
        assert!(error.json().contains("JSON values"), "{}", error.json());
    }

    #[test]
    fn values_are_what_follows_a_separator_outside_of_strings() {
        for (text, expected) in [
            ("", 1),
            ("[1, 2, [3]]", 5),
            (r#"{"a,b": "[,{", "c\",": 1}"#, 5),
            (r#""\\", 1"#, 2),
        ] {
            assert_eq!(values(text.as_bytes()), expected, "{text}");
        }
    }
}
