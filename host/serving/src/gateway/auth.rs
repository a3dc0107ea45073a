//! Who calls: API keys, of which only SHA-256 digests are kept.
//!
//! Keys are random (at least 128 bits), so a plain digest suffices: there is no dictionary to try. Every key has a
//! public name (for logs and session ids) and a tenant. Without keys, which only a loopback address allows, every
//! caller is the tenant `local`, and web pages of other origins are refused.

use axum::http::{HeaderMap, header};
use rl::TenantId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::api_error::ApiError;
use crate::error::{Error, KeyProblem, Result};

/// `[[gateway.keys]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeyConfig {
    /// Public: it appears in logs and in derived session ids.
    pub name: String,
    /// Whose data its requests are.
    pub tenant: TenantId,
    /// The key's SHA-256, in hexadecimal: `printf %s "$KEY" | sha256sum`.
    pub sha256: String,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
}

#[derive(Debug)]
struct Key {
    digest: [u8; 32],
    caller: Caller,
}

/// The keys that this gateway knows.
#[derive(Debug)]
pub(crate) struct Keys {
    keys: Vec<Key>,
}

impl Keys {
    pub(crate) fn build(config: &[KeyConfig]) -> Result<Self> {
        let mut keys: Vec<Key> = Vec::with_capacity(config.len());
        for KeyConfig {
            name,
            tenant,
            sha256,
        } in config
        {
            let refuse = |problem| Error::Key {
                name: name.clone(),
                problem,
            };
            if name.is_empty() || tenant.as_str().is_empty() {
                return Err(refuse(KeyProblem::Empty));
            }
            let mut digest = [0; 32];
            hex::decode_to_slice(sha256, &mut digest).map_err(|_| refuse(KeyProblem::Digest))?;
            if keys.iter().any(|key| key.caller.key == *name) {
                return Err(refuse(KeyProblem::DuplicateName));
            }
            if keys.iter().any(|key| key.digest == digest) {
                return Err(refuse(KeyProblem::DuplicateDigest));
            }
            keys.push(Key {
                digest,
                caller: Caller {
                    tenant: tenant.clone(),
                    key: name.clone(),
                },
            });
        }
        Ok(Self { keys })
    }

    /// Whether callers need a key.
    pub(crate) fn required(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Who sent these headers.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if !self.required() {
            if comes_from_a_foreign_page(headers) {
                return Err(ApiError::foreign_origin());
            }
            return Ok(Caller {
                tenant: "local".into(),
                key: "local".into(),
            });
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(bearer)
            .ok_or_else(|| {
                ApiError::unauthorized("Send your API key as `Authorization: Bearer <key>`.")
            })?;
        let digest: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        // Every key is compared, so that the time says nothing about which one matches.
        let mut found = u64::MAX;
        for (index, key) in (0u64..).zip(&self.keys) {
            let same: Choice = key.digest.ct_eq(&digest);
            found = u64::conditional_select(&found, &index, same);
        }
        usize::try_from(found)
            .ok()
            .and_then(|index| self.keys.get(index))
            .map(|key| key.caller.clone())
            .ok_or_else(|| ApiError::unauthorized("This API key is not known here."))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Browsers send `Origin` with every POST, also after DNS rebinding; programs do not.
fn comes_from_a_foreign_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let host = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, rest)| {
            rest.rsplit_once(':').map_or(rest, |(host, port)| {
                if port.bytes().all(|b| b.is_ascii_digit()) {
                    host
                } else {
                    rest
                }
            })
        });
    !matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig {
            name: name.into(),
            tenant: format!("tenant-of-{name}").as_str().into(),
            sha256: hex::encode(Sha256::digest(secret)),
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn each_key_is_its_own_tenant_and_an_unknown_key_is_nobody() {
        let keys = Keys::build(&[key("a", "secret-a"), key("b", "secret-b")]).unwrap();
        let b = keys
            .check(&headers("authorization", "Bearer secret-b"))
            .unwrap();
        assert_eq!(b.tenant.as_str(), "tenant-of-b");
        assert_eq!(b.key, "b");
        for wrong in ["Bearer secret-c", "Basic secret-b", "secret-b", "Bearer "] {
            let error = keys.check(&headers("authorization", wrong)).unwrap_err();
            assert_eq!(error.status(), 401, "{wrong}");
        }
        assert_eq!(keys.check(&HeaderMap::new()).unwrap_err().status(), 401);
    }

    #[test]
    fn a_key_that_cannot_be_told_apart_is_refused() {
        let problem = |config: &[KeyConfig]| match Keys::build(config) {
            Err(Error::Key { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            problem(&[key("a", "x"), key("a", "y")]),
            KeyProblem::DuplicateName
        );
        assert_eq!(
            problem(&[key("a", "x"), key("b", "x")]),
            KeyProblem::DuplicateDigest
        );
        let short = KeyConfig {
            sha256: "ab".into(),
            ..key("a", "x")
        };
        assert_eq!(problem(&[short]), KeyProblem::Digest);
        assert_eq!(problem(&[key("", "x")]), KeyProblem::Empty);
    }

    #[test]
    fn a_host_without_keys_answers_programs_and_its_own_pages_only() {
        let keys = Keys::build(&[]).unwrap();
        assert!(keys.check(&HeaderMap::new()).is_ok());
        for own in [
            "http://localhost:8080",
            "http://127.0.0.1",
            "http://[::1]:80",
        ] {
            assert!(keys.check(&headers("origin", own)).is_ok(), "{own}");
        }
        for foreign in [
            "https://example.com",
            "null",
            "http://localhost.example.com:80",
        ] {
            let error = keys.check(&headers("origin", foreign)).unwrap_err();
            assert_eq!(error.status(), 403, "{foreign}");
        }
    }
}
