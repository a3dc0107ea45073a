//! A registry on the loopback that keeps to the specification, but for what a test twists.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest as _, Sha256};

/// One request.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    content_type: String,
    body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Repeats the body until nobody reads any more.
    endless: bool,
}

impl Answer {
    pub(super) fn new(status: u16, body: &[u8]) -> Self {
        Self {
            status,
            body: body.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }
}

/// Answers instead of the registry where it wants to.
type Twist = Box<dyn Fn(&Seen) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By tag and by digest.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
}

/// The registry.
pub(super) struct Registry {
    /// Host and port.
    pub(super) address: String,
    content: Mutex<Content>,
    seen: Mutex<Vec<Seen>>,
    twist: Twist,
}

impl Registry {
    /// One that does as it should.
    pub(super) fn start() -> Arc<Self> {
        Self::twisted(|_| None)
    }

    /// One that answers some requests otherwise. Lives as long as the test binary.
    pub(super) fn twisted(
        twist: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            content: Mutex::default(),
            seen: Mutex::default(),
            twist: Box::new(twist),
        });
        let own = Arc::clone(&registry);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                thread::spawn(move || own.serve(&stream));
            }
        });
        registry
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Puts a manifest and blobs there, as somebody else would have.
    pub(super) fn hold(&self, tag: &str, kind: &str, manifest: &[u8], blobs: &[&[u8]]) {
        let mut content = self.content.lock().unwrap();
        for blob in blobs {
            content.blobs.insert(digest(blob), blob.to_vec());
        }
        let kept = (kind.to_owned(), manifest.to_vec());
        content.manifests.insert(tag.to_owned(), kept.clone());
        content.manifests.insert(digest(manifest), kept);
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let seen = read(stream)?;
        self.seen.lock().unwrap().push(seen.clone());
        let answer = (self.twist)(&seen).unwrap_or_else(|| self.answer(&seen));
        let mut out = stream;
        write!(out, "HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status).ok()?;
        for (name, value) in &answer.headers {
            write!(out, "{name}: {value}\r\n").ok()?;
        }
        if answer.endless {
            write!(out, "\r\n").ok()?;
            loop {
                out.write_all(&answer.body).ok()?;
            }
        }
        write!(out, "content-length: {}\r\n\r\n", answer.body.len()).ok()?;
        if seen.method != "HEAD" {
            out.write_all(&answer.body).ok()?;
        }
        out.flush().ok()
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let Some((_, [kind, rest])) = path.strip_prefix("/v2/").and_then(last_two) else {
            return Answer::new(404, b"");
        };
        let mut content = self.content.lock().unwrap();
        match (seen.method.as_str(), kind) {
            ("GET" | "HEAD", "blobs") => content
                .blobs
                .get(rest)
                .map_or(Answer::new(404, b""), |blob| Answer::new(200, blob)),
            ("POST", "uploads") => Answer::new(202, b"").with("location", &format!("{path}7?x=y")),
            ("PUT", "uploads") => {
                let digest = digest(&seen.body);
                if query != format!("x=y&digest={digest}") {
                    return Answer::new(400, br#"{"errors": [{"code": "DIGEST_INVALID"}]}"#);
                }
                content.blobs.insert(digest, seen.body.clone());
                Answer::new(201, b"")
            }
            ("GET", "manifests") => match content.manifests.get(rest) {
                Some((kind, manifest)) => Answer::new(200, manifest).with("content-type", kind),
                None => Answer::new(404, br#"{"errors": [{"code": "MANIFEST_UNKNOWN"}]}"#),
            },
            ("PUT", "manifests") => {
                let kept = (seen.content_type.clone(), seen.body.clone());
                let digest = digest(&seen.body);
                content.manifests.insert(rest.to_owned(), kept.clone());
                content.manifests.insert(digest.clone(), kept);
                Answer::new(201, b"").with("docker-content-digest", &digest)
            }
            _ => Answer::new(405, b""),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The repository, and the last two parts of a path.
fn last_two(path: &str) -> Option<(&str, [&str; 2])> {
    let (before, last) = path.rsplit_once('/')?;
    let (repository, kind) = before.rsplit_once('/')?;
    Some((repository, [kind, last]))
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut seen = Seen {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        ..Seen::default()
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => seen.authorization = Some(value.to_owned()),
            "content-type" => seen.content_type = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    seen.body = vec![0; length];
    reader.read_exact(&mut seen.body).ok()?;
    Some(seen)
}
