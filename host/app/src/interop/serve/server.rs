//! Listens, and answers each connection on a thread of its own, of which there are only so many.
//!
//! Routes are [`super`]'s table.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rl::Environment;
use serde_json::{Value, json};

use super::{
    episodes::{Episodes, Limits},
    http::{self, Request, Unreadable},
    protocol::{self, Failure},
    session,
};
use crate::interop::deadline::Timed;

/// Connections beside those of sessions: for questions and for those that are turned away politely.
const BESIDE: usize = 32;

/// A server that listens, and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    episodes: Arc<Episodes>,
    stopped: Arc<AtomicBool>,
}

/// Stops a server.
#[derive(Debug, Clone)]
pub struct Handle {
    addr: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Handle {
    /// The address that clients reach.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts no further connection. Sessions end when their clients go.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the listener, which waits for a connection; one that is gone needs no waking.
        drop(TcpStream::connect_timeout(
            &self.addr,
            Duration::from_secs(1),
        ));
    }
}

/// One of so many connections; given back when dropped.
struct Connection(Arc<AtomicUsize>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    /// Binds an address of this machine.
    ///
    /// # Errors
    /// The address is another machine's to reach, or cannot be bound.
    pub fn bind(
        listen: SocketAddr,
        environment: Arc<dyn Environment>,
        limits: Limits,
    ) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(io::Error::other(format!(
                "{listen} is reached by other machines, and there are no keys here: listen on 127.0.0.1 and put a proxy that asks for them in front"
            )));
        }
        let listener = TcpListener::bind(listen)?;
        let addr = listener.local_addr()?;
        Ok(Self {
            listener,
            addr,
            episodes: Arc::new(Episodes::new(environment, limits)),
            stopped: Arc::default(),
        })
    }

    /// Stops it, later.
    pub fn handle(&self) -> Handle {
        Handle {
            addr: self.addr,
            stopped: Arc::clone(&self.stopped),
        }
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// The listener breaks, or no thread can be started.
    pub fn run(self) -> io::Result<()> {
        let connections = Arc::new(AtomicUsize::new(0));
        let most = self.episodes.limits.episodes + BESIDE;
        for stream in self.listener.incoming() {
            if self.stopped.load(Ordering::Acquire) {
                return Ok(());
            }
            let stream = match stream {
                Ok(stream) => stream,
                // A client that was gone before it was accepted; what lasts breaks the next one, too.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            connections.fetch_add(1, Ordering::AcqRel);
            let connection = Connection(Arc::clone(&connections));
            if connections.load(Ordering::Acquire) > most {
                // Attack: connections that are opened and left alone. Closed at once, no thread is spent.
                tracing::warn!(most, "a connection was turned away: too many are open");
                continue;
            }
            let episodes = Arc::clone(&self.episodes);
            thread::Builder::new()
                .name("serve-env".into())
                .spawn(move || {
                    let _connection = connection;
                    if let Err(error) = converse(stream, &episodes) {
                        tracing::debug!(%error, "a connection broke");
                    }
                })?;
        }
        Ok(())
    }
}

fn converse(stream: TcpStream, episodes: &Episodes) -> io::Result<()> {
    let mut stream = Timed::new(stream, episodes.limits.request);
    let request = match http::read(&mut stream, &episodes.limits) {
        Ok(request) => request,
        Err(Unreadable::Gone) => return Ok(()),
        Err(Unreadable::Refused(status, why)) => return http::refuse(&mut stream, status, why),
    };
    if let Some(key) = &request.upgrade {
        if request.path != "/ws" {
            return http::refuse(&mut stream, 404, "sessions are at /ws");
        }
        http::upgrade(&mut stream, key)?;
        session::serve(stream, request.body, episodes);
        return Ok(());
    }
    let answered = route(&request, episodes);
    // The environment's own time is not the client's.
    stream.allow(episodes.limits.request);
    match answered {
        Ok(body) => http::answer(&mut stream, 200, &body),
        Err(failure) => http::refuse(&mut stream, failure.status(), failure.why()),
    }
}

fn route(request: &Request, episodes: &Episodes) -> Result<Value, Failure> {
    let card = || episodes.environment().card();
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => Ok(json!({"status": "healthy"})),
        ("GET", "/metadata") => Ok(protocol::metadata(&card())),
        ("GET", "/schema") => Ok(protocol::schema(&card())),
        ("GET", "/list_environments") => Ok(json!([card().name])),
        ("POST", "/reset") => {
            let mut running = episodes.start(protocol::reset(&body(request)?)?)?;
            let first = running.begin()?;
            episodes.keep(running);
            Ok(first)
        }
        ("POST", "/step") => step(&body(request)?, episodes),
        ("GET", "/state") => {
            let id = request
                .query
                .split('&')
                .find_map(|pair| pair.strip_prefix("episode_id="));
            Ok(episodes.named(id)?.lock().state())
        }
        ("GET", "/ws") => Err(Failure::Invalid("/ws is a WebSocket".into())),
        (method, path) => tasks(method, path, request, episodes),
    }
}

fn body(request: &Request) -> Result<Value, Failure> {
    if request.body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| Failure::Json(format!("the body is not JSON: {error}")))
}

fn step(body: &Value, episodes: &Episodes) -> Result<Value, Failure> {
    let id = protocol::episode_id(body)?;
    let action = protocol::action(&body["action"])?;
    let running = episodes.named(id.as_deref())?;
    let mut running = running.lock();
    let answer = running.step(&action);
    if running.is_over() {
        // It takes no further action; its place is another's.
        let id = running.id().to_owned();
        episodes.release(&id);
    }
    answer
}

/// `/<name>/splits`, `/<name>/tasks`, `/<name>/num_tasks`.
fn tasks(
    method: &str,
    path: &str,
    request: &Request,
    episodes: &Episodes,
) -> Result<Value, Failure> {
    let name = episodes.environment().card().name;
    let route = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(name.as_str()));
    let split = || {
        let body = body(request)?;
        let split = body["split"].as_str().map(str::to_owned);
        split.ok_or_else(|| Failure::Invalid("`split` is no string".into()))
    };
    match (method, route) {
        ("GET", Some("/splits")) => Ok(json!([
            {"name": "train", "type": "train"},
            {"name": "held-out", "type": "test"},
        ])),
        ("POST", Some("/tasks")) => {
            let tasks = episodes.tasks(&split()?)?;
            Ok(json!({"tasks": tasks, "env_name": name}))
        }
        ("POST", Some("/num_tasks")) => Ok(json!({"num_tasks": episodes.tasks(&split()?)?.len()})),
        _ => Err(Failure::Unknown("there is no such route".into())),
    }
}
