//! The capability `http`, as a guest calls it: counts, limits, and hands over to [`crate::outside::Network`].

use crate::{
    bindings::{http as wit, types::Fault},
    capabilities::{Answer, State},
    outside::{Client, Method, Request},
};

/// The requests of an instance.
pub(crate) struct Held(Box<dyn Client>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(client)")
    }
}

impl wit::Host for State {
    fn fetch(&mut self, request: wit::Request) -> Answer<wit::Response> {
        let Some(network) = self.offers().http.clone() else {
            let why = "this host offers no http".to_owned();
            return Ok(Err(Fault::Unsupported(why)));
        };
        let mut client = self.client.take().unwrap_or_else(|| Held(network.client()));
        let header = |header: &wit::Header| header.name.len() + header.value.len();
        let passed = request.url.len()
            + request.headers.iter().map(header).sum::<usize>()
            + request.body.as_ref().map_or(0, Vec::len);
        let answer = self.outside(passed, |_| Ok(client.0.fetch(asked(request))));
        self.client = Some(client);
        let header = |(name, value)| wit::Header { name, value };
        Ok(answer?.map(|response| wit::Response {
            status: response.status,
            headers: response.headers.into_iter().map(header).collect(),
            body: response.body,
        }))
    }
}

fn asked(request: wit::Request) -> Request {
    let header = |header: wit::Header| (header.name, header.value);
    Request {
        method: match request.method {
            wit::Method::Get => Method::Get,
            wit::Method::Head => Method::Head,
            wit::Method::Post => Method::Post,
            wit::Method::Put => Method::Put,
            wit::Method::Patch => Method::Patch,
            wit::Method::Delete => Method::Delete,
        },
        url: request.url,
        headers: request.headers.into_iter().map(header).collect(),
        body: request.body,
    }
}
