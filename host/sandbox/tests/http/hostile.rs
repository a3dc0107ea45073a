//! Servers that want more of whoever asks than an answer takes.

use std::{
    io::{Read as _, Write as _},
    thread::park_timeout,
    time::{Duration, Instant},
};

use sandbox::http::{Host, Request};

use crate::{
    server::Server,
    support::{Names, failed, get, refused, session},
};

/// Ends on a machine that is busy, and long before a server that drips has finished.
const SOON: Duration = Duration::from_secs(20);

fn host() -> Host {
    Host {
        private: true,
        response_bytes: 10_000,
        ..Host::default()
    }
}

fn impatient() -> Host {
    Host {
        timeout: Duration::from_millis(400),
        ..host()
    }
}

fn ask(server: &Server, host: Host) -> sandbox::Result<sandbox::http::Response> {
    session(&[(&server.origin(), host)], &Names::default()).fetch(&get(&server.origin()))
}

/// Says the head at once, and then a piece every 50 ms for a minute.
fn dripping(head: &'static [u8], piece: &'static [u8]) -> Server {
    Server::doing(move |_, stream| {
        let _ = stream.write_all(head);
        for _ in 0..1_200 {
            if stream.write_all(piece).is_err() {
                return;
            }
            park_timeout(Duration::from_millis(50));
        }
    })
}

#[test]
fn a_body_over_the_cap_is_refused_whether_it_says_its_length_or_not() {
    let body = "x".repeat(10_001);
    for head in [
        "content-length: 10001\r\n\r\n".to_owned(),
        "content-length: 99999999999999\r\n\r\n".to_owned(),
        "\r\n".to_owned(),
    ] {
        let server = Server::saying(format!("HTTP/1.1 200 OK\r\n{head}{body}"));
        let why = refused(ask(&server, host()));
        assert!(why.contains("`response-bytes`"), "{why}");
    }
    let endless = dripping(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4_096]);
    assert!(refused(ask(&endless, host())).contains("`response-bytes`"));
    let server = Server::saying(format!("HTTP/1.1 200 OK\r\n\r\n{}", &body[1..]));
    assert_eq!(ask(&server, host()).unwrap().body.len(), 10_000);
}

#[test]
fn chunks_are_joined_and_counted() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = Server::saying(format!("{head}5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"));
    let response = ask(&server, host()).unwrap();
    assert_eq!(
        (response.body.as_slice(), response.headers),
        (&b"hello!"[..], Vec::new())
    );
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    let many = format!("{head}{}", chunk.repeat(11));
    let server = Server::saying(many);
    assert!(refused(ask(&server, host())).contains("`response-bytes`"));
    for broken in ["zz\r\n", "ffffffffffffffffff\r\nx", "5\r\nhel"] {
        let server = Server::saying(format!("{head}{broken}"));
        failed(ask(&server, host()));
    }
}

#[test]
fn a_drop_a_moment_ends_at_the_time_out_in_the_body_and_in_the_head() {
    for server in [
        dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nx-a: ", b"x"),
        // Says nothing at all, until whoever asked is gone.
        Server::doing(|_, stream| {
            let _ = stream.read(&mut [0]);
        }),
    ] {
        let started = Instant::now();
        let why = failed(ask(&server, impatient()));
        assert!(why.contains("`timeout`"), "{why}");
        assert!(started.elapsed() < SOON);
    }
}

#[test]
fn a_resolver_that_hangs_ends_at_the_time_out() {
    let around = sandbox::http::Surroundings {
        variable: |_| None,
        resolve: std::sync::Arc::new(|_| {
            park_timeout(Duration::from_secs(60));
            Ok(Vec::new())
        }),
    };
    let config = sandbox::http::Config {
        hosts: [("https://slow.example".to_owned(), impatient())].into(),
        at_once: 1,
    };
    let mut session = sandbox::http::Client::new(&config, around)
        .unwrap()
        .session();
    let why = failed(session.fetch(&get("https://slow.example")));
    assert!(why.contains("`timeout`"), "{why}");
    // Its thread is not let go of: whoever asks for many such names gets no more of them.
    let why = failed(session.fetch(&get("https://slow.example")));
    assert!(why.contains("`at-once`"), "{why}");
}

/// 9,000 bytes of gzip that are over a megabyte of zeros: one literal, then the longest copy of it, again and again.
fn bomb() -> Vec<u8> {
    let copies = std::iter::repeat_n("1100010100000", 5_500);
    let bits = ["1", "10", "00110000"]
        .into_iter()
        .chain(copies)
        .collect::<String>()
        + "0000000";
    let byte = |bits: &[u8]| {
        let set = |(at, bit): (usize, &u8)| u8::from(*bit == b'1') << at;
        bits.iter().enumerate().map(set).sum::<u8>()
    };
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    head.into_iter()
        .chain(bits.as_bytes().chunks(8).map(byte))
        .collect()
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = bomb();
    let length = bomb.len();
    for packing in [
        "content-encoding: gzip",
        "content-encoding: br",
        "transfer-encoding: gzip",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{packing}\r\ncontent-length: {length}\r\n\r\n");
        let server = Server::saying([head.as_bytes(), &bomb].concat());
        let why = failed(ask(&server, host()));
        assert!(why.contains("compressed"), "{packing}: {why}");
    }
    // Unsaid, it is bytes like any others.
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let server = Server::saying([head.as_bytes(), &bomb].concat());
    assert_eq!(ask(&server, host()).unwrap().body, bomb);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let many = "x-a: b\r\n".repeat(200);
    let long = format!("x-a: {}\r\n", "b".repeat(100_000));
    for headers in [many, long] {
        let server = Server::saying(format!("HTTP/1.1 200 OK\r\n{headers}\r\n"));
        let why = failed(ask(&server, host()));
        assert!(
            why.contains("head") || why.contains("no valid HTTP"),
            "{why}"
        );
    }
}

#[test]
fn what_is_no_http_is_a_failure() {
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    ] {
        let server = Server::saying(answer);
        failed(ask(&server, host()));
    }
}

#[test]
fn no_header_of_a_guest_ends_the_request_it_is_in() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let mut session = session(&[(&server.origin(), host())], &Names::default());
    for (name, value) in [
        ("x-a", "b\r\nhost: evil"),
        ("x-a\r\nhost", "evil"),
        ("x-a: b\r\nc", "d"),
        ("transfer-encoding", "chunked"),
        ("content-length", "0"),
        ("host", "evil"),
        ("connection", "authorization"),
    ] {
        let request = Request {
            headers: vec![(name.to_owned(), value.to_owned())],
            ..get(&server.origin())
        };
        assert!(refused(session.fetch(&request)).contains("header"));
    }
    for url in ["/a HTTP/1.1\r\nhost: evil", "/a\r\n\r\nGET /b", "/a\u{85}b"] {
        let request = get(&format!("{}{url}", server.origin()));
        assert!(refused(session.fetch(&request)).contains("white space"));
    }
    assert!(server.seen().is_empty());
}
