//! Which machines a registry may lead to, and which of them are told what.
//!
//! A registry answers with addresses of its own choice: where to upload, where a blob lies, who gives out tokens. The rules are here:
//! - what is the registry's own (scheme, host and port) gets its token;
//! - elsewhere is reached by https only, and gets none. A registry on this machine may lead to others on it, too;
//! - the password goes to a token service of the registry's own site, and to nobody else.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use ureq::http::Uri;

/// Scheme, host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Where an address leads.
    pub(super) fn of(uri: &Uri) -> anyhow::Result<Self> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("`{uri}` is neither an https nor an http address"),
        };
        let authority = uri.authority().context("it names no host")?;
        // A name before an `@` looks like the host to a reader, and would be sent as a password.
        ensure!(
            !authority.as_str().contains('@'),
            "`{uri}` has a user in it"
        );
        Ok(Self {
            tls,
            host: authority.host().to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        })
    }

    /// Whether it is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|ip| ip.is_loopback())
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }

    /// Refuses to go where this registry must not lead: in the clear, or to what runs on this machine alone.
    pub(super) fn may_lead_to(&self, other: &Origin) -> anyhow::Result<()> {
        if self == other || (self.is_loopback() && other.is_loopback()) {
            return Ok(());
        }
        ensure!(
            other.tls,
            "the registry {} leads to {} without TLS, where anybody on the way could answer",
            self.host,
            other.host
        );
        ensure!(
            !other.is_loopback(),
            "the registry {} leads to this machine",
            self.host
        );
        Ok(())
    }

    /// Whether both are of one house: the same host, or names that end in the same two words, as registry.gitlab.com's and gitlab.com do.
    /// Coarser than who owns which name; beyond it, only a registry that is hostile itself could send the password on.
    pub(super) fn is_site_of(&self, other: &Origin) -> bool {
        if self.host == other.host {
            return true;
        }
        let site = |origin: &Origin| {
            let words: Vec<&str> = origin.host.rsplit('.').take(2).collect();
            (origin.address().is_none() && words.len() == 2).then(|| words.join("."))
        };
        site(self).is_some() && site(self) == site(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_registry_leads_to_itself_or_away_by_tls_and_never_to_this_machine() {
        let check = |from: &str, to: &str, may: bool| {
            let found = origin(from).may_lead_to(&origin(to)).is_ok();
            assert_eq!(found, may, "{from} to {to}");
        };
        check("https://a.org", "https://a.org:443/x", true);
        check("https://a.org", "https://b.org", true);
        check("https://a.org", "http://a.org", false);
        check("https://a.org", "https://localhost", false);
        check("https://a.org", "https://127.0.0.1", false);
        check("https://a.org", "http://[::1]:80", false);
        check("http://a.org:5000", "http://a.org:5000/x", true);
        check("http://a.org:5000", "http://a.org", false);
        check("http://127.0.0.1:1", "http://localhost:2", true);
        check("http://127.0.0.1:1", "http://a.org", false);
    }

    #[test]
    fn a_site_is_a_host_and_what_ends_in_the_same_two_words() {
        let check = |one: &str, other: &str, same: bool| {
            let found = origin(one).is_site_of(&origin(other));
            assert_eq!(found, same, "{one} and {other}");
        };
        check("https://registry.gitlab.com", "https://gitlab.com", true);
        check(
            "https://registry-1.docker.io",
            "https://auth.docker.io",
            true,
        );
        check("https://ghcr.io", "https://ghcr.io:8443", true);
        check("https://a.org", "https://b.org", false);
        check("https://a.org", "https://a.org.evil.net", false);
        check("https://10.0.0.1", "https://9.0.0.1", false);
        check("http://127.0.0.1:1", "http://localhost:1", false);
    }

    #[test]
    fn an_address_with_a_user_or_another_scheme_is_none() {
        for text in ["https://ann@a.org/", "ftp://a.org/", "/v2/", "file:///etc"] {
            let uri = text.parse::<Uri>().map_err(anyhow::Error::from);
            assert!(uri.and_then(|uri| Origin::of(&uri)).is_err(), "{text}");
        }
    }
}
