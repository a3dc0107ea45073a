//! What a page may reach, and the answers to its requests.
//!
//! A page is given one thing at a time: HTML, under [`SHOWN`], or a site, under an origin of its own. Every request is answered
//! from that or fails; the names end in `.invalid` and `.test`, which no resolver knows (RFC 2606).

use std::{path::PathBuf, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{connection::Connection, session::Session, site};

/// Where HTML that was given to a page is.
pub(super) const SHOWN: &str = "https://shown.invalid/";

/// What a page may reach.
#[derive(Debug, Clone, Default)]
pub(super) enum Given {
    #[default]
    Nothing,
    Html(Arc<str>),
    Site {
        name: String,
        folder: PathBuf,
    },
}

/// A request of a page that waits for its answer.
#[derive(Debug)]
pub(super) struct Paused {
    id: String,
    url: String,
    method: String,
    frame: String,
    is_document: bool,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Content(&'static str, Vec<u8>),
    /// A status, and why.
    Sorry(u16, String),
    /// Not within what the page was given.
    Outside,
}

impl Paused {
    /// Keeps what matters of the event; the body of the request, which may be large, does not.
    pub(super) fn from_event(params: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: text(&params["requestId"]),
            url: text(&params["request"]["url"]),
            method: text(&params["request"]["method"]),
            frame: text(&params["frameId"]),
            is_document: params["resourceType"] == "Document",
        }
    }
}

/// Answers one request of a page.
pub(super) fn serve(
    paused: &Paused,
    given: &Mutex<Given>,
    session: &Session,
    connection: &Connection,
) {
    // Cloned, so that reading a file keeps nobody waiting who gives the page something else.
    let given = given.lock().clone();
    let (status, kind, body) = match given.answer(paused) {
        Answer::Content(kind, body) => (200, kind, body),
        Answer::Sorry(status, why) => (status, "text/plain; charset=utf-8", why.into_bytes()),
        Answer::Outside => {
            if paused.is_document && paused.frame == session.target {
                session.block(&paused.url);
            }
            // An aborted navigation leaves the page as it was; any other failure shows chromium's own page in its place.
            let reason = if paused.is_document {
                "Aborted"
            } else {
                "AccessDenied"
            };
            let failure = json!({ "requestId": paused.id, "errorReason": reason });
            return connection.post(Some(&session.id), "Fetch.failRequest", failure);
        }
    };
    let answer = json!({
        "requestId": paused.id,
        "responseCode": status,
        "responseHeaders": [
            { "name": "Content-Type", "value": kind },
            { "name": "Cache-Control", "value": "no-store" },
        ],
        "body": STANDARD.encode(body),
    });
    connection.post(Some(&session.id), "Fetch.fulfillRequest", answer);
}

impl Given {
    fn answer(&self, paused: &Paused) -> Answer {
        let origin = match self {
            Given::Nothing => return Answer::Outside,
            Given::Html(_) => SHOWN.to_owned(),
            Given::Site { name, .. } => site::origin(name),
        };
        let Some(path) = paused.url.strip_prefix(&origin) else {
            return Answer::Outside;
        };
        if !["GET", "HEAD"].contains(&paused.method.as_str()) {
            let why = format!("{} is not answered here: only GET is", paused.method);
            return Answer::Sorry(405, why);
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        match self {
            Given::Html(html) if path.is_empty() => {
                Answer::Content("text/html; charset=utf-8", html.as_bytes().to_vec())
            }
            Given::Site { folder, .. } => match site::read(folder, &site::decode(path)) {
                Ok((kind, content)) => Answer::Content(kind, content),
                Err(why) => Answer::Sorry(404, why),
            },
            _ => Answer::Sorry(404, "there is no such file".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(given: &Given, method: &str, url: &str) -> Answer {
        let params = json!({ "request": { "url": url, "method": method } });
        given.answer(&Paused::from_event(&params))
    }

    #[test]
    fn a_page_that_was_given_html_reaches_that_and_nothing_else() {
        let given = Given::Html("<p>hi".into());
        for url in [SHOWN, "https://shown.invalid/?x=1"] {
            let content = Answer::Content("text/html; charset=utf-8", b"<p>hi".to_vec());
            assert_eq!(asked(&given, "GET", url), content, "{url}");
        }
        for url in [
            "https://shown.invalid.evil/",
            "http://shown.invalid/",
            "https://shop.test/a.html",
            "http://127.0.0.1:80/",
            "chrome://version/",
        ] {
            assert_eq!(asked(&given, "GET", url), Answer::Outside, "{url}");
            assert_eq!(asked(&Given::Nothing, "GET", url), Answer::Outside);
        }
        let status = |answer| match answer {
            Answer::Sorry(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(asked(&given, "POST", SHOWN)), 405);
        assert_eq!(status(asked(&given, "GET", "https://shown.invalid/a")), 404);
    }

    #[test]
    fn a_page_on_a_site_reaches_that_sites_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a b.css"), "x").unwrap();
        let given = Given::Site {
            name: "shop".to_owned(),
            folder: folder.path().to_owned(),
        };
        let css = Answer::Content("text/css; charset=utf-8", b"x".to_vec());
        assert_eq!(asked(&given, "GET", "https://shop.test/a%20b.css?v=2"), css);
        for url in [SHOWN, "https://shop.test.evil/", "https://other.test/"] {
            assert_eq!(asked(&given, "GET", url), Answer::Outside, "{url}");
        }
    }
}
