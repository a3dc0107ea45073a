//! Just enough HTTP/1.1 for a few JSON routes and the way into a WebSocket: one request a connection, bounded in size and time.
//!
//! The gateway's HTTP server stays behind its fence (`serving`); this one needs no runtime. It knows no route.

use std::io::{self, Read, Write};

use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;

use super::episodes::Limits;

/// A request's line and headers at most.
const HEAD: usize = 16 << 10;
/// Headers at most.
const HEADERS: usize = 64;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) query: String,
    /// Whatever followed the head so far, and for a request with a body all of it.
    pub(super) body: Vec<u8>,
    /// The key of a WebSocket's handshake.
    pub(super) upgrade: Option<String>,
}

/// A request that is answered without looking at its route.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The connection ended or was too slow: nobody reads an answer.
    Gone,
    /// Status, and what is wrong.
    Refused(u16, &'static str),
}

impl From<io::Error> for Unreadable {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

struct Head {
    request: Request,
    length: usize,
    /// Bytes of the head itself.
    size: usize,
}

/// Reads one request.
pub(super) fn read(stream: &mut impl Read, limits: &Limits) -> Result<Request, Unreadable> {
    let mut bytes = Vec::new();
    let mut head = loop {
        let mut piece = [0_u8; 4096];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(Unreadable::Gone);
        }
        bytes.extend_from_slice(&piece[..count]);
        if let Some(head) = parse(&bytes)? {
            break head;
        }
        if bytes.len() > HEAD {
            return Err(Unreadable::Refused(431, "the headers are too long"));
        }
    };
    let mut body = bytes.split_off(head.size);
    if head.length > limits.body_bytes {
        return Err(Unreadable::Refused(413, "the body is too long"));
    }
    if head.request.upgrade.is_none() {
        let missing = head.length.saturating_sub(body.len());
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        stream.by_ref().take(missing).read_to_end(&mut body)?;
        if body.len() < head.length {
            return Err(Unreadable::Gone);
        }
        body.truncate(head.length);
    }
    head.request.body = body;
    Ok(head.request)
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, Unreadable> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let size = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unreadable::Refused(400, "it is not HTTP/1.1")),
    };
    let header = |name: &str| {
        let mut named = parsed
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named
            .next()
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    // Attack: a web page that the user has open speaks to whatever listens on this machine. Only browsers send it.
    if header("origin").is_some() {
        return Err(Unreadable::Refused(403, "web pages are not served here"));
    }
    if header("transfer-encoding").is_some() {
        return Err(Unreadable::Refused(411, "content-length is required"));
    }
    let length = match header("content-length").map(|text| text.trim().parse()) {
        None => 0,
        Some(Ok(length)) => length,
        Some(Err(_)) => return Err(Unreadable::Refused(400, "content-length is no number")),
    };
    let asks = header("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    let upgrade = match (
        asks,
        header("sec-websocket-version"),
        header("sec-websocket-key"),
    ) {
        (false, ..) => None,
        (true, Some("13"), Some(key)) => Some(key.to_owned()),
        (true, ..) => {
            return Err(Unreadable::Refused(
                426,
                "WebSocket version 13 is spoken here",
            ));
        }
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Vec::new(),
        upgrade,
    };
    Ok(Some(Head {
        request,
        length,
        size,
    }))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// Answers with JSON, and says that the connection ends.
pub(super) fn answer(stream: &mut impl Write, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reason(status),
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

/// Answers that it went wrong, as OpenEnv's server does.
pub(super) fn refuse(stream: &mut impl Write, status: u16, why: &str) -> io::Result<()> {
    answer(stream, status, &json!({"detail": why}))
}

/// Agrees to speak WebSocket from here on.
pub(super) fn upgrade(stream: &mut impl Write, key: &str) -> io::Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> u16 {
        match read(&mut text.as_bytes(), &Limits::default()).unwrap_err() {
            Unreadable::Refused(status, _) => status,
            Unreadable::Gone => 0,
        }
    }

    #[test]
    fn a_request_is_read_with_its_body_and_nothing_after_it() {
        let text = "POST /step?a=b HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}rest";
        let request = read(&mut text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/step")
        );
        assert_eq!(
            (request.query.as_str(), request.body.as_slice()),
            ("a=b", &b"{}"[..])
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_status() {
        let get = |headers: &str| format!("GET /ws HTTP/1.1\r\n{headers}\r\n\r\n");
        for (text, status) in [
            ("nonsense\r\n\r\n".to_owned(), 400),
            (get("origin: http://evil.example"), 403),
            (get("transfer-encoding: chunked"), 411),
            (get("content-length: 99999999999"), 413),
            (get("content-length: -1"), 400),
            (get("upgrade: websocket\r\nsec-websocket-version: 8"), 426),
            (
                get(&format!("x: {}", "y".repeat(20 << 10))).replace("\r\n\r\n", ""),
                431,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n{}".to_owned(),
                0,
            ),
        ] {
            assert_eq!(refused(&text), status, "{:.80}", text);
        }
    }
}
