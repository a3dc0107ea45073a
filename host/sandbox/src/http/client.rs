//! The list of hosts at work: who may ask for what, how often, and of which addresses.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use ureq::http::{HeaderMap, HeaderName};

use crate::{Error, Result};

use super::{
    address,
    config::{Config, Host, Method},
    exchange::{self, Incoming, Outgoing, Trouble},
    headers,
    secret::{Masking, Secret},
    target::{self, Origin, Target},
};

/// The addresses of a name. May block.
pub type Resolve = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What the machine around is asked for.
#[derive(Clone)]
pub struct Surroundings {
    /// The value of an environment variable.
    pub variable: fn(&str) -> Option<String>,
    /// The addresses of a name.
    pub resolve: Resolve,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings(..)")
    }
}

impl Default for Surroundings {
    /// The process's own environment, and the system's resolver.
    fn default() -> Self {
        let resolve = |name: &str| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        };
        Self {
            variable: |name| std::env::var(name).ok(),
            resolve: Arc::new(resolve),
        }
    }
}

/// A request as a guest makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}

/// A response as a guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Reaches the hosts of one configuration; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// By origin, in its canonical form.
    hosts: BTreeMap<String, Listed>,
    /// Of the secrets of all hosts: one may have been told another's, and repeat it.
    masking: Masking,
    surroundings: Surroundings,
    at_once: usize,
    under_way: AtomicUsize,
}

/// A host of the list, with its secrets read.
#[derive(Debug)]
struct Listed {
    origin: Origin,
    host: Host,
    secrets: Vec<(HeaderName, Secret)>,
    secret_names: Vec<String>,
}

impl Client {
    /// Checks the config and reads the secrets.
    ///
    /// # Errors
    /// [`Error::Refused`] for a config that cannot be; [`Error::Unavailable`] when it lists no host, or a secret cannot be read:
    /// why is in the log, for the operator.
    pub fn new(config: &Config, surroundings: Surroundings) -> Result<Self> {
        config.validate()?;
        let unavailable = |why: String| Error::Unavailable {
            capability: "http",
            why,
        };
        if config.hosts.is_empty() {
            let why = "no host is listed; name one under [http.hosts]".to_owned();
            return Err(unavailable(why));
        }
        let mut hosts = BTreeMap::new();
        for (origin, host) in &config.hosts {
            let listed = Listed::new(origin, host, &surroundings).map_err(|why| {
                tracing::error!(%origin, %why, "failed to read a secret of a host");
                // The guest reads this: neither the name of the variable nor the path is its business.
                unavailable(format!(
                    "a secret of {origin} cannot be read; the host's log says why"
                ))
            })?;
            hosts.insert(origin.clone(), listed);
        }
        let secrets = hosts.values().flat_map(|listed| &listed.secrets);
        let shared = Shared {
            masking: Masking::of(secrets.map(|(_, secret)| secret)),
            hosts,
            surroundings,
            at_once: config.at_once,
            under_way: AtomicUsize::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A guest's way to the hosts, which counts its requests.
    pub fn session(&self) -> Session {
        Session {
            shared: Arc::clone(&self.shared),
            asked: BTreeMap::new(),
        }
    }
}

impl Listed {
    fn new(origin: &str, host: &Host, around: &Surroundings) -> std::result::Result<Self, String> {
        let mut secrets = Vec::new();
        for (name, text) in &host.secrets {
            let secret = Secret::read(text, &around.variable)?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
            secrets.push((name, secret));
        }
        Ok(Self {
            origin: Origin::of_config(origin)?,
            host: host.clone(),
            secret_names: host.secrets.keys().cloned().collect(),
            secrets,
        })
    }

    /// Everything that can be said of a request before the network is asked.
    fn check(&self, target: &Target, request: &Request) -> std::result::Result<HeaderMap, String> {
        let method = request.method;
        if !self.host.methods.contains(&method) {
            return Err(format!(
                "`methods` of {} has no {method}",
                self.origin.as_str()
            ));
        }
        target::check_path(&target.path, &self.host.path)?;
        let body = request.body.as_ref().map_or(0, Vec::len);
        if matches!(method, Method::Get | Method::Head) && request.body.is_some() {
            return Err(format!("a {method} has no body"));
        }
        if body > self.host.request_bytes {
            let most = self.host.request_bytes;
            return Err(format!(
                "its body has {body} bytes, and `request-bytes` allows {most}"
            ));
        }
        let mut headers = headers::request(&request.headers, &self.secret_names)?;
        for (name, secret) in &self.secrets {
            headers.insert(name.clone(), secret.value.clone());
        }
        Ok(headers)
    }
}

impl Shared {
    fn shown(&self, incoming: Incoming) -> Response {
        let seen = |(name, value): (String, Vec<u8>)| {
            (
                self.masking.text(name.as_bytes()),
                self.masking.text(&value),
            )
        };
        Response {
            status: incoming.status,
            headers: headers::response(&incoming.headers)
                .into_iter()
                .map(seen)
                .collect(),
            body: self.masking.bytes(incoming.body),
        }
    }
}

/// One guest's requests.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    /// How many requests were made, by origin.
    asked: BTreeMap<String, u32>,
}

impl Session {
    /// Asks a listed host. Blocks for at most its `timeout`.
    ///
    /// # Errors
    /// [`Error::Refused`] for what the list does not allow, [`Error::Failed`] when the network or the server does not answer well.
    pub fn fetch(&mut self, request: &Request) -> Result<Response> {
        self.attempt(request).map_err(|trouble| {
            let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            let url: String = request.url.chars().take(200).map(clean).collect();
            let action = format!("{} {url}", request.method);
            match trouble {
                Trouble::Refused(why) => Error::Refused { action, why },
                Trouble::Failed(why) => Error::Failed { action, why },
            }
        })
    }

    fn attempt(&mut self, request: &Request) -> std::result::Result<Response, Trouble> {
        let target = target::read(&request.url).map_err(Trouble::Refused)?;
        let Some(listed) = self.shared.hosts.get(&target.origin) else {
            return Err(Trouble::Refused(format!(
                "{} is not one of the hosts that the operator lists",
                target.origin
            )));
        };
        let headers = listed.check(&target, request).map_err(Trouble::Refused)?;
        let asked = self.asked.entry(target.origin.clone()).or_default();
        let most = listed.host.requests;
        if *asked >= most {
            let why = format!("{asked} requests were made, and `requests` allows no more");
            return Err(Trouble::Refused(why));
        }
        *asked += 1;
        let seat = Seat::take(&self.shared)?;
        let deadline = Instant::now() + listed.host.timeout;
        let addresses = addresses(&self.shared, listed, &seat, deadline)?;
        let incoming = exchange::send(Outgoing {
            origin: &listed.origin,
            addresses,
            method: request.method,
            path_and_query: &target.path_and_query,
            headers,
            body: request.body.as_deref(),
            deadline,
            response_bytes: listed.host.response_bytes,
        })?;
        let (origin, status) = (listed.origin.as_str(), incoming.status);
        tracing::debug!(origin, method = %request.method, status, "a guest asked a host");
        Ok(self.shared.shown(incoming))
    }
}

/// The addresses of a host, all of them checked: one that is forbidden among others is an attempt at something.
fn addresses(
    shared: &Shared,
    listed: &Listed,
    seat: &Arc<Seat>,
    deadline: Instant,
) -> std::result::Result<Vec<SocketAddr>, Trouble> {
    let found = match &listed.origin.host {
        url::Host::Ipv4(address) => vec![IpAddr::V4(*address)],
        url::Host::Ipv6(address) => vec![IpAddr::V6(*address)],
        url::Host::Domain(name) => resolve(shared, name, Arc::clone(seat), deadline)?,
    };
    for address in &found {
        if let Some(kind) = address::forbidden(*address, listed.host.private) {
            return Err(Trouble::Refused(format!(
                "its host stands for a {kind} address"
            )));
        }
    }
    if found.is_empty() {
        return Err(Trouble::Failed("its host has no address".to_owned()));
    }
    let port = listed.origin.port;
    Ok(found
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// On a thread of its own, because the system's resolver knows no deadline; the seat is taken until it returns.
fn resolve(
    shared: &Shared,
    name: &str,
    seat: Arc<Seat>,
    deadline: Instant,
) -> std::result::Result<Vec<IpAddr>, Trouble> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let (ask, name) = (Arc::clone(&shared.surroundings.resolve), name.to_owned());
    let run = move || {
        // Nobody waits any more: the answer is worth nothing.
        let _ = sender.send(ask(&name));
        drop(seat);
    };
    let failed = |why: String| Trouble::Failed(format!("its host cannot be resolved: {why}"));
    thread::Builder::new()
        .name("http-resolve".to_owned())
        .spawn(run)
        .map_err(|error| failed(error.to_string()))?;
    match receiver.recv_timeout(exchange::left(deadline)) {
        Ok(found) => found.map_err(|error| failed(error.kind().to_string())),
        Err(_) => Err(exchange::late()),
    }
}

/// The right to have one request under way.
#[derive(Debug)]
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> std::result::Result<Arc<Self>, Trouble> {
        let most = shared.at_once;
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        shared
            .under_way
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .map(|_| Arc::new(Self(Arc::clone(shared))))
            .map_err(|taken| {
                Trouble::Failed(format!(
                    "{taken} requests are under way, and `at-once` allows no more; ask again"
                ))
            })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
