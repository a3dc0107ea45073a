//! Listens, serves until told to stop, then lets turns finish.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::auth::Keys;
use super::bodies::Bodies;
use super::connections::{Connections, Open};
use super::http;
use super::patience::Patient;
use super::pieces::Replies;
use super::routes;
use super::service::{Backend, Service, UnixSeconds};
use super::shares::Shares;
use crate::error::{Error, Result};
use crate::metrics::{GatewayMetrics, SharedRegistry};

/// After the drain's time is over: how long turns may take to become durable.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Prompts that are made tokens of at a time: what each takes is planned.
pub const PROMPTS_AT_ONCE: usize = 1;

/// A gateway that listens, and does not answer yet.
pub struct Gateway {
    listener: TcpListener,
    addr: SocketAddr,
    service: Arc<Service>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// Opens a gateway for requests.
#[derive(Clone)]
pub struct Handle {
    service: Arc<Service>,
    addr: SocketAddr,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// The address that clients reach.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on requests are served. Before, they are told to try again (503). A second call changes nothing.
    pub fn open(&self, backend: Backend) {
        let _ = self.service.backend.set(Arc::new(backend));
    }

    /// Turns that have begun and are not yet durable.
    pub fn turns_in_flight(&self) -> usize {
        self.service.turns.len()
    }
}

impl Gateway {
    /// Checks the configuration and binds the address.
    ///
    /// # Errors
    /// [`Error::KeysRequired`], [`Error::Key`], [`Error::Setting`], [`Error::Listen`].
    pub async fn build(
        config: Config,
        registry: SharedRegistry,
        now: Arc<UnixSeconds>,
    ) -> Result<Self> {
        config.validate()?;
        let keys = Keys::build(&config.keys)?;
        let refused = |source| Error::Listen {
            addr: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let metrics = GatewayMetrics::register(&registry);
        let service = Service {
            keys,
            connections: Connections::new(config.max_connections, &metrics),
            open: Open::new(config.max_connections),
            metrics,
            registry,
            started: now(),
            now,
            backend: OnceLock::new(),
            draining: AtomicBool::new(false),
            turns: TaskTracker::new(),
            abort: CancellationToken::new(),
            bodies: Bodies::new(&config),
            words: Bodies::of_operators(&config),
            replies: Replies::new(),
            encoding: Shares::new(PROMPTS_AT_ONCE, PROMPTS_AT_ONCE),
            large: Arc::new(Semaphore::new(1)),
            config,
        };
        Ok(Self {
            listener,
            addr,
            service: Arc::new(service),
        })
    }

    /// Opens it, later.
    pub fn handle(&self) -> Handle {
        Handle {
            service: Arc::clone(&self.service),
            addr: self.addr,
        }
    }

    /// Serves until `shutdown`, then answers new requests with 503, lets running turns finish (for as long as
    /// `drain` says) and returns when every turn is durable.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self {
            listener,
            addr,
            service,
        } = self;
        tracing::info!(%addr, "gateway listens");
        // Without TCP_NODELAY a streamed token waits for the previous one's acknowledgement: 44 ms instead of 4.
        let listener = listener.tap_io(|tcp| {
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
        });
        let told_to_stop = CancellationToken::new();
        let stopping = Arc::clone(&service);
        let signal = told_to_stop.clone();
        let told = async move {
            shutdown.await;
            stopping.draining.store(true, Ordering::Relaxed);
            signal.cancel();
        };
        let router = routes::router(&service);
        let stop = told_to_stop.clone();
        let server = http::serve(Patient(listener), router, &service.connections, stop);
        let limit = service.config.drain;
        let overdue = async {
            told_to_stop.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        let served = async { tokio::join!(told, server) };
        tokio::select! {
            _ = served => {}
            () = overdue => tracing::warn!("streams are cut off: the drain took too long"),
        }
        service.turns.close();
        service.abort.cancel();
        if tokio::time::timeout(LAST_WORDS, service.turns.wait())
            .await
            .is_err()
        {
            tracing::error!(turns = service.turns.len(), "turns did not become durable");
        }
    }
}
