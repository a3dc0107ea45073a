//! One repository of one registry, over HTTP: the part of the OCI distribution specification that packages need.
//!
//! Everything that comes back is capped before it is read. Redirects are followed here and not by the HTTP library, since who is told
//! what is decided at each ([`super::origin`]). Does not know what a package is.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use ureq::http::header::{HeaderMap, HeaderName};
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::{Agent, AsSendBody, Body};

use super::artifact::{Descriptor, MANIFEST, MANIFEST_BYTES, shown};
use super::challenge::{Challenge, challenges};
use super::credentials::Credentials;
use super::digest::Digest;
use super::origin::Origin;
use super::reference::{Reference, Which};

/// A closed network refuses or swallows connections; either must show within seconds.
const CONNECT: Duration = Duration::from_secs(10);
/// A registry may store an upload before it answers.
const ANSWER: Duration = Duration::from_secs(60);
/// A body from which nothing comes for so long is broken.
const STALLED: Duration = Duration::from_secs(30);
/// A package of the largest size, at 100 KB a second. A body that drips for ever ends here.
const WHOLE: Duration = Duration::from_secs(400);
/// More than any registry needs: to a store of blobs, and to a mirror of it.
const REDIRECTS: u32 = 4;
/// Tokens are 1 to 4 KB.
const TOKEN_BYTES: u64 = 64 << 10;
const ERROR_BYTES: u64 = 8 << 10;
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What is to be done with the repository; a token is asked for that, and not for what a registry would like to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A repository.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    origin: Origin,
    repository: String,
    access: Access,
    credentials: Option<Credentials>,
    /// What opens the registry, once it has asked.
    authorization: Option<String>,
}

/// A request, before it is known where it ends up.
struct Asked<'a> {
    method: Method,
    headers: &'a [(HeaderName, &'a str)],
    body: &'a [u8],
}

/// Registries say `token`, services of OAuth 2 `access_token`, and some both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// The repository of a reference. `plain` allows HTTP without TLS, which a registry on this machine is asked by in any case.
    ///
    /// # Errors
    /// A registry that is no host.
    pub(super) fn new(
        reference: &Reference,
        access: Access,
        credentials: Option<Credentials>,
        plain: bool,
    ) -> anyhow::Result<Self> {
        let at = |scheme: &str| format!("{scheme}://{}", reference.authority());
        let local = Origin::of(&parse(&at("http"))?)?.is_loopback();
        let base = at(if plain || local { "http" } else { "https" });
        let config = Agent::config_builder()
            .user_agent(concat!("nextstate/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(STALLED))
            .timeout_global(Some(WHOLE))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Ok(Self {
            agent: config.into(),
            origin: Origin::of(&parse(&base)?)?,
            base,
            repository: reference.repository.clone(),
            access,
            credentials,
            authorization: None,
        })
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// A manifest's bytes and digest.
    ///
    /// # Errors
    /// There is none; it is another thing, too long, or not what its digest says.
    pub(super) fn manifest(&mut self, which: &Which) -> anyhow::Result<(Vec<u8>, Digest)> {
        let url = self.url(&format!("manifests/{which}"));
        let mut response = self.get(&url, MANIFEST)?;
        expect(&mut response, 200, &url)?;
        let kind = text(response.headers(), &header::CONTENT_TYPE);
        let kind = kind.split(';').next().unwrap_or_default().trim();
        ensure!(
            kind == MANIFEST,
            "{url} is `{}`, and a plugin is `{MANIFEST}`",
            shown(kind)
        );
        let named = said_digest(response.headers())?;
        let bytes = capped(&mut response, MANIFEST_BYTES, &url)?;
        let digest = Digest::of(&bytes);
        let wanted = match which {
            Which::Digest(wanted) => Some(*wanted),
            Which::Tag(_) => named,
        };
        same(wanted.unwrap_or(digest), digest, &url)?;
        Ok((bytes, digest))
    }

    /// The digest of the manifest that a tag names; none where there is none.
    ///
    /// # Errors
    /// The registry's.
    pub(super) fn tagged(&mut self, tag: &str) -> anyhow::Result<Option<Digest>> {
        let url = self.url(&format!("manifests/{tag}"));
        let mut response = self.get(&url, MANIFEST)?;
        if response.status() == 404 {
            return Ok(None);
        }
        expect(&mut response, 200, &url)?;
        Ok(Some(Digest::of(&capped(
            &mut response,
            MANIFEST_BYTES,
            &url,
        )?)))
    }

    /// A blob's bytes.
    ///
    /// # Errors
    /// There is none, or it is not what the descriptor says.
    pub(super) fn blob(&mut self, blob: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let mut response = self.get(&url, "application/octet-stream")?;
        expect(&mut response, 200, &url)?;
        let bytes = capped(&mut response, blob.size, &url)?;
        ensure!(
            bytes.len() as u64 == blob.size,
            "{url} has {} bytes, and its manifest says {}",
            bytes.len(),
            blob.size
        );
        same(blob.digest, Digest::of(&bytes), &url)?;
        Ok(bytes)
    }

    /// Uploads a blob, unless it is there.
    ///
    /// # Errors
    /// The registry's.
    pub(super) fn put_blob(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let digest = Digest::of(bytes);
        let url = self.url(&format!("blobs/{digest}"));
        let head = Asked {
            method: Method::HEAD,
            headers: &[],
            body: &[],
        };
        if self.send(&url, &head)?.status() == 200 {
            return Ok(());
        }
        let url = self.url("blobs/uploads/");
        let post = Asked {
            method: Method::POST,
            headers: &[],
            body: &[],
        };
        let mut response = self.send(&url, &post)?;
        expect(&mut response, 202, &url)?;
        let place = join(&parse(&url)?, &text(response.headers(), &header::LOCATION))
            .with_context(|| format!("failed to find out where {url} wants the upload"))?;
        let joint = if place.query().is_some() { '&' } else { '?' };
        let place = format!("{place}{joint}digest={digest}");
        let put = Asked {
            method: Method::PUT,
            headers: &[(header::CONTENT_TYPE, "application/octet-stream")],
            body: bytes,
        };
        expect(&mut self.send(&place, &put)?, 201, &url)
    }

    /// Uploads a manifest under a tag.
    ///
    /// # Errors
    /// The registry's.
    pub(super) fn put_manifest(&mut self, tag: &str, bytes: &[u8]) -> anyhow::Result<Digest> {
        let url = self.url(&format!("manifests/{tag}"));
        let put = Asked {
            method: Method::PUT,
            headers: &[(header::CONTENT_TYPE, MANIFEST)],
            body: bytes,
        };
        let mut response = self.send(&url, &put)?;
        expect(&mut response, 201, &url)?;
        let digest = Digest::of(bytes);
        same(
            digest,
            said_digest(response.headers())?.unwrap_or(digest),
            &url,
        )?;
        Ok(digest)
    }

    fn get(&mut self, url: &str, accept: &str) -> anyhow::Result<Response<Body>> {
        let get = Asked {
            method: Method::GET,
            headers: &[(header::ACCEPT, accept)],
            body: &[],
        };
        self.send(url, &get)
    }

    /// Sends, shows who we are if the registry asks, and goes where it says if it may say so.
    fn send(&mut self, url: &str, asked: &Asked<'_>) -> anyhow::Result<Response<Body>> {
        let failed = || format!("failed to {} {url}", asked.method);
        let mut uri = parse(url).with_context(failed)?;
        let mut shown_already = false;
        let mut redirects = 0;
        loop {
            let to = Origin::of(&uri).with_context(failed)?;
            self.origin.may_lead_to(&to).with_context(failed)?;
            let own = to == self.origin;
            // Elsewhere has no use for what opens the registry, but to open it itself.
            let authorization = self.authorization.clone().filter(|_| own);
            let response = self
                .once(&uri, asked, authorization.as_deref())
                .with_context(failed)?;
            let moved = response.status().is_redirection();
            if response.status() == 401 && own && !shown_already {
                self.authorize(response.headers()).with_context(failed)?;
                shown_already = true;
            } else if moved && matches!(asked.method, Method::GET | Method::HEAD) {
                redirects += 1;
                ensure!(
                    redirects <= REDIRECTS,
                    "{url} leads on and on: more than {REDIRECTS} redirects"
                );
                uri = join(&uri, &text(response.headers(), &header::LOCATION))
                    .with_context(failed)?;
            } else {
                return Ok(response);
            }
        }
    }

    fn once(
        &self,
        uri: &Uri,
        asked: &Asked<'_>,
        authorization: Option<&str>,
    ) -> anyhow::Result<Response<Body>> {
        let mut request = Request::builder().method(&asked.method).uri(uri);
        for (name, value) in asked.headers {
            request = request.header(name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let direct = Origin::of(uri)?.is_loopback();
        Ok(match asked.method {
            Method::GET | Method::HEAD => self.run(request.body(())?, direct)?,
            _ => self.run(request.body(asked.body)?, direct)?,
        })
    }

    /// Sends, around the environment's proxy if `direct`: to a proxy, this machine is another one, and what opens the registry would be
    /// told to it in the clear.
    fn run<S: AsSendBody>(
        &self,
        request: Request<S>,
        direct: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        if !direct {
            return self.agent.run(request);
        }
        let request = self.agent.configure_request(request).proxy(None).build();
        self.agent.run(request)
    }

    /// Finds what answers the registry's challenge.
    fn authorize(&mut self, headers: &HeaderMap) -> anyhow::Result<()> {
        let all = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let all: Vec<Challenge> = all
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .collect();
        let bearer = all.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        self.authorization = match (bearer, &self.credentials) {
            (Some((realm, service)), _) => Some(format!("Bearer {}", self.token(realm, service)?)),
            (None, Some(own)) if all.contains(&Challenge::Basic) => Some(own.basic()),
            (None, None) if all.contains(&Challenge::Basic) => None,
            (None, _) => bail!("the registry asks for an authorization that is not known here"),
        };
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>) -> anyhow::Result<String> {
        let failed = || format!("failed to get a token from {}", shown(realm));
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let joint = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!(
            "{realm}{joint}scope=repository:{}:{actions}",
            self.repository
        );
        if let Some(service) = service {
            url.push_str("&service=");
            url.push_str(&encoded(service));
        }
        let uri = parse(&url).with_context(failed)?;
        let to = Origin::of(&uri).with_context(failed)?;
        self.origin.may_lead_to(&to).with_context(failed)?;
        // Attack: a registry that sends us to a stranger for the token, who would learn the password.
        let trusted = to.is_site_of(&self.origin);
        let own = self.credentials.as_ref().filter(|_| trusted);
        let get = Asked {
            method: Method::GET,
            headers: &[],
            body: &[],
        };
        let mut response = self
            .once(&uri, &get, own.map(Credentials::basic).as_deref())
            .with_context(failed)?;
        let withheld = self.credentials.is_some() && !trusted;
        if withheld && response.status() != 200 {
            bail!(
                "{} is of another site than the registry: it was asked without the password, and answered {}",
                shown(realm),
                response.status()
            );
        }
        expect(&mut response, 200, realm).with_context(failed)?;
        let bytes = capped(&mut response, TOKEN_BYTES, realm).with_context(failed)?;
        // Not by the parser's error: it could quote the token.
        let token: Token = serde_json::from_slice(&bytes)
            .ok()
            .context("its answer holds no token")
            .with_context(failed)?;
        let said = [token.token, token.access_token].into_iter().flatten();
        let said = { said }.find(|token| !token.is_empty());
        said.context("its answer holds no token")
            .with_context(failed)
    }
}

fn parse(text: &str) -> anyhow::Result<Uri> {
    text.parse()
        .with_context(|| format!("`{}` is no address", shown(text)))
}

/// Where a `Location` leads from here: an address, or a path on the same host.
fn join(from: &Uri, location: &str) -> anyhow::Result<Uri> {
    ensure!(!location.is_empty(), "it says no location");
    let host = from.authority().map_or("", |authority| authority.as_str());
    let scheme = from.scheme_str().unwrap_or_default();
    // `//host/path` would be another host.
    if location.starts_with('/') && !location.starts_with("//") {
        return parse(&format!("{scheme}://{host}{location}"));
    }
    parse(location)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn said_digest(headers: &HeaderMap) -> anyhow::Result<Option<Digest>> {
    let said = text(headers, &DIGEST);
    (!said.is_empty()).then(|| said.parse()).transpose()
}

fn same(wanted: Digest, found: Digest, url: &str) -> anyhow::Result<()> {
    ensure!(
        wanted == found,
        "{url} has the digest {found}, and {wanted} was promised"
    );
    Ok(())
}

/// A body that must end within so many bytes.
fn capped(response: &mut Response<Body>, most: u64, url: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("failed to read what {url} sends"))?;
    ensure!(
        bytes.len() as u64 <= most,
        "{url} sends more than the {most} bytes that it may"
    );
    Ok(bytes)
}

/// Turns any other status into an error that says what to do.
fn expect(response: &mut Response<Body>, status: u16, url: &str) -> anyhow::Result<()> {
    let found = response.status();
    if found == status {
        return Ok(());
    }
    let mut body = Vec::new();
    let read = response.body_mut().as_reader().take(ERROR_BYTES);
    // The status is the error; what is said beside it is a kindness.
    let _ = { read }.read_to_end(&mut body);
    let said = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    let said = &said["errors"][0];
    let said = ["code", "message"].map(|key| shown(said[key].as_str().unwrap_or_default()));
    let hint = match found.as_u16() {
        401 | 403 => {
            "; set NEXTSTATE_OCI_REGISTRY, NEXTSTATE_OCI_USER and NEXTSTATE_OCI_PASSWORD, or use `docker login` without a credential helper"
        }
        404 => "; there is nothing of that name, or it is not for everybody",
        429 => "; it is asked too often: wait, or log in",
        _ => "",
    };
    bail!(
        "{} answers {found} {}{hint}",
        shown(url),
        said.join(" ").trim()
    )
}

/// Percent-encoded for a query.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let one = |byte: u8| match byte {
        byte if plain(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
