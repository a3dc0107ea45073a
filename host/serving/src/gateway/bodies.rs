//! The memory of requests: a body is read only when there is room for it, and its request keeps the room to its end.
//!
//! A request holds its body several times over, as bytes, as messages and as the prompt's text, until its turn is durable, and any number of
//! them can arrive at once. Room is counted in bytes of bodies and given in turns by tenant ([`Shares`]); whoever waits too long for it is told to
//! try again. A tenant has half of it at most, and what an operator asks in few words has some of its own, so that nobody can keep all others
//! out. Not the queue: that is for computing, and is asked when the body has been read.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt as _;
use rl::TenantId;
use tokio::time::timeout;

use super::Config;
use super::api_error::ApiError;
use super::shares::{Room, Shares};

/// What room is counted in.
const UNIT: usize = 1 << 10;
/// Bytes that a JSON value takes beside its text; hostile bodies are nothing but values.
const VALUE: usize = 128;
/// Most values of a body: read on all of the runtime's threads at once they are what the plan of a host's memory has for the program.
const MAX_VALUES: usize = 1 << 16;
/// A body that takes longer keeps others out.
const ARRIVAL: Duration = Duration::from_secs(30);
/// And a large one at least so fast, in bytes.
const PER_SECOND: usize = 128 << 10;
/// The largest of an operator's requests that are in few words, and the room for all of them: too little to be planned.
const WORDS: usize = 16 << 10;
const WORDS_ROOM: usize = 256 << 10;

/// The room for all bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Shares,
    most: usize,
    wait: Duration,
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
        let units = bytes.div_ceil(UNIT);
        Self {
            room: Shares::new(units, (units / 2).max(most.div_ceil(UNIT))),
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
    ) -> Result<(Vec<u8>, Room), ApiError> {
        // A body that does not say how long it is may be as long as any.
        let length = declared(&request).unwrap_or(self.most).min(self.most);
        let waiting = self.room.take(tenant, self.units_of(length));
        let Ok(mut room) = timeout(self.wait, waiting).await else {
            return Err(full());
        };
        let bytes = arrived(request, self.most, ARRIVAL).await?;
        let values = few_values(&bytes)?;
        let needed = self.units_of(bytes.len().max(values * VALUE));
        // What was kept free for what did not come is others'.
        match room.resize(needed) {
            true => Ok((bytes, room)),
            false => Err(full()),
        }
    }

    /// All of a share at most: a larger body is refused when it is read.
    fn units_of(&self, bytes: usize) -> usize {
        bytes.div_ceil(UNIT).clamp(1, self.room.share())
    }
}

/// A whole body of at most `most` bytes that comes within `limit`. Its pieces are not kept: they may be of one byte each.
async fn arrived(request: Request, most: usize, limit: Duration) -> Result<Vec<u8>, ApiError> {
    let length = declared(&request).unwrap_or_default();
    if length > most {
        return Err(ApiError::too_large(most));
    }
    let reading = async {
        let mut pieces = request.into_body().into_data_stream();
        let mut bytes = Vec::with_capacity(length);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| ApiError::body("The body could not be read."))?;
            if bytes.len() + piece.len() > most {
                return Err(ApiError::too_large(most));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let read = timeout(limit, reading).await;
    read.unwrap_or_else(|_| Err(ApiError::slow(limit)))
}

/// As [`Bodies::read`] reads, of an operator's request that has more than there is room for; one at a time.
pub(crate) async fn read_large(request: Request, most: usize) -> Result<Vec<u8>, ApiError> {
    let length = declared(&request).unwrap_or(most).min(most);
    let limit = ARRIVAL + Duration::from_secs((length / PER_SECOND) as u64);
    let bytes = arrived(request, most, limit).await?;
    few_values(&bytes)?;
    Ok(bytes)
}

/// How many values a body has, which must be few.
fn few_values(bytes: &[u8]) -> Result<usize, ApiError> {
    let values = values(bytes);
    if values > MAX_VALUES {
        let message = format!("The body has more than {MAX_VALUES} JSON values.");
        return Err(ApiError::body(message));
    }
    Ok(values)
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use axum::body::{Body, Bytes};
    use axum::http::StatusCode;

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&Config {
            body_bytes: 16 << 10,
            max_body_bytes: 16 << 10,
            max_body_wait: Duration::ZERO,
            ..Config::default()
        })
    }

    async fn read(bodies: &Bodies, body: String, says: bool) -> Result<(Vec<u8>, Room), ApiError> {
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
    ) -> Result<(Vec<u8>, Room), ApiError> {
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
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_that_waits_for_room_holds_up_no_small_one_of_another_tenant() {
        let bodies = Bodies::of(16 << 10, 8 << 10, Duration::from_secs(10));
        let post = |kib| {
            let request = Request::builder().header(CONTENT_LENGTH, kib << 10);
            request.body(Body::from(text(kib))).unwrap()
        };
        let _first = of(&bodies, "anna", post(8)).await.unwrap();
        let _second = of(&bodies, "ben", post(4)).await.unwrap();
        let large = of(&bodies, "carl", post(8));
        let small = async {
            tokio::task::yield_now().await;
            timeout(Duration::from_secs(1), of(&bodies, "dora", post(1))).await
        };
        let (large, small) = tokio::join!(large, small);
        assert!(large.is_err());
        assert!(small.is_ok_and(|read| read.is_ok()));
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

    #[tokio::test(start_paused = true)]
    async fn a_large_body_of_an_operators_has_as_much_time_as_its_length_asks_for_and_few_values() {
        let endless = || {
            let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
            let request = Request::builder().header(CONTENT_LENGTH, 10 * PER_SECOND);
            request.body(Body::from_stream(never)).unwrap()
        };
        let slow = read_large(endless(), 1 << 30);
        let slow = timeout(Duration::from_secs(60), slow).await;
        let slow = slow.expect("it ends").unwrap_err();
        assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(slow.json().contains("40 s"), "{}", slow.json());
        let zeros = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let many = read_large(Request::new(Body::from(zeros)), 1 << 30).await;
        assert!(many.unwrap_err().json().contains("JSON values"));
        let long = Request::new(Body::from(text(2)));
        let long = read_large(long, 1 << 10).await.unwrap_err();
        assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn the_pieces_of_a_body_are_not_kept() {
        struct Piece {
            _kept: Arc<()>,
        }
        impl AsRef<[u8]> for Piece {
            fn as_ref(&self) -> &[u8] {
                b"x"
            }
        }
        let (kept, most) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let (counted, seen) = (kept.clone(), most.clone());
        let pieces = (0..1000).map(move |_| {
            let held = Arc::strong_count(&counted);
            seen.fetch_max(held, Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_owner(Piece {
                _kept: counted.clone(),
            }))
        });
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let (bytes, _room) = of(&bodies(), "anna", Request::new(body)).await.unwrap();
        assert_eq!(bytes.len(), 1000);
        assert!(most.load(Relaxed) < 10);
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
