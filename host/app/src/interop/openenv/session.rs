//! Talks to a server: what it is over HTTP, and episodes over one WebSocket each.
//!
//! Every call has a deadline and a size limit. What an observation means is [`super::wire`]'s.

use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use rl::{Error, Result};
use serde_json::Value;
use tungstenite::{
    Message, WebSocket, error::CapacityError, handshake::HandshakeError, http::Uri,
    protocol::WebSocketConfig,
};
use ureq::http::StatusCode;

use super::{
    Config,
    wire::{Observed, Wrong, observed, short},
};
use crate::interop::deadline::Timed;

/// How long a session may take to say goodbye: an OpenEnv server frees its place only when it has seen the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// A server's address and how much it may use.
#[derive(Debug, Clone)]
pub(super) struct Server {
    host: String,
    port: u16,
    path: String,
    connect_timeout: Duration,
    call_timeout: Duration,
    max_message_bytes: usize,
}

/// One episode's connection.
pub(super) struct Session {
    socket: WebSocket<Timed>,
    server: Server,
    /// Whether a call failed below the protocol: nothing may be read from the socket any more (tungstenite panics when it is read
    /// after a message that was too long).
    broken: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Stepped {
    /// The environment took the action.
    Observed(Observed),
    /// The server says that the action does not fit its schema.
    NoAction(String),
}

impl Server {
    /// Reads an address such as `http://127.0.0.1:8000`.
    pub(super) fn new(address: &str, config: &Config) -> Result<Self, String> {
        let uri: Uri = address
            .parse()
            .map_err(|error| format!("`{address}` is no address: {error}"))?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => {
                return Err(format!(
                    "`{address}` asks for TLS, which is not offered here: put a local proxy in front of it, and name that"
                ));
            }
            _ => return Err(format!("`{address}` must begin with http://")),
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| format!("`{address}` names no host"))?;
        if uri.query().is_some() {
            return Err(format!("`{address}` must have no `?`"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
            connect_timeout: config.connect_timeout,
            call_timeout: config.call_timeout,
            max_message_bytes: config.max_message_bytes,
        })
    }

    fn url(&self, scheme: &str, route: &str) -> String {
        format!("{scheme}://{}:{}{}{route}", self.host, self.port, self.path)
    }

    /// What an error calls it.
    pub(super) fn name(&self) -> String {
        format!("OpenEnv server {}", self.url("http", ""))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Error {
        Error::Unavailable {
            what: self.name(),
            why: format!("{why} (is it started?)"),
        }
    }

    fn timed_out(&self, limit: Duration) -> Error {
        Error::TimedOut {
            what: self.name(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The server broke the protocol or said that it failed.
    pub(super) fn wrong(&self, function: &str, why: impl Into<String>) -> Error {
        Error::Guest {
            plugin: self.name(),
            function: function.to_owned(),
            why: why.into(),
        }
    }

    /// Fetches a JSON document; none when the server has no such route.
    pub(super) fn get(&self, route: &'static str) -> Result<Option<Value>> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(self.call_timeout))
            .timeout_connect(Some(self.connect_timeout))
            // A server that sends the host elsewhere is not the one that the operator named.
            .max_redirects(0)
            .proxy(None)
            .build()
            .into();
        let failed = |error: ureq::Error| match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => self.timed_out(self.connect_timeout),
            ureq::Error::Timeout(_) => self.timed_out(self.call_timeout),
            ureq::Error::Io(error) => self.unreachable(error),
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
                self.unreachable("no connection")
            }
            ureq::Error::BodyExceedsLimit(_) => self.wrong(route, self.too_long()),
            other => self.wrong(route, short(&other.to_string())),
        };
        let mut response = agent.get(self.url("http", route)).call().map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => {
                return Err(self.wrong(route, format!("it answered with status {status}")));
            }
        }
        let limit = u64::try_from(self.max_message_bytes).unwrap_or(u64::MAX);
        let text = response
            .body_mut()
            .with_config()
            .limit(limit)
            .read_to_string()
            .map_err(failed)?;
        let document = serde_json::from_str(&text).map_err(|error| {
            self.wrong(route, format!("it is not JSON ({error}): {}", short(&text)))
        })?;
        Ok(Some(document))
    }

    fn too_long(&self) -> String {
        format!(
            "the answer has more than the {} bytes that `max-message-bytes` allows",
            self.max_message_bytes
        )
    }

    fn tcp(&self) -> Result<TcpStream> {
        let name = (self.host.trim_matches(['[', ']']), self.port);
        let addresses = name
            .to_socket_addrs()
            .map_err(|error| self.unreachable(error))?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.connect_timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(self.timed_out(self.connect_timeout))
            }
            Some(error) => Err(self.unreachable(error)),
            None => Err(self.unreachable("its name has no address")),
        }
    }

    /// Opens a session: an environment of its own, on the server.
    pub(super) fn session(&self) -> Result<Session> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(self.max_message_bytes))
            .max_frame_size(Some(self.max_message_bytes));
        let stream = Timed::new(self.tcp()?, self.call_timeout);
        let opened =
            tungstenite::client::client_with_config(self.url("ws", "/ws"), stream, Some(limits));
        let socket = match opened {
            Ok((socket, _response)) => socket,
            Err(HandshakeError::Failure(error)) => return Err(self.broken("connect", error)),
            Err(HandshakeError::Interrupted(_)) => return Err(self.timed_out(self.call_timeout)),
        };
        Ok(Session {
            socket,
            server: self.clone(),
            broken: false,
        })
    }

    fn broken(&self, function: &str, error: tungstenite::Error) -> Error {
        match error {
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                self.timed_out(self.call_timeout)
            }
            tungstenite::Error::Io(error) => self.unreachable(error),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                self.wrong(function, "it closed the session")
            }
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                self.wrong(function, self.too_long())
            }
            tungstenite::Error::Http(response) => self.wrong(
                function,
                format!(
                    "/ws answered with status {}: sessions need OpenEnv 0.2 or later",
                    response.status()
                ),
            ),
            other => self.wrong(function, short(&other.to_string())),
        }
    }
}

impl Session {
    /// Starts the episode.
    pub(super) fn reset(&mut self, data: &Value) -> Result<Observed> {
        match self.call("reset", data)? {
            Stepped::Observed(observed) => Ok(observed),
            Stepped::NoAction(why) => Err(self.server.wrong("reset", why)),
        }
    }

    /// Takes an action.
    pub(super) fn step(&mut self, action: &Value) -> Result<Stepped> {
        self.call("step", action)
    }

    fn call(&mut self, function: &'static str, data: &Value) -> Result<Stepped> {
        let limit = self.server.call_timeout;
        self.socket.get_mut().allow(limit);
        let message = serde_json::json!({"type": function, "data": data}).to_string();
        let answer = self
            .socket
            .send(Message::text(message))
            .and_then(|()| next_text(&mut self.socket));
        let text = answer.map_err(|error| {
            self.broken = true;
            self.server.broken(function, error)
        })?;
        match observed(&text) {
            Ok(observed) => Ok(Stepped::Observed(observed)),
            Err(Wrong::Action(why)) => Ok(Stepped::NoAction(why)),
            Err(Wrong::Capacity(why)) => Err(Error::Unavailable {
                what: self.server.name(),
                why: format!("{why}; set `sessions` in [plugins.config.openenv] to what it allows"),
            }),
            Err(Wrong::Server(why)) => Err(self.server.wrong(function, why)),
        }
    }
}

/// The next message that is text; pings are answered on the way. Its deadline is the stream's.
fn next_text(socket: &mut WebSocket<Timed>) -> tungstenite::Result<String> {
    loop {
        match socket.read()? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Binary(_) => {
                return Err(tungstenite::Error::Utf8("a binary message".into()));
            }
            Message::Close(_) => return Err(tungstenite::Error::ConnectionClosed),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

impl Drop for Session {
    /// Waits until the server has let go, so that the next session finds a place.
    fn drop(&mut self) {
        if self.broken {
            return;
        }
        self.socket
            .get_mut()
            .allow(GOODBYE.min(self.server.call_timeout));
        let goodbye = Message::text(r#"{"type":"close"}"#);
        if self.socket.send(goodbye).is_ok() {
            while self.socket.read().is_ok() {}
        }
    }
}
