//! Which headers a guest may send and see.

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

/// Most headers of a request, and most bytes of them together.
const MOST: usize = 64;
const BYTES: usize = 16 << 10;

/// What makes the message and the connection. It is the host's, on both ways.
const FRAMING: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What speaks for somebody else, or changes what was checked: the path, the method, who asks, how the answer is packed.
const FORGED: [&str; 14] = [
    "accept-encoding",
    "cookie",
    "cookie2",
    "forwarded",
    "set-cookie",
    "set-cookie2",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-host",
];

const FORGED_PREFIXES: [&str; 2] = ["x-forwarded-", "proxy-"];

/// Not shown: cookies, and what no longer is so once the body is read and masked.
const UNSEEN: [&str; 3] = ["set-cookie", "set-cookie2", "content-encoding"];

/// Attack: servers that hand headers on as variables (CGI, WSGI) read `_` as `-`.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Whether a name may be that of a secret.
pub(super) fn check_secret_name(name: &str) -> Result<(), String> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() || name.to_ascii_lowercase() != name {
        return Err(
            "the name of a secret is that of a header in lower case, such as `authorization`"
                .to_owned(),
        );
    }
    if FRAMING.contains(&folded(name).as_str()) || folded(name) == "accept-encoding" {
        return Err(format!(
            "`{name}` is no secret's name: the host makes that header itself"
        ));
    }
    Ok(())
}

/// A guest's headers, where it may send all of them.
pub(super) fn request(given: &[(String, String)], secrets: &[String]) -> Result<HeaderMap, String> {
    let bytes: usize = given
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if given.len() > MOST || bytes > BYTES {
        return Err(format!(
            "it has {} headers of {bytes} bytes, and {MOST} of {BYTES} are allowed",
            given.len()
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let Ok(parsed) = parsed else {
            return Err("the name of a header is not made of a header's characters".to_owned());
        };
        check(&parsed, secrets)?;
        // Refuses line ends and NUL: no header ends the one it is in.
        let Ok(value) = HeaderValue::from_str(value) else {
            return Err(format!(
                "the header `{parsed}` holds a line end, or another character that no header may"
            ));
        };
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn check(name: &HeaderName, secrets: &[String]) -> Result<(), String> {
    let plain = folded(name.as_str());
    if secrets.iter().any(|secret| folded(secret) == plain) {
        return Err(format!("the header `{name}` is the operator's"));
    }
    // Attack: an echoed secret, fetched in two halves of which neither is the secret.
    if !secrets.is_empty() && matches!(plain.as_str(), "range" | "if-range") {
        return Err(format!(
            "the header `{name}` is not for a host that has secrets: nothing can be masked in a piece"
        ));
    }
    let is_forged = FORGED_PREFIXES
        .iter()
        .any(|prefix| plain.starts_with(prefix));
    if is_forged || FRAMING.contains(&plain.as_str()) || FORGED.contains(&plain.as_str()) {
        return Err(format!("the header `{name}` is the host's to send"));
    }
    Ok(())
}

/// The headers of a response that a guest sees, not masked yet.
pub(super) fn response(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let is_seen = |name: &str| !FRAMING.contains(&name) && !UNSEEN.contains(&name);
    headers
        .iter()
        .filter(|(name, _)| is_seen(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str, secrets: &[&str]) -> Option<String> {
        let secrets: Vec<String> = secrets.iter().map(|s| (*s).to_owned()).collect();
        request(&[(name.to_owned(), value.to_owned())], &secrets).err()
    }

    #[test]
    fn what_is_the_hosts_or_splits_the_request_is_refused() {
        for name in [
            "Host",
            "content-length",
            "Content_Length",
            "transfer-encoding",
            "connection",
            "te",
            "upgrade",
            "expect",
            "cookie",
            "Cookie",
            "x-forwarded-for",
            "X_Forwarded_Host",
            "forwarded",
            "proxy-authorization",
            "x-http-method-override",
            "x-original-url",
            "accept-encoding",
            "via",
        ] {
            assert!(
                refused(name, "x", &[]).unwrap().contains("the host's"),
                "{name}"
            );
        }
        for value in ["a\r\nhost: evil", "a\nb", "a\rb", "a\0b", "a\u{7f}"] {
            assert!(
                refused("x-a", value, &[]).unwrap().contains("line end"),
                "{value:?}"
            );
        }
        for name in ["", "a b", "a:", "a\r\nb", "ä", "x-a\0"] {
            assert!(
                refused(name, "x", &[])
                    .unwrap()
                    .contains("name of a header"),
                "{name:?}"
            );
        }
        assert_eq!(refused("accept", "text/html", &[]), None);
        assert_eq!(refused("authorization", "mine", &[]), None);
        assert_eq!(refused("range", "bytes=0-1", &[]), None);
    }

    #[test]
    fn a_secret_s_header_and_pieces_of_an_echo_are_out_of_reach() {
        let secrets = ["x-api-key"];
        for name in ["X-Api-Key", "x_api_key"] {
            assert!(
                refused(name, "x", &secrets)
                    .unwrap()
                    .contains("the operator's")
            );
        }
        assert!(
            refused("Range", "bytes=0-1", &secrets)
                .unwrap()
                .contains("in a piece")
        );
        assert_eq!(refused("authorization", "mine", &secrets), None);
    }

    #[test]
    fn headers_are_few() {
        let many = vec![("a".to_owned(), String::new()); MOST + 1];
        assert!(request(&many, &[]).unwrap_err().contains("65 headers"));
        let large = vec![("a".to_owned(), "x".repeat(BYTES))];
        assert!(request(&large, &[]).unwrap_err().contains("16385 bytes"));
    }
}
