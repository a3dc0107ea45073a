//! The memory of requests: a body is read only when there is room for it, and its request keeps the room to its end.
//!
//! A request holds its body several times over, as bytes, as messages and as the prompt's text, until its turn is durable, and any number of
//! them can arrive at once. Room is counted in bytes of bodies and given in the order of arrival; whoever waits too long for it is told to
//! try again. A tenant has half of it at most, and what an operator asks in few words has some of its own, so that nobody can keep all others
//! out. Not the queue: that is for computing, and is asked when the body has been read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header::CONTENT_LENGTH};
use parking_lot::Mutex;
use rl::TenantId;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
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
/// The largest of an operator's requests that are in few words, and the room for all of them: too little to be planned.
const WORDS: usize = 16 << 10;
const WORDS_ROOM: usize = 256 << 10;

/// The room for all bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    /// Units that a tenant has at most, and the rest of them of those who have some.
    share: usize,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
    most: usize,
    wait: Duration,
}

/// The room of one request, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _units: [OwnedSemaphorePermit; 2],
}

impl Bodies {
    pub(crate) fn new(config: &Config) -> Self {
        Self::of(
            config.body_bytes,
            config.max_body_bytes,
            config.max_body_wait,
        )
    }

    /// For what operators ask in few words.
    pub(crate) fn of_operators(config: &Config) -> Self {
        Self::of(WORDS_ROOM, WORDS, config.max_body_wait)
    }

    fn of(bytes: usize, most: usize, wait: Duration) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(units)),
            share: (units / 2).max(most.div_ceil(UNIT)).min(units),
            tenants: Mutex::default(),
            most,
            wait,
        }
    }

    /// The largest body that is read.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Reads a body of a tenant's when there is room. Who asks must have been checked.
    pub(crate) async fn read(
        &self,
        tenant: &TenantId,
        request: Request,
    ) -> Result<(Bytes, Room), ApiError> {
        // A body that does not say how long it is may be as long as any.
        let length = declared(&request).unwrap_or(self.most).min(self.most);
        let units = self.units_of(length);
        let of_tenant = self.of_tenant(tenant);
        let waiting = async {
            let own = Arc::clone(&of_tenant).acquire_many_owned(units).await?;
            let all = Arc::clone(&self.room).acquire_many_owned(units).await?;
            Ok::<_, AcquireError>([own, all])
        };
        let Ok(Ok(mut room)) = timeout(self.wait, waiting).await else {
            return Err(full());
        };
        let reading = timeout(ARRIVAL, Bytes::from_request(request, &()));
        let Ok(read) = reading.await else {
            return Err(ApiError::slow(ARRIVAL));
        };
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(self.most),
            _ => ApiError::body("The body could not be read."),
        })?;
        if bytes.len() > self.most {
            return Err(ApiError::too_large(self.most));
        }
        let values = values(&bytes);
        if values > MAX_VALUES {
            let message = format!("The body has more than {MAX_VALUES} JSON values.");
            return Err(ApiError::body(message));
        }
        let needed = self.units_of(bytes.len().max(values * VALUE));
        // What was kept free for what did not come is others'; whoever has some room already does not wait for more: two of that kind
        // would wait for each other.
        for (held, from) in room.iter_mut().zip([&of_tenant, &self.room]) {
            if needed > units {
                let more = Arc::clone(from).try_acquire_many_owned(needed - units);
                held.merge(more.map_err(|_| full())?);
            } else {
                let (needed, held_now) = (needed as usize, held.num_permits());
                drop(held.split(held_now - needed));
            }
        }
        Ok((bytes, Room { _units: room }))
    }

    /// What is left of a tenant's share; it lives as long as somebody has or wants some of it.
    fn of_tenant(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if let Some(rest) = tenants.get(tenant).and_then(Weak::upgrade) {
            return rest;
        }
        tenants.retain(|_, rest| rest.strong_count() > 0);
        let rest = Arc::new(Semaphore::new(self.share));
        tenants.insert(tenant.clone(), Arc::downgrade(&rest));
        rest
    }

    /// All of a share at most: a larger body is refused when it is read.
    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.share);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

/// The length that a request says its body has.
pub(crate) fn declared(request: &Request) -> Option<usize> {
    let length = request.headers().get(CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok())
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
            max_body_bytes: 16 << 10,
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
        of(bodies, "anna", request.body(Body::from(body)).unwrap()).await
    }

    async fn of(
        bodies: &Bodies,
        tenant: &str,
        request: Request,
    ) -> Result<(Bytes, Room), ApiError> {
        bodies.read(&TenantId::new(tenant), request).await
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
    async fn what_was_kept_free_for_a_body_that_is_shorter_is_given_back_when_it_is_there() {
        let bodies = bodies();
        // It may be as long as all of the room, until it is there.
        let mut held = vec![read(&bodies, text(1), false).await.unwrap()];
        for _ in 1..16 {
            held.push(read(&bodies, text(1), true).await.unwrap());
        }
        assert!(read(&bodies, text(1), true).await.is_err());
    }

    #[tokio::test]
    async fn a_tenant_has_half_of_the_room_and_what_it_had_when_its_requests_end() {
        let bodies = Bodies::of(16 << 10, 8 << 10, Duration::ZERO);
        let post = |kib| {
            let request = Request::builder().header(CONTENT_LENGTH, kib << 10);
            request.body(Body::from(text(kib))).unwrap()
        };
        let first = of(&bodies, "anna", post(8)).await.unwrap();
        assert!(of(&bodies, "anna", post(1)).await.is_err());
        let other = of(&bodies, "ben", post(8)).await.unwrap();
        assert!(of(&bodies, "carl", post(1)).await.is_err(), "all is taken");
        drop(other);
        assert!(of(&bodies, "carl", post(1)).await.is_ok());
        drop(first);
        assert!(of(&bodies, "anna", post(8)).await.is_ok());
        assert!(bodies.tenants.lock().len() <= 2, "who has none is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_cut_off_and_its_room_is_free() {
        let bodies = bodies();
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::builder().header(CONTENT_LENGTH, 16 << 10);
        let slow = of(&bodies, "anna", request.body(never).unwrap()).await;
        let slow = slow.unwrap_err();
        assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(slow.json().contains("30 s"), "{}", slow.json());
        assert!(read(&bodies, text(16), true).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_goes_away_while_a_body_arrives_leaves_its_room() {
        let bodies = bodies();
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::builder().header(CONTENT_LENGTH, 16 << 10);
        let going = of(&bodies, "anna", request.body(never).unwrap());
        assert!(timeout(Duration::from_millis(20), going).await.is_err());
        assert!(read(&bodies, text(16), true).await.is_ok());
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
