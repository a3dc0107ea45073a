//! Servers that lie, stall and flood: each ends in an error that names what was wrong, within its limits.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rl::{Action, Environment, Error, Message as Said, Seed};
use tungstenite::{Message, WebSocket};

use super::open;

/// Far more than any of them may take in all, goodbyes included, on a machine that is busy.
const BOUND: Duration = Duration::from_secs(20);

const ECHO: &str =
    r#"{"action":{"properties":{"message":{"type":"string"}},"required":["message"]}}"#;
const SECTION: &str = "call-timeout = \"400ms\"\nsession-wait = \"400ms\"\nmax-message-bytes = 65536\nmax-text-bytes = 2048";

type Socket = WebSocket<TcpStream>;

/// A server whose `GET` routes answer with `document` and whose sessions are played by `session`; its address.
fn server(
    document: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static,
    session: impl Fn(Socket) + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let both = Arc::new((document, session));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, both) = (stream.unwrap(), Arc::clone(&both));
            thread::spawn(move || {
                let mut head = [0; 512];
                let count = stream.peek(&mut head).unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..count]).into_owned();
                let route = line.split(' ').nth(1).unwrap_or_default().to_owned();
                if route == "/ws" {
                    if let Ok(socket) = tungstenite::accept(stream) {
                        both.1(socket);
                    }
                } else {
                    let _ = stream.read(&mut [0; 4096]);
                    both.0(&route, &mut stream);
                }
            });
        }
    });
    address
}

fn send(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// Documents of a well-behaved server.
fn honest(route: &str, stream: &mut TcpStream) {
    match route {
        "/schema" => send(stream, "200 OK", ECHO),
        _ => send(stream, "404 Not Found", "{}"),
    }
}

fn section() -> toml::Table {
    SECTION.parse().unwrap()
}

/// What opening says, in words; and that it did not take for ever.
fn opening(document: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let address = server(document, drop);
    let begun = Instant::now();
    let error = open(&address, &section()).unwrap_err();
    assert!(begun.elapsed() < BOUND, "{error:#}");
    format!("{error:#}")
}

/// What starting an episode or its first turn says. `answers` are sent, one for each message that comes.
fn playing(session: impl Fn(Socket) + Send + Sync + 'static) -> Error {
    let environment = open(&server(honest, session), &section()).unwrap();
    let begun = Instant::now();
    let played = environment
        .start(&"seed-1".into(), Seed::new(1))
        .and_then(|mut episode| {
            let action = Action {
                message: Said::assistant("Hi."),
                truncated: false,
            };
            let failed = episode.act(&action);
            if failed.is_err() {
                let again = episode.act(&action).unwrap_err();
                assert!(again.to_string().contains("is over"), "{again}");
            }
            failed
        });
    let error = played.unwrap_err();
    assert!(begun.elapsed() < BOUND, "{error}");
    error
}

/// Answers one message after the other, then waits for the client to go.
fn answers(texts: &'static [&'static str]) -> impl Fn(Socket) + Send + Sync {
    move |mut socket| {
        for text in texts {
            if socket.read().is_err() || socket.send(Message::text(*text)).is_err() {
                return;
            }
        }
        while socket.read().is_ok() {}
    }
}

const BEGUN: &str =
    r#"{"type":"observation","data":{"observation":{"text":"Go."},"reward":null,"done":false}}"#;

#[test]
fn whoever_is_not_there_or_not_an_environment_is_named_so() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nobody = open(&format!("http://127.0.0.1:{port}"), &section()).unwrap_err();
    assert!(
        format!("{nobody:#}").contains("is it started?"),
        "{nobody:#}"
    );
    for (status, body, named) in [
        ("404 Not Found", "{}", "does not speak OpenEnv"),
        ("500 Oops", "{}", "status 500"),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", "", "302"),
        ("200 OK", "<html>", "not JSON"),
        ("200 OK", "{}", "no `properties`"),
        ("200 OK", "\u{1b}[2J", "not JSON"),
    ] {
        let error = opening(move |_, stream| send(stream, status, body));
        assert!(
            error.contains(named) && !error.contains('\u{1b}'),
            "{status}: {error}"
        );
    }
}

#[test]
fn a_document_that_never_ends_is_cut_off() {
    let error = opening(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 4096]).is_ok() {}
    });
    assert!(error.contains("max-message-bytes"), "{error}");
}

#[test]
fn a_document_that_does_not_come_or_comes_byte_by_byte_times_out() {
    let silent = opening(|_, stream| {
        let _ = stream.read(&mut [0; 1]);
    });
    assert!(silent.contains("did not answer within 400 ms"), "{silent}");
    let slow = opening(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::park_timeout(Duration::from_millis(50));
        }
    });
    assert!(slow.contains("did not answer within 400 ms"), "{slow}");
}

#[test]
fn what_a_session_says_wrongly_is_the_servers_failure_by_name() {
    for (texts, named) in [
        (&["no json"][..], "failed in reset: it is not JSON"),
        (&["[]"], "no message of OpenEnv's protocol"),
        (&[BEGUN, "NaN"], "failed in step: it is not JSON"),
        (
            &[
                BEGUN,
                r#"{"type":"observation","data":{"observation":{},"reward":NaN,"done":true}}"#,
            ],
            "not JSON",
        ),
        (
            &[
                BEGUN,
                r#"{"type":"observation","data":{"observation":{},"reward":"1","done":true}}"#,
            ],
            "`reward` is no number",
        ),
        (
            &[r#"{"type":"observation","data":{"observation":{},"reward":0,"done":true}}"#],
            "over before the first action",
        ),
        (
            &[
                BEGUN,
                r#"{"type":"error","data":{"code":"EXECUTION_ERROR","message":"it broke"}}"#,
            ],
            "EXECUTION_ERROR: it broke",
        ),
    ] {
        let error = playing(answers(texts));
        assert!(
            error.is_guest() && error.to_string().contains(named),
            "{named}: {error}"
        );
    }
}

#[test]
fn a_server_that_has_no_place_may_have_one_later() {
    let error = playing(answers(&[
        r#"{"type":"error","data":{"code":"CAPACITY_REACHED","message":"1 of 1"}}"#,
    ]));
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("`sessions`"), "{error}");
}

#[test]
fn a_session_that_stalls_or_only_pings_times_out() {
    let silent = playing(|mut socket| while socket.read().is_ok() {});
    assert!(
        matches!(silent, Error::TimedOut { limit_ms: 400, .. }),
        "{silent}"
    );
    let pings = playing(|mut socket| {
        while socket.send(Message::Ping(vec![1].into())).is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    assert!(matches!(pings, Error::TimedOut { .. }), "{pings}");
}

#[test]
fn a_session_that_floods_closes_or_babbles_is_named() {
    let huge = playing(|mut socket| {
        let _ = socket.read();
        let _ = socket.send(Message::text("x".repeat(1 << 20)));
        while socket.read().is_ok() {}
    });
    assert!(huge.to_string().contains("max-message-bytes"), "{huge}");
    let long = playing(|mut socket| {
        let _ = socket.read();
        let long = BEGUN.replace("Go.", &"x".repeat(4096));
        let _ = socket.send(Message::text(long));
        while socket.read().is_ok() {}
    });
    assert!(long.to_string().contains("max-text-bytes"), "{long}");
    let closed = playing(|mut socket| {
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    });
    assert!(
        closed.to_string().contains("closed the session"),
        "{closed}"
    );
    let binary = playing(|mut socket| {
        let _ = socket.read();
        let _ = socket.send(Message::binary(vec![1, 2, 3]));
        while socket.read().is_ok() {}
    });
    assert!(binary.to_string().contains("binary"), "{binary}");
}

#[test]
fn rewards_that_add_up_to_no_number_are_no_outcome() {
    let most = r#"{"type":"observation","data":{"observation":{},"reward":1.7e308}}"#;
    let environment = open(
        &server(honest, move |mut socket| {
            while socket.read().is_ok() && socket.send(Message::text(most)).is_ok() {}
        }),
        &section(),
    )
    .unwrap();
    let mut episode = environment.start(&"seed-1".into(), Seed::new(1)).unwrap();
    let action = Action {
        message: Said::assistant("Hi."),
        truncated: false,
    };
    let error = episode.act(&action).unwrap_err();
    assert!(error.to_string().contains("no finite number"), "{error}");
}

#[test]
fn an_episode_that_cannot_get_a_session_says_so_and_one_that_failed_gives_its_back() {
    let environment = open(&server(honest, answers(&[BEGUN])), &section()).unwrap();
    let start = || environment.start(&"seed-1".into(), Seed::new(1));
    let first = start().unwrap();
    let error = start().map(drop).unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("`session-wait`"),
        "{error}"
    );
    drop(first);
    let mut second = start().unwrap();
    let action = Action {
        message: Said::assistant("Hi."),
        truncated: false,
    };
    assert!(second.act(&action).is_err());
    drop(second);
    start().unwrap();
}

#[test]
fn replies_that_are_no_actions_never_reach_the_server_and_are_not_free() {
    let numbers = ECHO.replace("string", "integer");
    let address = server(
        move |route, stream| match route {
            "/schema" => send(stream, "200 OK", &numbers),
            _ => send(stream, "404 Not Found", "{}"),
        },
        // A second message would end the session.
        answers(&[BEGUN]),
    );
    let mut section = section();
    section.insert("invalid-reward".into(), (-0.25).into());
    section.insert("reward-min".into(), (-1.0).into());
    let environment = open(&address, &section).unwrap();
    let mut episode = environment.start(&"seed-1".into(), Seed::new(1)).unwrap();
    assert_eq!(episode.outcome().unwrap(), None);
    let action = Action {
        message: Said::assistant("left"),
        truncated: false,
    };
    for _ in 0..2 {
        let told = episode.act(&action).unwrap().observation.messages;
        assert!(told[0].content.contains("not an integer"), "{told:?}");
    }
    assert_eq!(episode.outcome().unwrap().unwrap().score, 0.25);
}
