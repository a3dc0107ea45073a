//! A whole host on a loopback port, and a client that shows bytes as they come.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::{Adapter, ChatTemplate, Deployed, Model, Slot};
use prometheus_client::registry::Registry;
use rl::seam::MemorySink;
use rl::{AdapterName, BoxFuture, Feedback, PolicyVersion, Served, Ticket, TurnRequest, TurnSink};
use serde_json::{Value, json};
use serving::engine::{self, Engine, EngineHandle, Parts, Running};
use serving::gateway::{self, Backend, Gateway, Handle, Operator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::tiny;

/// After which a test that waits has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keeps turns, tells when one is about to be durable, and makes it durable when the gate lets it.
pub(crate) struct GatedSink {
    pub(crate) memory: MemorySink,
    pub(crate) begun: Mutex<Vec<TurnRequest>>,
    pub(crate) gate: Arc<Semaphore>,
    /// What `begin` answers, instead of beginning.
    pub(crate) refusal: Mutex<Option<rl::Error>>,
    finishing: mpsc::UnboundedSender<Served>,
}

impl TurnSink for GatedSink {
    fn begin(&self, request: TurnRequest) -> BoxFuture<'_, rl::Result<Ticket>> {
        if let Some(error) = self.refusal.lock().clone() {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.begun.lock().push(request.clone());
        self.memory.begin(request)
    }

    fn finish(&self, ticket: Ticket, served: Served) -> BoxFuture<'_, rl::Result<()>> {
        let _ = self.finishing.send(served.clone());
        Box::pin(async move {
            let pass = self.gate.acquire().await.map_err(|_| rl::Error::Failed {
                what: "the disk".into(),
                why: "a test said so".into(),
            })?;
            drop(pass);
            self.memory.finish(ticket, served).await
        })
    }

    fn feedback(&self, feedback: Feedback) -> BoxFuture<'_, rl::Result<()>> {
        self.memory.feedback(feedback)
    }
}

/// What a host is made of.
pub(crate) struct Setup {
    pub(crate) engine: engine::Config,
    pub(crate) gateway: gateway::Config,
    pub(crate) scripted: bool,
    pub(crate) open: bool,
    pub(crate) running: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            engine: engine::Config::default(),
            gateway: gateway::Config {
                listen,
                ..gateway::Config::default()
            },
            scripted: true,
            open: true,
            running: true,
        }
    }
}

/// A host.
pub(crate) struct Host {
    pub(crate) addr: SocketAddr,
    pub(crate) sink: Arc<GatedSink>,
    pub(crate) engine: EngineHandle,
    pub(crate) slot: Arc<Slot>,
    pub(crate) model: Arc<Model>,
    pub(crate) gateway: Handle,
    /// A permit for each client that went away during an operator's answer.
    pub(crate) gone: Arc<Semaphore>,
    finishing: mpsc::UnboundedReceiver<Served>,
    pub(crate) backend: Option<Backend>,
    pub(crate) idle: Option<Engine>,
    running: Option<Running>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub(crate) fn deployed(model: &Model, version: u64) -> Deployed {
    let adapter = Adapter::init(model.config(), 2, 4.0, version).unwrap();
    Deployed {
        version: PolicyVersion::new(version),
        adapter: Some(Arc::new(adapter)),
    }
}

/// `gone` gets a permit when a client goes away during an answer without an end.
fn operator(gone: Arc<Semaphore>) -> Operator {
    Operator {
        admits: Arc::new(|tenant| tenant.as_str() != "guest"),
        largest: 1 << 20,
        answer: Arc::new(move |asked, line| {
            if asked["fail"] == true {
                let _ = line(json!({ "error": { "message": "it cannot be done" } }));
                return;
            }
            while line(json!({ "progress": 1 })).is_continue() {
                if asked["endless"] != true {
                    let _ = line(json!({ "done": asked }));
                    return;
                }
            }
            gone.add_permits(1);
        }),
    }
}

impl Host {
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = if setup.scripted {
            tiny::scripted_model(folder.path(), 1024)
        } else {
            tiny::random_model()
        };
        let slot = Arc::new(Slot::new(deployed(&model, 3)));
        let adapters: BTreeMap<AdapterName, Arc<Slot>> = [
            ("main".into(), Arc::clone(&slot)),
            (rl::candidate_of(&"main".into()), Arc::default()),
        ]
        .into();
        let parts = Parts {
            name: "tiny".into(),
            model: Arc::clone(&model),
            tokenizer: Arc::new(tiny::tokenizer()),
            template: Arc::new(ChatTemplate::chatml()),
            adapters,
        };
        let registry = Arc::new(Mutex::new(Registry::default()));
        let engine = Engine::build(setup.engine, parts, &registry).unwrap();
        let handle = engine.handle();
        let (running, idle) = match setup.running {
            true => (Some(engine.start().unwrap()), None),
            false => (None, Some(engine)),
        };
        let (finishing, seen) = mpsc::unbounded_channel();
        let sink = Arc::new(GatedSink {
            memory: MemorySink::default(),
            begun: Mutex::new(Vec::new()),
            gate: Arc::new(Semaphore::new(1)),
            refusal: Mutex::new(None),
            finishing,
        });
        let gateway = Gateway::build(setup.gateway, registry, Arc::new(|| 1_700_000_000))
            .await
            .unwrap();
        let gone = Arc::new(Semaphore::new(0));
        let backend = Backend {
            engine: handle.clone(),
            sink: sink.clone(),
            status: Arc::new(|tenant| json!({ "tenant": tenant.as_str() })),
            operator: operator(gone.clone()),
        };
        let opener = gateway.handle();
        let backend = match setup.open {
            true => {
                opener.open(backend);
                None
            }
            false => Some(backend),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let run = gateway.run(async move {
            let _ = stopped.await;
        });
        Self {
            addr: opener.addr(),
            sink,
            engine: handle,
            slot,
            model,
            gateway: opener,
            gone,
            finishing: seen,
            backend,
            idle,
            running,
            stop: Some(stop),
            served: tokio::spawn(run),
            _folder: folder,
        }
    }

    pub(crate) async fn scripted() -> Self {
        Self::start(Setup::default()).await
    }

    /// The random model: never says the end token when the request biases it away.
    pub(crate) async fn random() -> Self {
        Self::start(Setup {
            scripted: false,
            ..Setup::default()
        })
        .await
    }

    /// The next turn that asks to be recorded.
    pub(crate) async fn recorded(&mut self) -> Served {
        let recorded = tokio::time::timeout(PATIENCE, self.finishing.recv()).await;
        recorded.expect("a turn is recorded").unwrap()
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn stopped(mut self) {
        self.stop();
        (&mut self.served).await.unwrap();
        if let Some(running) = self.running.take() {
            tokio::task::spawn_blocking(|| running.shutdown())
                .await
                .unwrap()
                .unwrap();
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Client::send(self.addr, "GET", path, &[], "")
            .await
            .whole()
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, &[], &body.to_string()).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        Client::send(self.addr, "POST", path, headers, body)
            .await
            .whole()
            .await
    }

    pub(crate) async fn chat(&self, body: Value) -> Reply {
        self.post("/v1/chat/completions", &body).await
    }

    pub(crate) async fn open_chat(&self, body: &Value) -> Client {
        let path = "/v1/chat/completions";
        Client::send(self.addr, "POST", path, &[], &body.to_string()).await
    }
}

/// One request and the bytes that came back so far. Dropping it closes the connection.
pub(crate) struct Client {
    socket: TcpStream,
    pub(crate) seen: Vec<u8>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// (status, `error.code` or `error.type`, `error.param`)
    pub(crate) fn error(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{self:?}"
        );
        assert!(
            error["type"].is_string() && error.get("param").is_some(),
            "{self:?}"
        );
        let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let code = if error["code"].is_null() {
            &error["type"]
        } else {
            &error["code"]
        };
        (self.status, word(code), word(&error["param"]))
    }

    /// The data of every event, as text.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.body.split("\n\n").filter(|event| !event.is_empty());
        events
            .filter(|event| !event.starts_with(':'))
            .map(|event| {
                event
                    .strip_prefix("data: ")
                    .unwrap_or_else(|| panic!("{event}"))
                    .into()
            })
            .collect()
    }

    /// The data of every event but the last, `[DONE]`, as JSON.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let events = self.events();
        let (last, chunks) = events.split_last().unwrap();
        assert_eq!(last, "[DONE]", "{self:?}");
        chunks
            .iter()
            .map(|chunk| serde_json::from_str(chunk).unwrap())
            .collect()
    }
}

impl Client {
    pub(crate) async fn send(
        addr: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Self {
        Self::send_on(
            TcpStream::connect(addr).await.unwrap(),
            method,
            path,
            headers,
            body,
        )
        .await
    }

    /// A request on a connection of the caller's making.
    pub(crate) async fn send_on(
        mut socket: TcpStream,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Self {
        let addr = socket.peer_addr().unwrap();
        let extra: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{extra}\r\n",
            body.len()
        );
        // A host that refuses a large body may close before it is all written.
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.write_all(body.as_bytes()).await;
        Self {
            socket,
            seen: Vec::new(),
        }
    }

    /// Reads until the bytes so far hold `text`.
    pub(crate) async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let read = self.socket.read_buf(&mut self.seen).await.unwrap();
            assert!(
                read > 0,
                "ended without {text:?}: {}",
                String::from_utf8_lossy(&self.seen)
            );
        }
    }

    /// Reads what is there, without waiting.
    pub(crate) fn peek(&mut self) -> String {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.socket.try_read(&mut buffer) {
            self.seen.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub(crate) async fn whole(mut self) -> Reply {
        // A reset after the response is a refused body's.
        while matches!(self.socket.read_buf(&mut self.seen).await, Ok(1..)) {}
        let text = String::from_utf8(self.seen).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text}"));
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|value| value == "chunked");
        let body = if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Reply {
            status,
            headers,
            body,
        }
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    panic!("the stream was cut off after {body:?}")
}

/// A request that the scripted model answers with "Hello big wörld."
pub(crate) fn hello(model: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": "hi"}] })
}

/// A request that the random model answers until its limit.
pub(crate) fn endless(max_tokens: u32) -> Value {
    json!({
        "model": "tiny:main", "messages": [{"role": "user", "content": "go on"}],
        "max_tokens": max_tokens, "logit_bias": {tiny::END.to_string(): -100}, "stream": true,
    })
}

/// `base` with some fields replaced.
pub(crate) fn with(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}
