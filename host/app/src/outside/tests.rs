//! Requests over HTTP, from a guest through the host to a server, and what an episode finds in its store; and both again from the recording.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use bundled::fixtures::REACHING;
use plugin::{Capability, GuestEnvironment, Limits, PluginHost, outside::Outside};
use rl::{
    Action, Archive, Environment, Message, Seed, TaskId,
    store::{Contents, Session, Write},
};

use super::outside;
use crate::{
    config::Config,
    plugins::crossings::{Recorder, offers_of_a_replay, read, replay},
};

const SECRET: &str = "hunter2-hunter2-hunter2";

/// Answers one request with itself, and is gone.
fn echo_once() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let request = String::from_utf8(request).unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            request.len()
        );
        stream.write_all((head + &request).as_bytes()).unwrap();
        request
    };
    (port, thread::spawn(serve))
}

fn guest(offers: Outside) -> GuestEnvironment {
    let host = PluginHost::with(Limits::default(), offers).unwrap();
    let nothing = toml::Table::new();
    let plugin = host
        .load(
            REACHING.manifest,
            REACHING.component,
            &Capability::ALL,
            &nothing,
        )
        .unwrap();
    GuestEnvironment::new(&plugin, Seed::new(1)).unwrap()
}

/// What an episode of this task says to its first action; written down in this folder.
fn recorded(config: &str, task: &str, folder: &Path) -> rl::Result<String> {
    let config = Config::parse(config).unwrap();
    let guest = guest(outside(&config, folder.join("files")));
    let recorder = Recorder::new(Arc::new(guest), folder.join("recordings")).unwrap();
    let mut episode = recorder.start(&TaskId::new(task), Seed::new(1))?;
    let action = Action {
        message: Message::assistant("go"),
        truncated: false,
    };
    Ok(episode.act(&action)?.observation.messages[0]
        .content
        .clone())
}

fn recording(folder: &Path) -> std::path::PathBuf {
    let mut all = fs::read_dir(folder.join("recordings")).unwrap();
    all.next().unwrap().unwrap().path()
}

#[test]
fn an_exchange_over_http_replays_without_a_network_and_no_secret_is_in_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, SECRET).unwrap();
    let (port, server) = echo_once();
    let origin = format!("http://127.0.0.1:{port}");
    let config = format!(
        "[http.hosts.\"{origin}\"]\nprivate = true\nsecrets = {{ authorization = \"Bearer file:{}\" }}",
        key.display()
    );
    let said = recorded(&config, &format!("get {origin}/a"), folder.path()).unwrap();
    assert!(said.contains("authorization: Bearer ***"), "{said}");
    let sent = server.join().unwrap();
    assert!(
        sent.contains(&format!("authorization: Bearer {SECRET}\r\n")),
        "{sent}"
    );
    let path = recording(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("http.fetch") && text.contains("/a\""),
        "{text}"
    );
    let crossings = read(&path).unwrap();
    // Bodies are recorded as bytes.
    let bytes = SECRET
        .bytes()
        .map(|b| b.to_string())
        .collect::<Vec<_>>()
        .join(",");
    assert!(!text.contains(SECRET) && !text.contains(&bytes));
    // The server is gone, and the same bytes come back.
    let parted = replay(&guest(offers_of_a_replay()), &crossings).unwrap();
    assert_eq!(parted, None);
    let mut other = crossings;
    other[1].asked[0].with[0]["url"] = "https://elsewhere.example".into();
    let parted = replay(&guest(offers_of_a_replay()), &other).unwrap();
    assert!(
        parted
            .unwrap()
            .now
            .unwrap_err()
            .contains("is asked for where")
    );
}

#[test]
fn without_a_listed_host_a_guest_reads_that_there_is_no_http_and_a_refusal_replays() {
    for (config, expected) in [
        ("", "no host is listed"),
        (
            "[http.hosts.\"https://a.example\"]",
            "is not one of the hosts",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = recorded(config, "get https://169.254.169.254/", folder.path());
        let words = said.unwrap_err().to_string();
        assert!(words.contains(expected), "{words}");
        let crossings = read(&recording(folder.path())).unwrap();
        let parted = replay(&guest(offers_of_a_replay()), &crossings).unwrap();
        assert_eq!(parted, None);
    }
}

#[test]
fn a_host_that_is_not_written_as_an_origin_is_refused_with_its_section() {
    let error = Config::parse("[http.hosts.\"https://a.example/\"]").unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("[http]") && error.contains("`https://a.example`"),
        "{error}"
    );
}

/// What was stored when an episode began.
struct Before(Arc<Contents>);

impl Archive for Before {
    fn open(&self, _: &str) -> rl::Result<Session> {
        Ok(Session::new(Arc::clone(&self.0)))
    }
}

#[test]
fn what_an_episode_found_in_its_store_is_found_again_in_a_replay_whatever_is_stored_then() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("").unwrap();
    let guest_of_a_host = guest(outside(&config, folder.path().join("files")));
    let recordings = folder.path().join("recordings");
    let recorder = Recorder::new(Arc::new(guest_of_a_host), recordings).unwrap();
    let mut contents = Contents::default();
    let name = Write {
        key: "name".into(),
        value: Some(b"Ada".as_slice().into()),
    };
    contents.apply(1, &[name]).unwrap();
    let archive = Before(Arc::new(contents));
    let mut episode = recorder
        .start_with(&"store".into(), Seed::new(1), &archive)
        .unwrap();
    for (lines, expected) in [
        ("get name\nput name Eve\nkeys ", "Ada\nok\nname"),
        ("get name\nremove name\nget name", "Eve\nok\nnothing"),
    ] {
        let action = Action {
            message: Message::assistant(lines),
            truncated: false,
        };
        let step = episode.act(&action).unwrap();
        assert_eq!(step.observation.messages[0].content, expected);
    }
    drop(episode);
    let crossings = read(&recording(folder.path())).unwrap();
    // There is nothing in the store of a replay.
    let parted = replay(&guest(offers_of_a_replay()), &crossings).unwrap();
    assert_eq!(parted, None);
    let mut other = crossings;
    other[1].asked[0].with[0] = "age".into();
    let parted = replay(&guest(offers_of_a_replay()), &other).unwrap();
    assert!(parted.is_some(), "another key was asked for");
}
