//! The places of open connections: how many there are, and whose is given to a new one.
//!
//! Nobody knows who is on a connection before the head of a request is there, so that keys bound nothing here. A connection *waits* until its
//! head is whole, and again when its reply is handed on. When every place is taken, a new connection gets that of one that waits: of the network
//! that has most of those, the one that has waited longest. Whoever opens many closes their own; who has one keeps it while others have
//! more. Clients behind one proxy are one network, in which the longest wait goes, and so are as many clients as there are networks with one each.
//!
//! Requests that take long are of tenants that are known, who leave some places free ([`Open`]): one that waits can always be found, and what
//! operators ask comes through. Operators are not bounded by it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use rl::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::api_error::ApiError;
use super::shares::{Room, Shares};
use crate::metrics::GatewayMetrics;

/// Of so many places one is free of tenants' requests.
const FREE: usize = 16;

/// All places.
#[derive(Debug)]
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    table: Arc<Mutex<Table>>,
    metrics: GatewayMetrics,
}

/// Requests of tenants that may take long, each of which keeps its connection.
#[derive(Debug)]
pub(crate) struct Open {
    requests: Shares,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    table: Arc<Mutex<Table>>,
    closed: CancellationToken,
    metrics: GatewayMetrics,
    _permit: OwnedSemaphorePermit,
}

/// While it is there, its connection does not wait.
#[derive(Debug)]
pub(crate) struct Busy {
    id: u64,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts what happens: it names connections, and says which of two has waited longer.
    ticks: u64,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    /// Since when it waits.
    since: u64,
    /// Replies that are not handed on.
    replies: usize,
    close: CancellationToken,
}

impl Connections {
    /// So many places.
    pub(crate) fn new(most: usize, metrics: &GatewayMetrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            table: Arc::default(),
            metrics: metrics.clone(),
        }
    }

    /// A place for a new connection, which may be that of one that waits. None when no connection waits.
    pub(crate) async fn place(&self, peer: IpAddr) -> Option<Place> {
        let free = Arc::clone(&self.places).try_acquire_owned().ok();
        let permit = match free {
            Some(permit) => permit,
            None => {
                let Some(close) = self.table.lock().give_up() else {
                    self.metrics.connections_refused.inc();
                    return None;
                };
                self.metrics.connections_displaced.inc();
                close.cancel();
                // Soon: it is dropped, whatever its client does. The semaphore is never closed.
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let closed = CancellationToken::new();
        let id = self.table.lock().enter(network(peer), closed.clone());
        self.metrics.connections.inc();
        Some(Place {
            id,
            table: Arc::clone(&self.table),
            closed,
            metrics: self.metrics.clone(),
            _permit: permit,
        })
    }
}

impl Place {
    /// Until the place is given to another connection.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// A request has begun.
    pub(crate) fn busy(&self) -> Busy {
        if let Some(entry) = self.table.lock().open.get_mut(&self.id) {
            entry.replies += 1;
        }
        Busy {
            id: self.id,
            table: Arc::clone(&self.table),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.id);
        self.metrics.connections.dec();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let now = table.tick();
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.replies -= 1;
            entry.since = now;
        }
    }
}

impl Open {
    /// For a host with so many places. A tenant has half of those that are for requests.
    pub(crate) fn new(places: usize) -> Self {
        let requests = places - places.div_ceil(FREE);
        Self {
            requests: Shares::new(requests, requests.div_ceil(2)),
        }
    }

    /// Begins a request of a tenant's; it has ended when what is returned is dropped.
    ///
    /// # Errors
    /// When the tenant, or all together, have as many as there may be.
    pub(crate) fn begin(&self, tenant: &TenantId) -> Result<Room, ApiError> {
        let room = self.requests.try_take(tenant, 1);
        room.ok_or_else(|| {
            ApiError::busy(
                "Too many requests are open on this host's connections; try again shortly.",
            )
        })
    }
}

impl Table {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn enter(&mut self, network: IpAddr, close: CancellationToken) -> u64 {
        let id = self.tick();
        let entry = Entry {
            network,
            since: id,
            replies: 0,
            close,
        };
        self.open.insert(id, entry);
        id
    }

    /// Takes out the connection whose place a new one gets.
    fn give_up(&mut self) -> Option<CancellationToken> {
        let waiting = || self.open.iter().filter(|(_, entry)| entry.replies == 0);
        let mut of_network: HashMap<IpAddr, usize> = HashMap::new();
        for (_, entry) in waiting() {
            *of_network.entry(entry.network).or_default() += 1;
        }
        let most = of_network.values().max()?;
        let (id, _) = waiting()
            .filter(|(_, entry)| of_network.get(&entry.network) == Some(most))
            .min_by_key(|(_, entry)| entry.since)?;
        let id = *id;
        self.open.remove(&id).map(|entry| entry.close)
    }
}

/// What one client can take addresses from: of an IPv6 address, the first half.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// A response that holds something until it is handed on.
pub(crate) fn holding<G: Send + Unpin + 'static>(response: Response, held: G) -> Response {
    parted(response, held, usize::MAX)
}

/// The same of a response that goes out in pieces of so many bytes: a connection takes a piece when most of the one before is on its way, and
/// what it has not taken is not handed on yet. In one piece a reply that its client reads slowly would look as if it were over.
pub(crate) fn parted<G: Send + Unpin + 'static>(
    response: Response,
    held: G,
    most: usize,
) -> Response {
    response.map(|body| {
        Body::new(Holding {
            body,
            most,
            rest: Bytes::new(),
            _held: held,
        })
    })
}

struct Holding<G> {
    body: Body,
    /// Bytes of a piece at most.
    most: usize,
    /// What is left of the frame at hand.
    rest: Bytes,
    _held: G,
}

impl<G: Unpin> hyper::body::Body for Holding<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.rest.len().min(self.most);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn connections(most: usize) -> Connections {
        Connections::new(most, &GatewayMetrics::register(&Arc::default()))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    async fn place(connections: &Connections, last: u8) -> Place {
        connections.place(peer(last)).await.unwrap()
    }

    fn is_closed(place: &Place) -> bool {
        place.closed().now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_new_connection_gets_the_place_of_the_longest_wait_where_most_wait() {
        let connections = connections(4);
        let alone = place(&connections, 1).await;
        let first = place(&connections, 2).await;
        let _others = [place(&connections, 2).await, place(&connections, 2).await];
        let mut new = Box::pin(connections.place(peer(3)));
        assert!((&mut new).now_or_never().is_none());
        assert!(is_closed(&first) && !is_closed(&alone));
        // There are never more than there are places.
        drop(first);
        let new = new.now_or_never().flatten();
        assert!(new.is_some());
        assert_eq!(connections.metrics.connections.get(), 4);
        assert_eq!(connections.metrics.connections_displaced.get(), 1);
        drop(new);
        assert_eq!(connections.metrics.connections.get(), 3);
    }

    #[tokio::test]
    async fn a_connection_with_a_request_keeps_its_place_until_its_reply_is_handed_on() {
        let connections = connections(2);
        let (one, two) = (place(&connections, 1).await, place(&connections, 1).await);
        let (first, second) = (one.busy(), two.busy());
        assert!(connections.place(peer(2)).await.is_none());
        assert_eq!(connections.metrics.connections_refused.get(), 1);
        drop(second);
        drop(first);
        // It has waited longer, though it is younger.
        let mut new = Box::pin(connections.place(peer(2)));
        assert!((&mut new).now_or_never().is_none());
        assert!(is_closed(&two) && !is_closed(&one));
    }

    #[test]
    fn tenants_leave_places_free_and_one_has_half_of_theirs() {
        let open = Open::new(32);
        let begin = |tenant: &str| open.begin(&TenantId::new(tenant));
        let mut held = Vec::new();
        for (tenant, most) in [("anna", 15), ("ben", 15), ("carl", 0)] {
            for _ in 0..most {
                held.push(begin(tenant).unwrap());
            }
            let refused = begin(tenant).unwrap_err();
            assert!(refused.json().contains("rate_limit"), "{}", refused.json());
        }
        held.clear();
        assert!(begin("carl").is_ok());
        // As few as there may be.
        assert!(Open::new(2).begin(&TenantId::new("anna")).is_ok());
    }

    #[test]
    fn addresses_that_one_client_can_take_are_one_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
