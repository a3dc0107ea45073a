//! What a URL means, by one parser: WHATWG's, as browsers read it. Compares nothing; see [`super::client`].
//!
//! Attack: a checker and a client that read one URL differently. There is one reading here, and what goes out is put together
//! anew: the list's own scheme, host and port, and the path and query of the reading.

use percent_encoding::percent_decode;
use url::{Host, Position, Url};

/// Longest URL, in bytes.
const LONGEST: usize = 8 << 10;

/// How many times a path may be percent-encoded.
const ENCODED: usize = 4;

/// Characters that some servers fold to `.`, `/` or `\`.
const FOLDED: [char; 7] = [
    '\u{ff0e}', '\u{2024}', '\u{ff0f}', '\u{2044}', '\u{2215}', '\u{ff3c}', '\u{2216}',
];

/// Scheme, host and port of a listed host.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    /// As the list has it: `https://a.example:8443`.
    text: String,
}

impl Origin {
    /// Reads a key of the list, which must be in its one canonical form.
    pub(super) fn of_config(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
        check_scheme(&url)?;
        if text.contains('*') {
            return Err("`*` stands for nothing here; list each host".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("it is more than an origin; a path belongs into `path`".to_owned());
        }
        let canonical = url.origin().ascii_serialization();
        if text != canonical {
            return Err(format!("write it as `{canonical}`"));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("it has no host".to_owned());
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            text: canonical,
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn scheme_and_authority(&self) -> (&str, &str) {
        self.text.split_once("://").unwrap_or_default()
    }
}

fn check_scheme(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        other => Err(format!(
            "its scheme is `{other}`, and there are `https` and `http`"
        )),
    }
}

/// What a guest's URL means: the origin as the list would have it, and the path with the query.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) origin: String,
    pub(super) path: String,
    pub(super) path_and_query: String,
}

/// Reads a guest's URL.
pub(super) fn read(given: &str) -> Result<Target, String> {
    if given.len() > LONGEST {
        return Err(format!(
            "it has {} bytes, and {LONGEST} are allowed",
            given.len()
        ));
    }
    // The parser drops or turns these round, without a word; no honest URL has them.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if given.contains(is_odd) {
        return Err("it holds white space, a control character or a backslash".to_owned());
    }
    let url = Url::parse(given).map_err(|error| format!("it is no URL: {error}"))?;
    check_scheme(&url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it names a user or a password; no request carries them".to_owned());
    }
    Ok(Target {
        origin: url.origin().ascii_serialization(),
        path: url.path().to_owned(),
        path_and_query: url[Position::BeforePath..Position::AfterQuery].to_owned(),
    })
}

/// Whether a path is the prefix or below it, at the server as well as here.
///
/// Attack: segments that are `..` only after the server has decoded them once more, cut off what follows a `;`, folded an overlong or
/// full-width character, or taken a backslash for a slash.
pub(super) fn check_path(path: &str, prefix: &str) -> Result<(), String> {
    let outside = || format!("its path is not below `{prefix}`");
    if prefix == "/" {
        return Ok(());
    }
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_below = path
        .strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && folder == prefix));
    if !is_below {
        return Err(outside());
    }
    let odd = || format!("its path could lead out of `{prefix}` once it is decoded");
    let mut decoded = path.to_owned();
    for _ in 0..ENCODED {
        let before = decoded;
        decoded = percent_decode(before.as_bytes())
            .decode_utf8()
            .map_err(|_| odd())?
            .into_owned();
        if decoded == before {
            let slashes = |text: &str| text.matches('/').count();
            let is_up = |segment: &str| {
                let name = segment.split(';').next().unwrap_or_default();
                matches!(name.trim(), "." | "..")
            };
            let is_odd = |c: char| c.is_control() || c == '\\' || FOLDED.contains(&c);
            if decoded.contains(is_odd)
                || slashes(&decoded) != slashes(path)
                || decoded.split('/').any(is_up)
            {
                return Err(odd());
            }
            return Ok(());
        }
    }
    Err(odd())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What URLs are made of, and what is taken for it.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "https:",
            "http:",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "?",
            "#",
            ".",
            "..",
            ";",
            "%2e",
            "%2f",
            "%5c",
            "%25",
            "%00",
            "%40",
            "。",
            "．",
            "／",
            "[",
            "]",
            "::1",
            "127.0.0.1",
            "0x7f",
            "443",
            "a.example",
            "evil.example",
            "v1",
            "v1/",
            "\t",
            " ",
            "ä",
            "%c0%ae",
            "xn--",
            "-",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// The most generous of servers: decodes again and again, cuts at `;`, takes `\\` for `/`, and then goes up.
    fn resolved(path: &str) -> String {
        let mut path = path.to_owned();
        for _ in 0..10 {
            path = percent_decode(path.as_bytes())
                .decode_utf8_lossy()
                .into_owned();
        }
        let mut folders: Vec<&str> = Vec::new();
        for segment in path.split(['/', '\\']) {
            match segment.split(';').next().unwrap_or_default().trim() {
                ".." => drop(folders.pop()),
                "." => {}
                name => folders.push(name),
            }
        }
        folders.join("/")
    }

    proptest! {
        #[test]
        fn what_is_sent_to_a_listed_host_reads_as_that_host_again(rest in pieces()) {
            for given in [rest.clone(), format!("https://{rest}"), format!("https://a.example{rest}")] {
                if let Ok(target) = read(&given) && target.origin == "https://a.example" {
                    let sent = Url::parse(&format!("{}{}", target.origin, target.path_and_query)).unwrap();
                    prop_assert_eq!(sent.origin().ascii_serialization(), "https://a.example");
                    prop_assert_eq!(sent.path(), target.path);
                    prop_assert!(sent.username().is_empty() && sent.fragment().is_none());
                }
            }
        }

        #[test]
        fn no_path_that_passes_leads_out_at_a_server_that_decodes(rest in pieces()) {
            if let Ok(target) = read(&format!("https://a.example/v1/{rest}"))
                && check_path(&target.path, "/v1/").is_ok()
            {
                let reached = resolved(&target.path) + "/";
                prop_assert!(reached.starts_with("/v1/"), "{}", target.path);
            }
        }
    }

    #[test]
    fn other_spellings_of_a_host_are_that_host() {
        for given in [
            "https://api.example.com/a?b",
            "https://API.Example.COM/a?b",
            "HTTPS://api.example.com:443/a?b",
            "https://api.example.com:0443/a?b",
            "https:api.example.com/a?b",
            "https:////api.example.com/a?b",
            "https://api。example．com/a?b",
            "https://ａｐｉ.example.com/a?b",
            "https://%61pi.example.com/a?b",
            "https://api.example.com/x/%2E%2e/a?b#c",
        ] {
            let target = read(given).unwrap();
            let found = (target.origin.as_str(), target.path_and_query.as_str());
            assert_eq!(found, ("https://api.example.com", "/a?b"), "{given}");
        }
    }

    #[test]
    fn a_prefix_holds_at_the_server_too() {
        for (prefix, path) in [
            ("/", "/anything/..%2f"),
            ("/v1", "/v1"),
            ("/v1", "/v1/a"),
            ("/v1/", "/v1/"),
            ("/v1/", "/v1/a%20b/%c3%a4"),
            ("/v1/", "/v1/a..b/...c"),
        ] {
            assert_eq!(check_path(path, prefix), Ok(()), "{path}");
        }
        for (prefix, path) in [
            ("/v1", "/"),
            ("/v1", "/v10"),
            ("/v1/", "/v1"),
            ("/v1/", "/V1/a"),
            ("/v1/", "/v1/..%2fadmin"),
            ("/v1/", "/v1/%252e%252e/admin"),
            ("/v1/", "/v1/%25252e%25252e/admin"),
            ("/v1/", "/v1/%2525252525252e/admin"),
            ("/v1/", "/v1/..;/admin"),
            ("/v1/", "/v1/..;a=b/admin"),
            ("/v1/", "/v1/..%5cadmin"),
            ("/v1/", "/v1/a%2fb"),
            ("/v1/", "/v1/%c0%ae%c0%ae/admin"),
            ("/v1/", "/v1/%ef%bc%8e%ef%bc%8e/admin"),
            ("/v1/", "/v1/..%00/admin"),
            ("/v1/", "/v1/..%20/admin"),
        ] {
            assert!(check_path(path, prefix).is_err(), "{path}");
        }
    }
}
