//! One request and its answer, over a connection of its own to addresses that were checked.

use std::{
    io::Read,
    net::SocketAddr,
    time::{Duration, Instant},
};

use ureq::{
    Agent,
    http::{self, HeaderMap, Uri, header},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use super::{config::Method, target::Origin};

/// Most bytes of a response's status and headers.
const HEAD_BYTES: usize = 32 << 10;

/// Most addresses of a name that are tried.
const ADDRESSES: usize = 16;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What was asked for may not be had.
    Refused(String),
    /// The network or the server.
    Failed(String),
}

/// What is sent, checked.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) origin: &'a Origin,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) method: Method,
    pub(super) path_and_query: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<&'a [u8]>,
    pub(super) deadline: Instant,
    pub(super) response_bytes: usize,
}

/// An answer, not masked yet.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Attack: a name that resolves to something harmless when it is checked and to something else when it is connected to.
#[derive(Debug)]
struct Pinned(Vec<SocketAddr>);

impl Resolver for Pinned {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        for address in self.0.iter().take(ADDRESSES) {
            addresses.push(*address);
        }
        Ok(addresses)
    }
}

/// What is left until a deadline; at least a millisecond, since no time at all means for ever.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

pub(super) fn late() -> Trouble {
    Trouble::Failed("it took longer than `timeout` allows".to_owned())
}

pub(super) fn send(outgoing: Outgoing<'_>) -> Result<Incoming, Trouble> {
    let (scheme, authority) = outgoing.origin.scheme_and_authority();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(outgoing.path_and_query)
        .build()
        .map_err(|_| Trouble::Refused("its path holds what no request may".to_owned()))?;
    let config = Agent::config_builder()
        .https_only(outgoing.origin.is_https())
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .save_redirect_history(false)
        .max_idle_connections(0)
        .max_response_header_size(HEAD_BYTES)
        .timeout_global(Some(left(outgoing.deadline)))
        .user_agent("nextstate")
        .accept("")
        // Nothing is decompressed, and nothing compressed could be masked.
        .accept_encoding("identity")
        .build();
    let pinned = Pinned(outgoing.addresses);
    let agent = Agent::with_parts(config, DefaultConnector::default(), pinned);
    let mut request = http::Request::new(());
    *request.method_mut() = method(outgoing.method);
    *request.uri_mut() = uri;
    *request.headers_mut() = outgoing.headers;
    let writes = matches!(outgoing.method, Method::Post | Method::Put | Method::Patch);
    let response = match outgoing.body {
        None if !writes => agent.run(request),
        body => agent.run(request.map(|()| body.unwrap_or_default())),
    };
    receive(
        response.map_err(|error| failed(&error))?,
        outgoing.deadline,
        outgoing.response_bytes,
    )
}

fn method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
    }
}

fn receive(
    response: http::Response<ureq::Body>,
    deadline: Instant,
    most: usize,
) -> Result<Incoming, Trouble> {
    let (head, body) = response.into_parts();
    if head.status.as_u16() < 200 {
        let why = format!("it answered {} and no more", head.status.as_u16());
        return Err(Trouble::Failed(why));
    }
    let packing = head.headers.get_all(header::CONTENT_ENCODING).iter();
    let transfer = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if packing.into_iter().any(|packing| packing != "identity")
        || transfer.into_iter().any(|transfer| transfer != "chunked")
    {
        let why = "it answered compressed, though it was asked not to".to_owned();
        return Err(Trouble::Failed(why));
    }
    let too_long = || {
        let why = format!("its answer is longer than `response-bytes` allows, which is {most}");
        Err(Trouble::Refused(why))
    };
    let fits = |length: u64| usize::try_from(length).is_ok_and(|length| length <= most);
    if !body.content_length().is_none_or(fits) {
        return too_long();
    }
    let mut reader = body.into_reader();
    let (mut body, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        // Attack: a byte a second, each well within any time-out of a single read.
        if Instant::now() >= deadline {
            return Err(late());
        }
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) if body.len() + read > most => return too_long(),
            Ok(read) => body.extend_from_slice(&piece[..read]),
            Err(error) => return Err(failed(&ureq::Error::from(error))),
        }
    }
    Ok(Incoming {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// In words of our own: a library's may quote what was sent.
fn failed(error: &ureq::Error) -> Trouble {
    let why = match error {
        ureq::Error::Timeout(_) => return late(),
        ureq::Error::Io(error) => format!("the connection broke: {}", error.kind()),
        ureq::Error::ConnectionFailed => "no address of it can be connected to".to_owned(),
        ureq::Error::LargeResponseHeader(..) => {
            format!("the head of its answer is longer than {HEAD_BYTES} bytes")
        }
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            "TLS failed: no certificate that is valid for this host".to_owned()
        }
        _ => "its answer is no valid HTTP".to_owned(),
    };
    Trouble::Failed(why)
}
