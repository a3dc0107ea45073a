//! What a person calls a package in a registry: `registry/repository:tag`, or `…@sha256:…`.
//!
//! Everything here becomes a part of a URL's path, so the grammar is the specification's and nothing beyond it: no `..`, no empty part,
//! no `%`, no `?`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, ensure};

use super::digest::Digest;

/// What a reference may begin with.
pub(super) const SCHEME: &str = "oci://";
/// The tag that is meant by none.
const LATEST: &str = "latest";
/// What people call a registry, and the machine that answers for it.
const ALIASES: [&str; 2] = ["docker.io", "index.docker.io"];
const ALIASED: &str = "registry-1.docker.io";

/// A package's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Host and port, as the person wrote it.
    pub registry: String,
    /// The path in it.
    pub repository: String,
    /// Which one of those that are there; none was said where none was meant.
    pub which: Option<Which>,
}

/// Which of a repository's artifacts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one that has this name now.
    Tag(String),
    /// The one that has this content.
    Digest(Digest),
}

impl Reference {
    /// The machine to ask: host and port.
    pub fn authority(&self) -> &str {
        if ALIASES.contains(&self.registry.as_str()) {
            return ALIASED;
        }
        &self.registry
    }

    /// Which artifact to fetch.
    pub fn wanted(&self) -> Which {
        let latest = || Which::Tag(LATEST.to_owned());
        self.which.clone().unwrap_or_else(latest)
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// With `oci://` before it, or without.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let failed = || {
            format!(
                "failed to read `{text}` as a place in a registry, for example registry.example.org/ann/my-reward:0.1.0"
            )
        };
        read(text.strip_prefix(SCHEME).unwrap_or(text)).with_context(failed)
    }
}

fn read(text: &str) -> anyhow::Result<Reference> {
    let (registry, path) = text
        .split_once('/')
        .context("it names a registry, a `/` and a repository")?;
    // Without this, `ann/my-reward` would go to a registry that nobody named.
    ensure!(
        registry == "localhost" || registry.contains(['.', ':']),
        "its first part, `{registry}`, is no registry's host: that has a `.` or a port"
    );
    ensure!(
        is_authority(registry),
        "`{registry}` is no registry's host and port"
    );
    let (repository, which) = match path.split_once('@') {
        Some((repository, digest)) => (repository, Some(Which::Digest(digest.parse()?))),
        None => match path.split_once(':') {
            Some((repository, tag)) => {
                ensure!(
                    is_tag(tag),
                    "`{tag}` is no tag: up to 128 letters, digits, `_`, `.` and `-`, of which `.` and `-` cannot be first"
                );
                (repository, Some(Which::Tag(tag.to_owned())))
            }
            None => (path, None),
        },
    };
    ensure!(
        is_repository(repository),
        "`{repository}` is no repository: lower-case words and digits, joined by `/`, `.`, `_`, `__` or `-`{}",
        if repository.contains(':') {
            "; a tag and a digest at once are not meant"
        } else {
            ""
        }
    );
    Ok(Reference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        which,
    })
}

/// `host`, `host:port` or `[address]:port`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let name = |host: &str| !host.is_empty() && host.len() <= 253 && host.chars().all(word);
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let address = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
    inner.map_or_else(|| name(host), address)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_repository(text: &str) -> bool {
    let alone = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        let joints = part.split(alone).filter(|joint| !joint.is_empty());
        let mut joints = joints.map(|joint| {
            matches!(joint, "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        });
        part.starts_with(alone) && part.ends_with(alone) && joints.all(|good| good)
    };
    text.len() <= 255 && text.split('/').all(part)
}

/// Whether registries take it as a tag.
pub(super) fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.which {
            Some(Which::Tag(tag)) => write!(f, ":{tag}"),
            Some(Which::Digest(digest)) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Tag(tag) => f.write_str(tag),
            Which::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, registry: &str, repository: &str, wanted: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(
            (
                reference.registry.as_str(),
                reference.repository.as_str(),
                reference.wanted().to_string().as_str()
            ),
            (registry, repository, wanted)
        );
    }

    #[test]
    fn a_reference_names_a_registry_a_repository_and_a_tag_or_a_digest() {
        check(
            "oci://ghcr.io/ann/my-reward:0.1.0",
            "ghcr.io",
            "ann/my-reward",
            "0.1.0",
        );
        check("localhost/a", "localhost", "a", "latest");
        check("[::1]:5000/a/b_c", "[::1]:5000", "a/b_c", "latest");
        let digest = Digest::of(b"").to_string();
        check(
            &format!("127.0.0.1:5000/a@{digest}"),
            "127.0.0.1:5000",
            "a",
            &digest,
        );
        let hub: Reference = "docker.io/ann/a:1".parse().unwrap();
        assert_eq!(hub.authority(), "registry-1.docker.io");
        assert_eq!(hub.to_string(), "docker.io/ann/a:1");
    }

    #[test]
    fn nothing_that_could_leave_a_path_or_name_another_host_is_a_reference() {
        let digest = Digest::of(b"").to_string();
        for text in [
            "",
            "ann/my-reward",
            "ghcr.io",
            "ghcr.io/",
            "ghcr.io//a",
            "ghcr.io/../../v2/other:1",
            "ghcr.io/a/../b:1",
            "ghcr.io/a/..:1",
            "ghcr.io/%2e%2e/a:1",
            "ghcr.io/a?x=1",
            "ghcr.io/a#x",
            "ghcr.io/A:1",
            "ghcr.io/a.-b",
            "ghcr.io/a:..",
            "ghcr.io/a:../../b",
            "ghcr.io/a:1/../../b",
            "ghcr.io/a:",
            "ghcr.io/a: 1",
            "ghcr.io/a:1\r\nx: y",
            "ghcr.io/a@sha256:..",
            "ghcr.io/a@sha512:00",
            "ann@ghcr.io/a:1",
            "ghcr.io:99999/a",
            "ghcr.io:/a",
            "http://ghcr.io/a",
            "[::1/a",
            &format!("ghcr.io/a@{}", digest.to_uppercase()),
            &format!("ghcr.io/a:1@{digest}"),
            &format!("ghcr.io/{}", "a/".repeat(200)),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
