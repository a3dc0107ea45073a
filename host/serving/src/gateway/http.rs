//! HTTP on the connections that are open: accepts them, and bounds what each may take before it is known who is there.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Connections, Place, holding};

/// How long the head of a request may take, from the end of the one before. Longer than any pause of a network that comes back.
const HEAD: Duration = Duration::from_secs(60);
/// The largest head, and what a connection reads ahead of a body and keeps of a reply for its socket: heads of the API have some hundred bytes.
const BUFFER: usize = 8 << 10;
/// Of a reply that may be large, so much is handed on at a time.
pub(crate) const PIECE: usize = BUFFER;
/// Most bytes that a connection takes: four buffers (a head that its request keeps, what is read behind it, the head of the reply and what of
/// it waits), of which a hostile client was seen to fill less than all, with its task (26 KB, 2026-11-28).
pub const CONNECTION_BYTES: usize = 4 * BUFFER;

/// Serves connections until `stop`, then until all have ended.
pub(crate) async fn serve<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    router: Router,
    connections: &Connections,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (io, peer) = accepted;
        // Dropping a connection closes it.
        if let Some(place) = connections.place(peer.ip()).await {
            tasks.spawn(connection(io, router.clone(), place, stop.clone()));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// One connection, until its client has gone, its place is given to another one, or it was told to stop and its reply has ended.
async fn connection<L>(io: L, router: Router, place: Place, stop: CancellationToken)
where
    L: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let routes = TowerToHyperService::new(router);
    let at = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = at.busy();
        let response = routes.call(request);
        async move { response.await.map(|response| holding(response, busy)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER);
    let mut serving = pin!(http.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = place.closed() => return,
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = place.closed() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::connections::parted;
    use super::*;
    use crate::metrics::GatewayMetrics;

    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    /// Connections that a test makes.
    struct Given(mpsc::Receiver<DuplexStream>);

    impl Listener for Given {
        type Io = DuplexStream;
        type Addr = SocketAddr;

        async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
            match self.0.recv().await {
                Some(io) => (io, PEER),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(PEER)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_read_slowly_keeps_its_place_until_it_is_on_its_way() {
        let (give, given) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let connections = Connections::new(1, &GatewayMetrics::register(&Arc::default()));
        let reply = async || parted("x".repeat(1 << 20).into_response(), (), PIECE);
        let router = Router::new().route("/", get(reply));
        let serving = serve(Given(given), router, &connections, stop.clone());
        let client = async {
            let (mut slow, io) = duplex(1 << 10);
            give.send(io).await.unwrap();
            let asked = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            slow.write_all(asked).await.unwrap();
            slow.read_u8().await.unwrap();
            // There is no place that waits.
            let (mut other, io) = duplex(1 << 10);
            give.send(io).await.unwrap();
            assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
            let mut answer = Vec::new();
            slow.read_to_end(&mut answer).await.unwrap();
            assert!(answer.len() > 1 << 20, "{}", answer.len());
            stop.cancel();
        };
        let both = async { tokio::join!(serving, client) };
        tokio::time::timeout(HEAD * 2, both).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_its_connection_and_told_to_stop_the_others_end() {
        let (give, given) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let connections = Connections::new(2, &GatewayMetrics::register(&Arc::default()));
        let router = Router::new().route("/", get(async || "here"));
        let serving = serve(Given(given), router, &connections, stop.clone());
        let client = async {
            let (mut half, io) = duplex(1 << 10);
            give.send(io).await.unwrap();
            let begin = Instant::now();
            half.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
            half.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(begin.elapsed().as_secs(), HEAD.as_secs());
            let (mut idle, io) = duplex(1 << 10);
            give.send(io).await.unwrap();
            idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = vec![0; 15];
            idle.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 200 OK");
            stop.cancel();
            idle.read_to_end(&mut answer).await.unwrap();
            assert!(answer.ends_with(b"here"));
        };
        let both = async { tokio::join!(serving, client) };
        tokio::time::timeout(HEAD * 2, both).await.unwrap();
    }
}
